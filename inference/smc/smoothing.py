"""Smoothing: paths drawn from their law given all data, after a particle filter has run.

```python
posterior = inf.smc(walk(100, 1.0, 2.0) | {"y": y}, inf.particle_filter(), key=key, particles=1000)
paths = smooth(posterior.run, Backward(), key=key, num=200)
paths["z"]                                       # (200, 100)
```
The filter's own paths, by ancestors, agree long ago. Here each path goes back from the last step to the first, and at every
step chooses among all particles, by their weights and by how well the later choices follow (Godsill, Doucet and West, JASA 99,
2004):

- `Backward()`: looks at all N particles; exact, and O(N) for a step of a path.
- `Rejection(log_bound)`: proposes particles by their weights, and accepts one by its transition density over a bound of it;
  the same law, at a cost that does not grow with N where the bound is near (Douc, Garivier, Moulines and Olsson, Ann. Appl.
  Probab. 21, 2011). Where many proposals fail it looks at all particles after all.
- `BackwardMCMC(num)`: starts from the ancestor and makes `num` Metropolis steps; needs no bound, and one step does much (Bunch
  and Godsill, IEEE Trans. Signal Process. 61, 2013; Dau and Chopin, arXiv:2207.00976).
- `FixedLag(lag)`: ancestors of the particles `lag` steps later. It forgets what the data after that say, and is no path: only
  choices at one time, or nearby, hang together (Kitagawa and Sato, 2001).

Loops that remember more than one step are weighed as far ahead as they do; see `memory.py`.
"""

import abc
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ppl

from ..resampling.multinomial import independent
from .conditional import drawn
from .history import Kept
from .memory import data_see_the_carry, like, log_ahead, memory
from .program_path import ProgramPath
from .result import Run

PAIRS = 1 << 21  # densities of a step that are in memory together


def smooth(run: Run, method: "Smoother", *, key, num: int = 100) -> dict[str, Any]:
    """Draw `num` paths from the smoothing law, as a finished filter knows it: choices of the loop by site, (num, step, ...).

    - `run`: `posterior.run` of `inf.smc(program, inf.particle_filter(), ...)` with its whole history, `Paths()`.
    - `method`: `Backward()`, `Rejection(log_bound)`, `BackwardMCMC(num)` or `FixedLag(lag)`.

    Raises:
        ValueError: for a run without its history, of something else than a program's loop, or with sites before the loop (of
            these every particle has its own, so that no later choices follow from another one's: draws of the posterior
            itself, or `ParticleGibbs`, are what there is).

    Example:
        `smooth(posterior.run, BackwardMCMC(1), key=jax.random.key(1), num=500)`
    """
    if not isinstance(run.path, ProgramPath):
        raise ValueError("smooth: this run did not follow a program's ppl.scan; smoothing is for particle filters.")
    if not isinstance(run.rows[0].kept[0], Kept):
        raise ValueError("smooth: this run did not keep its earlier stages; run it with history=Paths().")
    if run.path.opened.before:
        raise ValueError(
            f"smooth: site '{run.path.opened.before[0]}' is drawn before the loop, and differs from particle to particle, so "
            "paths cannot go over from one to another. Condition on it, or use ParticleGibbs() in mcmc."
        )
    key_island, key_draw = jax.random.split(key)
    evidence = jnp.stack([state.population.log_evidence for state in run.states])
    chosen = np.bincount(np.asarray(jax.random.categorical(key_island, evidence, shape=(num,))), minlength=len(run.rows))
    most = num if len(run.rows) == 1 else 1 << int(chosen.max() - 1).bit_length()  # so that few programs are compiled
    parts = []
    for island, (row, own) in enumerate(zip(run.rows, chosen, strict=True)):
        if own:
            drawn = method.draw(jax.random.fold_in(key_draw, island), run.path, jax.tree.map(jnp.asarray, row.kept[0]), most)
            parts.append(jax.tree.map(lambda x, own=own: np.asarray(x)[:own], drawn))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


class Smoother(eqx.Module):
    """The contract: how `num` paths are drawn of what a filter kept."""

    @abc.abstractmethod
    def draw(self, key, path: ProgramPath, kept: Kept, num: int) -> dict[str, Any]:
        """Choices by site (num, step, ...)."""


class FixedLag(Smoother):
    """See the file's docstring. `lag`: how many later steps count.

    Raises:
        ValueError: for a negative lag.
    """

    lag: int = eqx.field(static=True)

    def __check_init__(self):
        if self.lag < 0:
            raise ValueError(f"FixedLag: lag must be at least 0, got {self.lag}.")

    def draw(self, key, path, kept, num):
        return _lagged(key, kept, num, self.lag)


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


# -- inside -----------------------------------------------------------------------------------------------------------------


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


@partial(jax.jit, static_argnames=("num", "lag"))
def _lagged(key, kept: Kept, num: int, lag: int):
    steps = jnp.arange(len(kept.ancestors))
    seen = jnp.minimum(steps + lag, len(steps) - 1)  # the last step whose data count
    keys = jax.random.split(key, len(steps))
    slots = jax.vmap(lambda key, s: independent(key, kept.log_weights[s], num))(keys, seen)

    def up(i, slots):
        s = seen - i
        return jnp.where((s > steps)[:, None], jnp.take_along_axis(kept.ancestors[s], slots, axis=1), slots)

    slots = lax.fori_loop(0, lag, up, slots)
    return jax.tree.map(lambda x: jnp.swapaxes(x[steps[:, None], slots], 0, 1), kept.choices)
