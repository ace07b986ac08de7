"""Training: climb the mean log score over cases, by `inf.maximize`, and so by the one loop: with progress, budget, store.

    mean over cases of log q(answer | what is told)  =  constant - mean of KL(exact posterior || q)

```python
net, fit = trained(log_score, cases, net, key=key, budget="60s")
```
A budget of seconds is turned into steps by taking some, so that the learning rate can fall to zero just at its end.
"""

import time
from functools import cache
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
        `annealed(10_000, optax.contrib.muon(0.01))`
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
    **run: Any,
) -> tuple[Any, inf.optimise.Fit]:
    """The network after training, and the fit: loss by step, seconds, what was left out.

    - `objective`: an `@expectation` of (cases, net).
    - `steps`, or `budget` in seconds ("60s", "5min"); with neither, 10,000 steps.
    - `batch`: cases a step. `optimizer`: at its full rate, see `annealed`.
    - `run`: as of `inf.maximize`: `progress`, `store`.
    """
    if steps is not None and budget is not None:
        raise ValueError("say steps=, or a budget= of seconds, and not both.")
    if budget is not None:
        steps = _steps(objective, cases, net, seconds(budget), key=key, samples=batch, inner=optimizer)
    steps = 10_000 if steps is None else steps
    fit = inf.maximize(
        objective, cases, net, free="net", key=key, steps=steps, samples=batch, optimizer=annealed(steps, optimizer), **run
    )
    return fit["net"], fit


def _steps(objective, cases, net, limit: float, *, key, samples: int, inner) -> int:
    """How many steps there is time for."""
    begun = time.monotonic()
    pilot = inf.maximize(
        objective,
        cases,
        net,
        free="net",
        key=key,
        steps=10**6,
        samples=samples,
        optimizer=annealed(10**6, inner),
        budget=max(PILOT * limit, 0.2),
        progress=False,
    )
    each = pilot.provenance["sampling_seconds"] / max(len(pilot.values), 1)
    return max(1, int((limit - (time.monotonic() - begun)) / each))
