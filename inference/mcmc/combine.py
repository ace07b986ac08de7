"""Kernels made of kernels: `cycle`, `mixture`, `repeat`. If the members leave a target invariant, so do these.

```python
inf.cycle(inf.NUTS(), inf.EllipticalSlice())                      # each in turn, in every step
inf.mixture([inf.RandomWalk(), inf.Slice()], weights=[0.8, 0.2])  # one at random, in every step
inf.repeat(inf.RandomWalk(), 10)                                  # ten moves to a recorded draw
```
(Tierney, Ann. Statist. 22, 1994, section 2.4.)

*Members follow one position.* Every member keeps a state of its own, but before it moves, that state is put where the chain
is: `position`, `log_density` and `gradient`, all three known functions of the position, are overwritten, and what a member
has learned stays. So states must keep what depends on the position under these three names; a wrapper keeps the wrapped state
under the name `inner`. Cost: one gradient when a member with gradients follows one without; in a mixture, when any member is
without, at every move of one that has them; else nothing. Under `vmap`, chains of a mixture pay for all members.

*Members learn*, each from its own moves: `mcmc` wraps those that leave settings open, as it does a kernel that runs alone.
"""

import dataclasses
from collections import namedtuple
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

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


class Cycle(Combination):
    """See `cycle`."""

    kernels: tuple[Kernel, ...]

    def init(self, key, target, position) -> CombinedState:
        states, infos = _begin(self.kernels, key, [(target, position)] * len(self.kernels))
        return CombinedState(_evaluated(target, position, gradient=_has_gradient(states[-1])), states, infos)

    def step(self, key, state: CombinedState, target):
        now, states, infos = state.inner, [], []
        for kernel, own, own_key in zip(self.kernels, state.states, jax.random.split(key, len(self.kernels)), strict=True):
            own, info = kernel.step(own_key, _placed(own, now, target), target)
            now = _point(own)
            states.append(own)
            infos.append(info)
        return CombinedState(now, tuple(states), tuple(infos)), _side_by_side(infos)

    def learn(self, i, state: CombinedState, info) -> CombinedState:
        return _each_learns(self.kernels, i, state)


class Mixture(Combination):
    """See `mixture`. `weights` (num_members,): probabilities."""

    kernels: tuple[Kernel, ...]
    weights: jax.Array
    warmup: jax.Array | int = 1000

    def with_warmup(self, warmup: int) -> "Mixture":
        """The same with another length of warm-up."""
        return dataclasses.replace(self, warmup=jnp.int32(warmup))

    def init(self, key, target, position) -> CombinedState:
        states, infos = _begin(self.kernels, key, [(target, position)] * len(self.kernels))
        gradient = all(_has_gradient(own) for own in states)
        return CombinedState(_evaluated(target, position, gradient=gradient), states, infos)

    def step(self, key, state: CombinedState, target):
        key_member, key_move = jax.random.split(key)
        member = jax.random.categorical(key_member, jnp.log(self.weights)).astype(jnp.int32)
        fields = {name: x for info in state.infos for name, x in info._asdict().items() if name != "member"}
        record = _record(type(self).__name__, (*fields, "member"))
        kind = type(state.inner)

        def move_of(k: int):
            def move(key, state: CombinedState):
                own, info = self.kernels[k].step(key, _placed(state.states[k], state.inner, target), target)
                states, infos = _put(state.states, k, own), _put(state.infos, k, info)
                statistics = {name: getattr(info, name, _unknown(x)) for name, x in fields.items()}
                now = _point(own)
                return CombinedState(kind(*now[: len(kind._fields)]), states, infos), statistics

            return move

        state, statistics = lax.switch(member, [move_of(k) for k in range(len(self.kernels))], key_move, state)
        return state, record(**statistics, member=member)

    def learn(self, i, state: CombinedState, info) -> CombinedState:
        # A member learns when it has moved; and at the last step of the warm-up, when it settles on what it has learned.
        states = []
        for k, (kernel, own, own_info) in enumerate(zip(self.kernels, state.states, state.infos, strict=True)):
            due = (info.member == k) | (i == self.warmup)
            states.append(lax.cond(due, partial(kernel.learn, i), lambda s, _: s, own, own_info))
        return state._replace(states=tuple(states))


class Repeat(Combination):
    """See `repeat`. Its state is that of its one member."""

    kernels: tuple[Kernel]
    num: int = eqx.field(static=True)

    def init(self, key, target, position):
        return self.kernels[0].init(key, target, position)

    def step(self, key, state, target):
        state, infos = lax.scan(lambda s, k: self.kernels[0].step(k, s, target), state, jax.random.split(key, self.num))
        return state, type(infos)(**{name: _total(name, values) for name, values in infos._asdict().items()})

    def learn(self, i, state, info):
        return self.kernels[0].learn(i, state, info)


def cycle(*kernels: Kernel) -> Cycle:
    """A kernel that lets each of `kernels` move in turn, in every step.

    Statistics: `lp` of the last; over all members, the mean of `acceptance_rate`, sums of `n_steps` and `num_evaluations`,
    and whether any was `diverging`; and what member k (from 0) reports under names that end in `_k`.
    """
    return Cycle(_checked("cycle", kernels))


