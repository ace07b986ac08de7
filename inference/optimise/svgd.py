"""Stein variational gradient descent: particles that climb the density together, and push each other apart.

    move of x_i  =  mean over j of  k(x_j, x_i) gradient of log density(x_j)  +  gradient by x_j of k(x_j, x_i)

with a Gaussian kernel, as wide as the median distance. With one particle this is a climb to the mode; with many they fill the
posterior, too thinly in many dimensions. Nothing is known of their density, so nothing can correct them. (Liu and Wang, "Stein
Variational Gradient Descent", NeurIPS 2016.)

```python
posterior = inf.svgd(program | {"y": y}, key=jax.random.key(0), particles=100)
```
"""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import ppl

from ..mcmc.initial import Initial, Uniform
from ..posterior import Posterior
from ..progress import Meter, Progress, Silent
from ..provenance import key_words, versions
from ..run import run
from .climb import check

LENGTH = 512  # steps that a compiled call may take


class Flock(NamedTuple):
    """Positions (particles, dim), and the optimiser's state."""

    positions: jax.Array
    optimizer: Any


class Still(NamedTuple):
    """`posterior.run`: the root mean square move that the particles were asked for at each step, (steps,)."""

    moves: np.ndarray


def svgd(
    program,
    *,
    key: jax.Array,
    particles: int = 100,
    steps: int = 1000,
    optimizer: optax.GradientTransformation | None = None,
    init: Initial | None = None,
    progress: bool | Progress = True,
    budget: float | str | None = None,
) -> Posterior:
    """Particles, as draws (1, particles).

    - `program`: a conditioned program, or a `ppl.Target`.
    - `optimizer`: any Optax transformation, by default `optax.adam(0.05)`.
    - `init`: where particles begin, each by itself: by default `Uniform()`.
    - `progress`, `budget`: as for `mcmc`; Ctrl-C ends the run where it is.

    Raises:
        ValueError: for a discrete site; where the density is finite at no particle at first, or at the end.

    Example:
        `svgd(logistic(x) | {"y": y}, key=jax.random.key(0)).summary()`
    """
    began, target = time.monotonic(), ppl.as_target(program)
    check("svgd", target, key, particles=particles, steps=steps)
    optimizer = optax.adam(0.05) if optimizer is None else optimizer
    begin = _begin(target, key, particles, Uniform() if init is None else init)
    some = jax.jit(partial(_some, optimizer))  # of this run: what a model finds outside its arguments may change
    outcome = run(
        lambda lane, state, start, num: some(state, target, num),
        [Flock(begin, optimizer.init(begin))],
        steps,
        most=LENGTH,
        progress=Meter(f"{particles} particles") if progress is True else progress or Silent(),
        budget=budget,
    )
    positions = outcome.states[0].positions
    lp = _log_densities(target, positions)
    if not np.isfinite(lp).all():
        raise ValueError(
            f"svgd: {np.sum(~np.isfinite(lp))} of {particles} particles have left where the density is finite. Take smaller "
            "steps: optimizer=optax.adam(0.01)."
        )
    draws = jax.jit(jax.vmap(lambda target, x: target.record(x), (None, 0)))(target, positions)
    moves = np.concatenate([part[0] for part in outcome.records[0]])
    made = {
        "algorithm": "svgd",
        "key": key_words(key),
        "particles": particles,
        "steps": outcome.steps,
        "stopped": outcome.reason,
        "dtype": str(positions.dtype),
        "sampling_seconds": time.monotonic() - began,
        "versions": versions(),
    }
    return Posterior(
        jax.tree.map(lambda x: np.asarray(x)[None], draws),
        {"lp": lp[None]},
        provenance=made,
        program=target.program,
        run=Still(moves),
    )


def _begin(target: ppl.Target, key, particles: int, init: Initial) -> jax.Array:
    """Positions (particles, dim), at all of which the density is finite."""
    positions = jax.jit(jax.vmap(init.position, (0, None)))(jax.random.split(key, particles), target)
    bad = ~np.isfinite(_log_densities(target, positions))
    if bad.any():
        raise ValueError(
            f"svgd: the log density is not finite at {bad.sum()} of {particles} particles: "
            f"{target.explain(positions[int(np.argmax(bad))])}. Begin elsewhere, init=At({{...}}, jitter=1.0)."
        )
    return positions


def _some(optimizer, state: Flock, target: ppl.Target, num):
    """`num` steps, at most LENGTH, and the moves that they asked for, (1, LENGTH)."""

    def step(i, carry):
        state, moves = carry
        move = push(state.positions, jax.vmap(jax.grad(target.log_density))(state.positions))
        updates, inner = optimizer.update(-move, state.optimizer, state.positions)
        positions: Any = optax.apply_updates(state.positions, updates)
        return Flock(positions, inner), moves.at[i].set(jnp.sqrt(jnp.mean(move**2)))

    state, moves = lax.fori_loop(0, num, step, (state, jnp.zeros(LENGTH, state.positions.dtype)))
    return state, moves[None]


def _log_densities(target: ppl.Target, positions) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(lambda target, x: target.log_density(x), (None, 0)))(target, positions))


def push(positions, gradients):
    """The move of every particle (particles, dim), from their positions and the gradients there."""
    num = len(positions)
    squares = jnp.sum(positions**2, 1)
    distances = jnp.maximum(squares[:, None] + squares - 2.0 * positions @ positions.T, 0.0)
    # at this width the kernels that a particle feels sum to about one beside its own
    width = jnp.median(distances) / jnp.log(num + 1.0)
    width = jnp.where(width > 0, width, 1.0)
    kernel = jnp.exp(-distances / width)
    apart = 2.0 / width * (positions * jnp.sum(kernel, 1, keepdims=True) - kernel @ positions)
    return (kernel @ gradients + apart) / num
