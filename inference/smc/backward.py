"""Backward: smoothing paths that go back from the last step to the first, choosing among the particles at every step.

    slot at step t  ~  weights at t  x  density of the later choices given what the particle carried

The three ways of `smoothing.py` that are paths of their own. What particles carried is found by taking the loop again.
"""

import abc
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl

from ..resampling.multinomial import independent
from .history import Kept
from .memory import data_see_the_carry, like, log_ahead, memory
from .program_path import ProgramPath
from .renewal import drawn
from .smoothing import Smoother

PAIRS = 1 << 21  # densities of a step that are in memory together


class Going(NamedTuple):
    """Where paths that go backwards are, at step `t`: what the filter has of that step, (N, ...); the ancestors, at this step,
    of the particles that the paths came from (num,); and the `later` choices of the paths, (num, step, ...)."""

    opened: ppl.Stepwise
    span: int
    t: Any
    carry: Any
    log_weights: jax.Array
    ancestors: jax.Array
    later: dict[str, Any]

    def follow(self, carry, later) -> jax.Array:
        """How well one path's later choices follow one carry, in logs."""
        return log_ahead(self.opened, self.span, self.t + 1, {}, carry, later)

    def fits(self, slots) -> jax.Array:
        """(num,): of each path, how well its later choices follow the particle in its slot."""
        return jax.vmap(self.follow)(jax.tree.map(lambda x: x[slots], self.carry), self.later)

    def any(self, key) -> jax.Array:
        """(num,): slots drawn by the weights of the filter."""
        return independent(key, self.log_weights, len(self.ancestors))

    def exactly(self, key, later) -> jax.Array:
        """A slot drawn from its law given one path's later choices."""
        fits = jax.vmap(self.follow, (0, None))(self.carry, later)
        return drawn(key, self.log_weights + fits)


class Goes(Smoother):
    """Smoothers whose paths go backwards, step by step."""

    def check(self, path: ProgramPath) -> None:
        """Raise ValueError, with a sentence, for a loop that this smoother cannot go back."""

    @abc.abstractmethod
    def slots(self, key, going: Going) -> jax.Array:
        """(num,): of each path the slot of the particle that it goes on to."""

    def refuse(self, slots) -> None:
        """Raise ValueError for slots (num, step) that say that something was wrong."""

    def draw(self, key, path, kept, num):
        self.check(path)
        later, slots = _gone(self, key, path, kept, num)
        self.refuse(slots)
        return later


