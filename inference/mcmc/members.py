"""What kernels made of kernels share: the members' states, their statistics, and what they learn.

*Members follow one position.* Every member keeps a state of its own, but before it moves, that state is put where the chain
is: `position`, `log_density` and `gradient`, all three known functions of the position, are overwritten, and what a member
has learned stays. So states must keep what depends on the position under these three names; a wrapper keeps the wrapped state
under the name `inner`. Cost: one gradient when a member with gradients follows one without; in a mixture, when any member is
without, at every move of one that has them; else nothing. Under `vmap`, chains of a mixture pay for all members.
"""

from collections import namedtuple
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from .metropolis import GradientState, State, at, at_with_gradient


class CombinedState(NamedTuple):
    """Where the chain is, and each member's state and statistics as its last move left them."""

    inner: State | GradientState
    states: tuple[Any, ...]
    infos: tuple[Any, ...]

    @property
    def position(self):
        return self.inner.position


class Combination(Kernel):
    """A kernel that is made of others, its `kernels`."""

    kernels: eqx.AbstractVar[tuple[Kernel, ...]]

    @property
    def together(self) -> bool:
        return any(member.together for member in self.kernels)

    def check(self, target) -> None:
        for member in self.kernels:
            member.check(target)


def checked(name: str, kernels) -> tuple[Any, ...]:
    """The kernels given to the combination called `name`; ValueError, with a sentence, for what is none."""
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            got = f"the class {kernel.__name__}" if isinstance(kernel, type) else type(kernel).__name__
            raise ValueError(f"{name}: expected kernels such as NUTS(), got {got}.")
    if not kernels:
        raise ValueError(f"{name}: expected at least one kernel.")
    return tuple(kernels)


# -- the members' states -------------------------------------------------------------------------------------------------


def begun(kernels, key, places):
    """The states of all members, each begun with its own target and position, and statistics of no move at all, zeros."""
    states, shapes = [], []
    for kernel, own_key, (target, position) in zip(kernels, jax.random.split(key, len(kernels)), places, strict=True):
        states.append(kernel.init(own_key, target, position))
        shapes.append(jax.eval_shape(lambda k, s, move=kernel.step, t=target: move(k, s, t)[1], own_key, states[-1]))
    return tuple(states), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(shapes))


def each_assumes(kernels, state: CombinedState, guess) -> CombinedState:
    """The state when each member has been told of the metric."""
    members = zip(kernels, state.states, strict=True)
    return state._replace(states=tuple(kernel.assume(own, guess) for kernel, own in members))


def each_learns(kernels, i, state: CombinedState) -> CombinedState:
    """The state when each member has learned from its own last move."""
    members = zip(kernels, state.states, state.infos, strict=True)
    return state._replace(states=tuple(kernel.learn(i, own, own_info) for kernel, own, own_info in members))


def evaluated(target, position, *, gradient: bool) -> State | GradientState:
    """What is known of a position after one evaluation there."""
    return at_with_gradient(target, position) if gradient else at(target, position)


def innermost(state):
    """The wrapped state that holds the position, under any number of wrappers."""
    while not hasattr(state, "log_density"):
        if not hasattr(state, "inner"):
            raise ValueError(
                f"cycle, mixture: a state needs the fields position and log_density, or inner, and {type(state).__name__} has "
                f"{', '.join(state._fields)}."
            )
        state = state.inner
    return state


def has_gradient(state) -> bool:
    """Whether a state, or the one that it wraps, knows log density and gradient of all that moves."""
    if "inner" in state._fields:
        return has_gradient(state.inner)
    return {"log_density", "gradient"} <= set(state._fields)


def place_of(state) -> State | GradientState:
    """What any state knows of where it is."""
    state = innermost(state)
    if hasattr(state, "gradient"):
        return GradientState(state.position, state.log_density, state.gradient)
    return State(state.position, state.log_density)


def placed(state, point, target):
    """`state`, put where `point` is."""
    innermost(state)  # or a sentence
    if not hasattr(state, "log_density"):
        return state._replace(inner=placed(state.inner, point, target))
    if hasattr(state, "gradient") and not hasattr(point, "gradient"):
        point = at_with_gradient(target, point.position)
    return state._replace(**{name: x for name, x in point._asdict().items() if name in state._fields})


def replaced(items: tuple, k: int, item) -> tuple:
    """`items` with `item` as number `k`."""
    return (*items[:k], item, *items[k + 1 :])


# -- their statistics: flat, one scalar to a name ------------------------------------------------------------------------


_TOTALS = {
    "acceptance_rate": jnp.nanmean,
    "n_steps": lambda x: jnp.sum(x, dtype=x.dtype),
    "num_evaluations": lambda x: jnp.sum(x, dtype=x.dtype),
    "diverging": jnp.any,
}


def total(name: str, values):
    """One number for several moves' statistics `values` (num,); also of what they say of surrogates."""
    name = name.replace("_surrogate", "")
    return _TOTALS[name](values) if name in _TOTALS else values[-1]


def side_by_side(infos):
    """The statistics of one move of each member; see `cycle`."""
    named: dict[str, Any] = {"lp": infos[-1].lp}
    for name in _TOTALS:
        values = [getattr(info, name) for info in infos if hasattr(info, name)]
        if values:
            named[name] = total(name, jnp.stack(values))
    for k, info in enumerate(infos):
        named |= {f"{name}_{k}": x for name, x in info._asdict().items() if name != "lp"}
    return info_type("Cycle", tuple(named))(**named)


def unknown(x):
    """In place of a statistic like `x` that is not reported."""
    return jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0)


@cache
def info_type(name: str, fields: tuple[str, ...]):
    """A NamedTuple type with these fields, always the same one: JAX tells pytrees apart by their type."""
    return namedtuple(f"{name}Info", fields)