def mixture(kernels: Sequence[Kernel], weights: Sequence[float]) -> Mixture:
    """A kernel that lets one of `kernels` move in every step, drawn with probability proportional to `weights`.

    Statistics: those of the one that moved, whose number (from 0) is `member`; NaN, 0 or False for what only others report.
    A member learns from its own moves alone: give a long warm-up where a weight is small.
    """
    probabilities = [float(weight) for weight in weights]
    if len(probabilities) != len(kernels) or not all(0 < weight < float("inf") for weight in probabilities):
        raise ValueError(f"mixture: expected one positive weight for each of {len(kernels)} kernels, got {list(weights)}.")
    return Mixture(_checked("mixture", kernels), jnp.array(probabilities) / sum(probabilities))


def repeat(kernel: Kernel, num: int) -> Repeat:
    """A kernel that lets `kernel` move `num` times in every step: thinning that keeps no draws to throw away.

    Statistics: the mean of `acceptance_rate`, sums of `n_steps` and `num_evaluations`, whether any move was `diverging`, and
    of all else the last. Warm-up learns once in `num` moves, from these.
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ValueError(f"repeat: num must be a whole number of at least 1, got {num!r}.")
    return Repeat(_checked("repeat", (kernel,)), num)


def _checked(name: str, kernels) -> tuple[Any, ...]:
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            got = f"the class {kernel.__name__}" if isinstance(kernel, type) else type(kernel).__name__
            raise ValueError(f"{name}: expected kernels such as NUTS(), got {got}.")
    if not kernels:
        raise ValueError(f"{name}: expected at least one kernel.")
    return tuple(kernels)


# -- the members' states -------------------------------------------------------------------------------------------------


def _begin(kernels, key, places):
    """The states of all members, each begun with its own target and position, and statistics of no move at all, zeros."""
    states, shapes = [], []
    for kernel, own_key, (target, position) in zip(kernels, jax.random.split(key, len(kernels)), places, strict=True):
        states.append(kernel.init(own_key, target, position))
        shapes.append(jax.eval_shape(lambda k, s, move=kernel.step, t=target: move(k, s, t)[1], own_key, states[-1]))
    return tuple(states), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tuple(shapes))


def _each_learns(kernels, i, state: CombinedState) -> CombinedState:
    """The state when each member has learned from its own last move."""
    members = zip(kernels, state.states, state.infos, strict=True)
    return state._replace(states=tuple(kernel.learn(i, own, own_info) for kernel, own, own_info in members))


def _evaluated(target, position, *, gradient: bool) -> State | GradientState:
    return at_with_gradient(target, position) if gradient else at(target, position)


def _innermost(state):
    """The wrapped state that holds the position, under any number of wrappers."""
    while not hasattr(state, "log_density"):
        if not hasattr(state, "inner"):
            raise ValueError(
                f"cycle, mixture: a state needs the fields position and log_density, or inner, and {type(state).__name__} has "
                f"{', '.join(state._fields)}."
            )
        state = state.inner
    return state


def _has_gradient(state) -> bool:
    return hasattr(_innermost(state), "gradient")


def _point(state) -> State | GradientState:
    """What any state knows of where it is."""
    state = _innermost(state)
    if hasattr(state, "gradient"):
        return GradientState(state.position, state.log_density, state.gradient)
    return State(state.position, state.log_density)


def _placed(state, point, target):
    """`state`, put where `point` is."""
    _innermost(state)  # or a sentence
    if not hasattr(state, "log_density"):
        return state._replace(inner=_placed(state.inner, point, target))
    if hasattr(state, "gradient") and not hasattr(point, "gradient"):
        point = at_with_gradient(target, point.position)
    return state._replace(**{name: x for name, x in point._asdict().items() if name in state._fields})


def _put(items: tuple, k: int, item) -> tuple:
    return (*items[:k], item, *items[k + 1 :])


# -- their statistics: flat, one scalar to a name ------------------------------------------------------------------------


_TOTALS = {
    "acceptance_rate": jnp.nanmean,
    "n_steps": lambda x: jnp.sum(x, dtype=x.dtype),
    "num_evaluations": lambda x: jnp.sum(x, dtype=x.dtype),
    "diverging": jnp.any,
}


def _total(name: str, values):
    """One number for several moves' statistics `values` (num,)."""
    return _TOTALS[name](values) if name in _TOTALS else values[-1]


def _side_by_side(infos):
    """The statistics of one move of each member; see `cycle`."""
    named: dict[str, Any] = {"lp": infos[-1].lp}
    for name in _TOTALS:
        values = [getattr(info, name) for info in infos if hasattr(info, name)]
        if values:
            named[name] = _total(name, jnp.stack(values))
    for k, info in enumerate(infos):
        named |= {f"{name}_{k}": x for name, x in info._asdict().items() if name != "lp"}
    return _record("Cycle", tuple(named))(**named)


def _unknown(x):
    """In place of a statistic like `x` that is not reported."""
    return jnp.full_like(x, jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0)


@cache
def _record(name: str, fields: tuple[str, ...]):
    """A NamedTuple type with these fields, always the same one: JAX tells pytrees apart by their type."""
    return namedtuple(f"{name}Info", fields)
