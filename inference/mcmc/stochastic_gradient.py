"""What kernels of stochastic gradients share: the estimate, the step size of now, and what they report. Nothing is rejected.

The density of all rows is computed once, where a chain begins, to see that it can begin there. After that `lp` is NaN, so
these kernels are no members of a `cycle` or a `mixture`, whose others would have to know it.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .metropolis import at


class StochasticState(NamedTuple):
    """Where the chain is; the log density () where it began, NaN after the first step; the number of moves; and the velocity
    (dim,)."""

    position: jax.Array
    beginning: jax.Array
    count: jax.Array
    velocity: jax.Array


class StochasticInfo(NamedTuple):
    """Statistics of one transition; all scalars. `lp`: NaN, for the density is not computed; at the very first step that of
    the beginning; `n_steps`: gradient estimates, always one; `diverging`: the new position was not finite, the chain stays."""

    lp: jax.Array
    step_size: jax.Array
    n_steps: jax.Array
    diverging: jax.Array


def begin(target, position) -> StochasticState:
    """The state of a chain at `position` (dim,), at rest."""
    return StochasticState(*at(target, position), jnp.int32(0), jnp.zeros_like(position))


def estimate(key, target, position):
    """The gradient: an estimate where the target has one, else the exact one."""
    if hasattr(target, "gradient"):
        return target.gradient(key, position)
    return jax.grad(target.log_density)(position)


def begun(state: StochasticState) -> StochasticState:
    """The state after the first step, when it does not matter any more how dense it was where the chain began."""
    return state._replace(beginning=jnp.full_like(state.beginning, jnp.nan))


class Planned(eqx.Module):
    """A schedule of step sizes: a function from the number of the move."""

    schedule: Callable = eqx.field(static=True)

    def __call__(self, count):
        return self.schedule(count)


def planned(step_size):
    """A step size as a setting of a kernel: a number stays one."""
    return Planned(step_size) if callable(step_size) else step_size


def now(step_size, state: StochasticState):
    """The step size () of the next move: a number, or a schedule's value."""
    value = step_size(state.count) if callable(step_size) else step_size
    return jnp.asarray(value, state.position.dtype)


def moved(state: StochasticState, position, velocity, step_size) -> tuple[StochasticState, StochasticInfo]:
    """The state and the statistics of a move to `position`; where that is not finite the chain stays, at rest."""
    fine = jnp.all(jnp.isfinite(position)) & jnp.all(jnp.isfinite(velocity))
    new = StochasticState(
        position=jnp.where(fine, position, state.position),
        beginning=state.beginning,
        count=state.count + 1,
        velocity=jnp.where(fine, velocity, 0.0),
    )
    return new, StochasticInfo(state.beginning, step_size, jnp.int32(1), ~fine)


def checked(name: str, step_size) -> None:
    """Raise ValueError for a step size that is none."""
    if isinstance(step_size, float | int) and not 0 < step_size < float("inf"):
        raise ValueError(f"{name}: step_size must be a positive number or a schedule, got {step_size}.")
