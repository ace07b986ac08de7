"""Climb: to the top of a function of a vector, from several starts, by L-BFGS with a line search (`optax.lbfgs`).

One compiled loop, all starts side by side. A climb is done where the gradient is next to nothing, or where three steps in a
row did not rise. (Liu and Nocedal, Mathematical Programming 45, 1989.)
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import ppl
from ppl._keys import check_key

from ..diagnostics import SamplingWarning
from ..mcmc.initial import Initial, Uniform
from ..vi.guides.guide import OF_YOUR_OWN

TRIES = 10  # of each start, until the function is finite there


class Top(NamedTuple):
    """Where a climb is: position (dim,), the function, its largest slope, steps taken, those in a row without rise."""

    position: jax.Array
    value: jax.Array
    slope: jax.Array
    num: jax.Array
    idle: jax.Array


def climb(fn: Callable, start, *, steps: int) -> Top:
    """To the top of `fn` (dim,) -> scalar, from a start (dim,), by at most so many steps. Traceable."""
    optimizer: Any = optax.lbfgs()

    def down(x):
        value = fn(x)
        return jnp.where(jnp.isfinite(value), -value, jnp.finfo(x.dtype).max ** 0.25)  # so that a line search turns back

    value_and_grad: Any = optax.value_and_grad_from_state(down)
    least = jnp.finfo(start.dtype).eps ** 0.75

    def going(carry):
        top, _ = carry
        return (top.num < steps) & (top.idle < 3) & (top.slope > least * jnp.maximum(jnp.abs(top.value), 1.0))

    def step(carry):
        top, state = carry
        value, gradient = value_and_grad(top.position, state=state)
        gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
        move, state = optimizer.update(gradient, state, top.position, value=value, grad=gradient, value_fn=down)
        there: Any = optax.apply_updates(top.position, move)
        after: Any = optax.tree.get(state, "value")
        slope: Any = optax.tree.get(state, "grad")
        rose = value - after > 4.0 * jnp.finfo(start.dtype).eps * jnp.abs(value)
        new = Top(there, -after, jnp.max(jnp.abs(slope)), top.num + 1, jnp.where(rose, 0, top.idle + 1))
        return new, state

    zero = jnp.int32(0)
    top = Top(start, -down(start), jnp.asarray(jnp.inf, start.dtype), zero, zero)
    return lax.while_loop(going, step, (top, optimizer.init(start)))[0]


def highest(
    who: str, target: ppl.Target, fn: Callable[[Any, Any], Any], *, key, starts: int, steps: int, init: Initial | None
) -> tuple[Top, Top]:
    """The best of so many climbs of `fn(target, position)`, and all of them, leaves (starts, ...).

    Raises ValueError where the function is finite at no start; warns where the best climb was not done.
    """
    init = Uniform() if init is None else init
    tops = _climbs(fn, steps, starts, init, key, target)
    values = np.asarray(tops.value)
    finite = np.isfinite(values) & (values > -(np.finfo(values.dtype).max ** 0.2))
    if not finite.any():
        raise ValueError(
            f"{who}: the log density is not finite at any of {starts} starts: {target.explain(tops.position[0])}. Begin "
            "elsewhere, init=At({...})."
        )
    best = int(np.argmax(np.where(finite, values, -np.inf)))
    top = jax.tree.map(lambda x: x[best], tops)
    if top.num >= steps:
        warnings.warn(
            f"{who}: the climb was not done after {steps} steps: the largest slope is still {float(top.slope):.2g}. Allow "
            "more steps; if it stays, the density may have no highest point.",
            SamplingWarning,
            stacklevel=3,
        )
    return top, tops


def _begin(fn, init: Initial, key, target):
    """A start, the first of a few where the function is finite."""

    def again(carry):
        i, position = carry
        return (i < TRIES) & ~jnp.isfinite(fn(target, position))

    def other(carry):
        i, _ = carry
        return i + 1, init.position(jax.random.fold_in(key, i), target)

    return lax.while_loop(again, other, (jnp.int32(1), init.position(jax.random.fold_in(key, 0), target)))[1]


def _climbs(fn, steps: int, starts: int, init, key, target) -> Top:
    @jax.jit
    def run(key, target, init):
        def one(key):
            return climb(lambda x: fn(target, x), _begin(fn, init, key, target), steps=steps)

        return jax.vmap(one)(jax.random.split(key, starts))

    return run(key, target, init)


def check(who: str, target: ppl.Target, key, **counts: Any) -> None:
    """Raise ValueError, with a sentence, for a discrete site, a key that is none, or counts below one."""
    check_key(key, who)
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{who}: {name} must be a whole number of at least 1, got {value!r}.")
    target.refuse_discrete(who, instead=OF_YOUR_OWN)