class Backward(Goes):
    """Chooses among all particles: `Backward()`."""

    def slots(self, key, going):
        num = len(going.ancestors)
        some = max(1, PAIRS // len(going.log_weights))
        keys = jax.random.split(key, num)
        return lax.map(lambda x: going.exactly(*x), (keys, going.later), batch_size=min(some, num))


class BackwardMCMC(Goes):
    """Makes `num` independent Metropolis proposals, starting from the ancestor: `BackwardMCMC(1)`.

    Raises:
        ValueError: for less than one.
    """

    num: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.num < 1:
            raise ValueError(f"BackwardMCMC: num must be at least 1, got {self.num}.")

    def slots(self, key, going):
        def again(now, key):
            slots, fits = now
            key_new, key_accept = jax.random.split(key)
            new = going.any(key_new)
            new_fits = going.fits(new)
            accepted = -jax.random.exponential(key_accept, fits.shape, fits.dtype) < new_fits - fits
            return (jnp.where(accepted, new, slots), jnp.where(accepted, new_fits, fits)), None

        begun = going.ancestors, going.fits(going.ancestors)
        return lax.scan(again, begun, jax.random.split(key, self.num))[0][0]


class Rejection(Goes):
    """Proposes by weight and accepts by transition density: `Rejection(log_bound)`.

    - `log_bound`: the largest value that the log density of a step's choices can have, whatever the carry: of Normal(z, q) it
      is -log(q sqrt(2 pi)). For a loop of memory 1, whose data depend on a step's choices alone.
    - `most`: after so many failures, all particles are looked at.

    Raises:
        ValueError: from `smooth`, for a loop that remembers more, or a density above the bound.
    """

    log_bound: float
    most: int = eqx.field(static=True, default=30)

    def check(self, path):
        if memory(path.opened) != 1 or data_see_the_carry(path.opened):
            raise ValueError(
                "Rejection: the bound is one of the density of a step's choices, but in this loop later data, or later "
                "choices, depend on the carry too. Use BackwardMCMC(1) or Backward()."
            )

    def slots(self, key, going):
        key_tries, key_rest = jax.random.split(key)

        def transition(carry, later):
            given = jax.tree.map(lambda x: x[going.t + 1], later)
            return going.opened.step(None, going.t + 1, {}, carry, given).log_prior

        def again(now):
            i, slots, open_ = now
            key_new, key_accept = jax.random.split(jax.random.fold_in(key_tries, i))
            new = going.any(key_new)
            fits = jax.vmap(transition)(jax.tree.map(lambda x: x[new], going.carry), going.later) - self.log_bound
            taken = open_ & (-jax.random.exponential(key_accept, fits.shape, fits.dtype) < fits)
            # where the bound is none the paths would be wrong: they are marked, and the run is refused
            return i + 1, jnp.where(open_ & (fits > SLACK), -1, jnp.where(taken, new, slots)), open_ & ~taken

        def rest(now):
            slots, open_ = now
            lane = jnp.argmax(open_)
            found = going.exactly(jax.random.fold_in(key_rest, lane), jax.tree.map(lambda x: x[lane], going.later))
            return slots.at[lane].set(jnp.where(slots[lane] < 0, -1, found)), open_.at[lane].set(False)

        none = jnp.zeros_like(going.ancestors)
        begun = jnp.int32(0), none, jnp.ones(none.shape, bool)
        _, slots, open_ = lax.while_loop(lambda now: (now[0] < self.most) & jnp.any(now[2]), again, begun)
        return lax.while_loop(lambda now: jnp.any(now[1]), rest, (slots, open_))[0]

    def refuse(self, slots):
        if bool(jnp.any(slots < 0)):
            raise ValueError(
                f"Rejection: log_bound is {float(self.log_bound):.4g}, but a step's choices had a larger log density. Give "
                "the largest that they can have."
            )


SLACK = 1e-4  # above a bound, in logs: rounding


@partial(jax.jit, static_argnames="num")
def _gone(smoother: Goes, key, path: ProgramPath, kept: Kept, num: int):
    """The choices of `num` paths (num, step, ...), and the slots that they went through (step, num) before the last one."""
    opened, span = path.opened, memory(path.opened)
    key_last, key_back = jax.random.split(key)
    last = independent(key_last, kept.log_weights[-1], num)
    later = jax.tree.map(lambda x: jnp.zeros((num, len(x), *x.shape[2:]), x.dtype).at[:, -1].set(x[-1, last]), kept.choices)

    def back(now, row):
        slots, later = now
        t, key, carry, ancestors, (choices, _, log_weights) = row
        slots = smoother.slots(key, Going(opened, span, t, carry, log_weights, ancestors[slots], later))
        return (slots, jax.tree.map(lambda xs, x: xs.at[:, t].set(x[slots]), later, choices)), slots

    steps = opened.length - 1
    carries = jax.tree.map(lambda x: x[:-1], (_carries(opened, kept), kept))
    keys = jax.random.split(key_back, steps)
    rows = (jnp.arange(steps), keys, carries[0], kept.ancestors[1:], carries[1])
    (_, later), slots = lax.scan(back, (last, later), rows, reverse=True)
    return later, slots


def _carries(opened: ppl.Stepwise, kept: Kept):
    """What each particle carried after each step, leaves (step, N, ...): the loop taken again, with the choices given."""
    begun = opened.begin(jax.random.key(0))
    take = jax.vmap(lambda t, carry, choices: opened.step(None, t, {}, carry, choices).carry, (None, 0, 0))
    size = kept.ancestors.shape[1]
    first = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *jnp.shape(x))), begun.carry)
    first = take(0, first, jax.tree.map(lambda x: x[0], kept.choices))

    def on(carry, row):
        t, (choices, ancestors, _) = row
        new = like(take(t, jax.tree.map(lambda x: x[ancestors], carry), choices), carry)
        return new, new

    rows = (jnp.arange(1, opened.length), jax.tree.map(lambda x: x[1:], kept))
    return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, lax.scan(on, first, rows)[1])
