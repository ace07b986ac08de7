"""Training: climb the mean log score over cases, by `inf.maximize`, and so by the one loop: with progress, budget, store.

    mean over cases of log q(answer | what is told)  =  constant - mean of KL(exact posterior || q)

```python
net, fit = trained(log_score, cases, net, key=key, budget="60s")
```
A budget of seconds is turned into steps by taking some, so that the learning rate can fall to zero just at its end. A store
remembers the number, so a run that was broken off is the run that it was.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import inference as inf
from inference.run import seconds

RATE = 1e-3
PILOT = 0.05  # the share of a budget that is spent on finding out how fast steps are


class Annealed(NamedTuple):
    """The state of `annealed`."""

    inner: Any
    num: jax.Array
    steps: jax.Array


def annealed(steps: int, optimizer: optax.GradientTransformation | None = None) -> optax.GradientTransformation:
    """An optimiser whose rate rises for a twentieth of the steps, and then falls along a cosine to zero.

    - `optimizer`: at its full rate; by default AdamW at 0.001, its gradients' norm cut to 1.

    The number of steps is kept in the state: programs compiled for one number serve for others.

    Example:
        `annealed(10_000, sur.muon())`
    """
    inner = default_optimizer() if optimizer is None else optimizer

    def init(params):
        return Annealed(inner.init(params), jnp.int32(0), jnp.float32(steps))

    return optax.GradientTransformation(init, _update(inner))


@cache
def default_optimizer() -> optax.GradientTransformation:
    """AdamW at 0.001, after gradients' norm is cut to 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=1e-4))


@cache
def muon(rate: float = RATE) -> optax.GradientTransformation:
    """Muon for the matrices of a trunk, each orthogonalised by itself; AdamW at 0.001 for all else: what reads and writes,
    biases, norms, tokens. After gradients' norm is cut to 1.

    - `rate`: of the trunk. Updates have the root mean square of AdamW's, so its rates can be kept (Jordan, "Muon", 2024; Liu
      et al., "Muon is scalable for LLM training", 2025, arXiv:2502.16982).

    Example:
        `sur.pfn(program, context=("x", "y"), query="y", key=key, optimizer=sur.muon())`
    """
    inner = optax.contrib.muon(
        rate,
        weight_decay=1e-4,
        adam_learning_rate=RATE,
        adam_weight_decay=1e-4,
        muon_weight_dimension_numbers=_matrices,
        consistent_rms=0.2,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), inner)


def _matrices(params: Any) -> Any:
    """Which of the parameters are a trunk's matrices (depth, in, out). Shapes do not tell: stacked biases have two axes."""
    matrix = optax.contrib.MuonDimensionNumbers(-2, -1)
    return {label: matrix if ".trunk." in label and label.endswith(".weight") else None for label in params}


@cache
def _update(inner: optax.GradientTransformation):
    def update(updates, state, params=None):
        updates, new = inner.update(updates, state.inner, params)
        done = state.num / state.steps
        rate = jnp.minimum(20.0 * done + 1.0 / state.steps, 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(done, 0.0, 1.0))))
        return jax.tree.map(lambda x: rate * x, updates), Annealed(new, state.num + 1, state.steps)

    return update


def trained(
    objective: inf.vi.Expectation,
    cases: Any,
    net: Any,
    *,
    key: jax.Array,
    steps: int | None = None,
    budget: float | str | None = None,
    batch: int = 256,
    optimizer: optax.GradientTransformation | None = None,
    placement: inf.Sharded | None = None,
    store: inf.Store | None = None,
    **run: Any,
) -> tuple[Any, inf.optimise.Fit]:
    """The network after training, and the fit: loss by step, seconds, what was left out.

    - `objective`: an `@expectation` of (cases, net).
    - `steps`, or `budget` in seconds ("60s", "5min"); with neither, 10,000 steps.
    - `batch`: cases a step. `optimizer`: at its full rate, see `annealed`; `muon()`.
    - `placement`: `inf.Sharded()`, or `inf.Sharded(mesh)`, shares the cases of a step out among devices. Each draws and scores
      its own; the numbers are those of one device, but for the order of sums.
    - `store`: an `inf.Store`. The same line again goes on bit for bit, also with a `budget`.
    - `run`: as of `inf.maximize`: `progress`.

    Raises:
        ValueError: for steps and a budget, and for other steps than those of the run in the store.
    """
    if steps is not None and budget is not None:
        raise ValueError("say steps=, or a budget= of seconds, and not both.")
    limit = seconds(budget)
    climb = partial(inf.maximize, objective, cases, net, free="net", key=key, samples=batch, placement=placement)
    planned = store.planned() if isinstance(store, inf.Store) else None
    if steps is not None and planned not in (None, steps):
        raise ValueError(
            f"the store holds a run of {planned} steps, at whose end the rate is zero, so it cannot have {steps}. Say "
            f"steps={planned}, or name another directory in Store(...)."
        )
    if planned is not None:
        steps = planned
    elif budget is not None:
        steps = _steps(climb, optimizer, limit)
    steps = 10_000 if steps is None else steps
    fit = climb(steps=steps, optimizer=annealed(steps, optimizer), store=store, **run)
    return fit["net"], fit


def _steps(climb: Callable[..., inf.optimise.Fit], inner, limit: float) -> int:
    """How many steps there is time for."""
    begun, some = time.monotonic(), 10**6
    pilot = climb(steps=some, optimizer=annealed(some, inner), budget=max(PILOT * limit, 0.2), progress=False)
    each = pilot.provenance["sampling_seconds"] / max(len(pilot.values), 1)
    return max(1, int((limit - (time.monotonic() - begun)) / each))
