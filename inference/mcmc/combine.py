"""Kernels made of kernels: `cycle`, `mixture`, `repeat`. If the members leave a target invariant, so do these.

```python
inf.cycle(inf.NUTS(), inf.EllipticalSlice())                      # each in turn, in every step
inf.mixture([inf.RandomWalk(), inf.Slice()], weights=[0.8, 0.2])  # one at random, in every step
inf.repeat(inf.RandomWalk(), 10)                                  # ten moves to a recorded draw
```
(Tierney, Ann. Statist. 22, 1994, section 2.4.)

*Members learn*, each from its own moves: `mcmc` wraps those that leave settings open, as it does a kernel that runs alone.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from .members import (
    Combination,
    CombinedState,
    begun,
    checked,
    each_assumes,
    each_learns,
    evaluated,
    has_gradient,
    info_type,
    place_of,
    placed,
    replaced,
    side_by_side,
    total,
    unknown,
)


class Cycle(Combination):
    """See `cycle`."""

    kernels: tuple[Kernel, ...]

    def init(self, key, target, position) -> CombinedState:
        states, infos = begun(self.kernels, key, [(target, position)] * len(self.kernels))
        return CombinedState(evaluated(target, position, gradient=has_gradient(states[-1])), states, infos)

    def assume(self, state: CombinedState, guess) -> CombinedState:
        return each_assumes(self.kernels, state, guess)

    def step(self, key, state: CombinedState, target):
        now, states, infos = state.inner, [], []
        for kernel, own, own_key in zip(self.kernels, state.states, jax.random.split(key, len(self.kernels)), strict=True):
            own, info = kernel.step(own_key, placed(own, now, target), target)
            now = place_of(own)
            states.append(own)
            infos.append(info)
        return CombinedState(now, tuple(states), tuple(infos)), side_by_side(infos)

    def learn(self, i, state: CombinedState, info) -> CombinedState:
        return each_learns(self.kernels, i, state)


class Mixture(Combination):
    """See `mixture`. `weights` (num_members,): probabilities."""

    kernels: tuple[Kernel, ...]
    weights: jax.Array
    warmup: jax.Array | int = 1000

    def with_warmup(self, warmup: int) -> "Mixture":
        """The same with another length of warm-up."""
        return dataclasses.replace(self, warmup=jnp.int32(warmup))

    def init(self, key, target, position) -> CombinedState:
        states, infos = begun(self.kernels, key, [(target, position)] * len(self.kernels))
        gradient = all(has_gradient(own) for own in states)
        return CombinedState(evaluated(target, position, gradient=gradient), states, infos)

    def assume(self, state: CombinedState, guess) -> CombinedState:
        return each_assumes(self.kernels, state, guess)

    def step(self, key, state: CombinedState, target):
        key_member, key_move = jax.random.split(key)
        member = jax.random.categorical(key_member, jnp.log(self.weights)).astype(jnp.int32)
        fields = {name: x for info in state.infos for name, x in info._asdict().items() if name != "member"}
        record = info_type(type(self).__name__, (*fields, "member"))
        kind = type(state.inner)

        def move_of(k: int):
            def move(key, state: CombinedState):
                own, info = self.kernels[k].step(key, placed(state.states[k], state.inner, target), target)
                states, infos = replaced(state.states, k, own), replaced(state.infos, k, info)
                statistics = {name: getattr(info, name, unknown(x)) for name, x in fields.items()}
                now = place_of(own)
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

    def assume(self, state, guess):
        return self.kernels[0].assume(state, guess)

    def step(self, key, state, target):
        state, infos = lax.scan(lambda s, k: self.kernels[0].step(k, s, target), state, jax.random.split(key, self.num))
        return state, type(infos)(**{name: total(name, values) for name, values in infos._asdict().items()})

    def learn(self, i, state, info):
        return self.kernels[0].learn(i, state, info)


def cycle(*kernels: Kernel) -> Cycle:
    """A kernel that lets each of `kernels` move in turn, in every step.

    Statistics: `lp` of the last; over all members, the mean of `acceptance_rate`, sums of `n_steps` and `num_evaluations`,
    and whether any was `diverging`; and what member k (from 0) reports under names that end in `_k`.
    """
    return Cycle(checked("cycle", kernels))


def mixture(kernels: Sequence[Kernel], weights: Sequence[float]) -> Mixture:
    """A kernel that lets one of `kernels` move in every step, drawn with probability proportional to `weights`.

    Statistics: those of the one that moved, whose number (from 0) is `member`; NaN, 0 or False for what only others report.
    A member learns from its own moves alone: give a long warm-up where a weight is small.
    """
    probabilities = [float(weight) for weight in weights]
    if len(probabilities) != len(kernels) or not all(0 < weight < float("inf") for weight in probabilities):
        raise ValueError(f"mixture: expected one positive weight for each of {len(kernels)} kernels, got {list(weights)}.")
    return Mixture(checked("mixture", kernels), jnp.array(probabilities) / sum(probabilities))


def repeat(kernel: Kernel, num: int) -> Repeat:
    """A kernel that lets `kernel` move `num` times in every step: thinning that keeps no draws to throw away.

    Statistics: the mean of `acceptance_rate`, sums of `n_steps` and `num_evaluations`, whether any move was `diverging`, and
    of all else the last. Warm-up learns once in `num` moves, from these.
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ValueError(f"repeat: num must be a whole number of at least 1, got {num!r}.")
    return Repeat(checked("repeat", (kernel,)), num)
