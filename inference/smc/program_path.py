"""A program's loop as a path: each stage takes the `ppl.scan` one step further and weighs the data of that step.

```python
path = ByStep().of(walk(100, 1.0, 2.0) | {"y": y})
path = ByStep(proposal=guide).of(...)     # guide(carry, x, data): a program that proposes the choices of a step
path = ByStep(twist=look_ahead).of(...)   # look_ahead(carry, x, data): log of how well the next step's data will fit
```

Without a proposal choices are drawn from the program (Gordon, Salmond and Smith, 1993); with one, weights are

    program density of choices and data / proposal density of the choices

(Doucet, Godsill and Andrieu, 2000). A twist psi weighs particles by what is to come, and is taken back a step later: the
target of stage t is gamma_t x psi_t, and at the end psi is one (Pitt and Shephard, JASA 94, 1999; Whiteley and Lee, Ann.
Statist. 42, 2014). Any positive psi is right; a good one makes weights even. It may be random: the very number that a particle
was weighted by is carried along, and taken back (`Twist`).
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from ppl._keys import Shared, fold, fold_name
from ppl.choices import flatten, merge, nest
from ppl.importance import leaves_out

from ..population import Population
from .path import PARTICLES, Growing


class Twist(eqx.Module):
    """The contract of twists that need more than a function of the carry has to go by; settings must be hashable."""

    @abc.abstractmethod
    def __call__(self, key, path: "ProgramPath", t, walker: "Walker") -> jax.Array:
        """The log weight, a scalar, of a particle that is about to take step number `t`; `key` is for this alone."""


class ByStep(eqx.Module):
    """How the steps of a program's loop are proposed and foreseen; see the file's docstring.

    - `proposal`: `proposal(carry, x, data)` returns a program over latent sites of the step; those that it leaves out are
      drawn from the model. `x` is the step's slice of the scan's `xs`, `data` a dict of the step's data.
    - `twist`: `twist(carry, x, data)` returns a scalar log weight; `x` and `data` are those of the next step. Or a `Twist`.
    """

    proposal: Callable | None = eqx.field(static=True, default=None)
    twist: Callable | Twist | None = eqx.field(static=True, default=None)

    def of(self, program) -> "ProgramPath":
        """The path of a conditioned program with one `ppl.scan`.

        Raises:
            ValueError: for something else than a program, or a program that cannot be taken step by step.
        """
        if not isinstance(program, ppl.Program):
            raise ValueError(f"smc: a particle filter needs a program with a ppl.scan, got {type(program).__name__}.")
        path = ProgramPath(ppl.Stepwise(program), self.proposal, self.twist)
        if self.proposal is not None:
            _check_proposal(path, self.proposal)
        return path


class Walker(NamedTuple):
    """A particle: the choices made `before` the loop, what the loop carries, the choices of the last step, and the twist."""

    before: dict[str, Any]
    carry: Any
    choices: dict[str, Any]
    log_twist: jax.Array


class ProgramPath(Growing):
    """See the file's docstring. A level is the number of steps taken."""

    opened: ppl.Stepwise
    proposal: Callable | None = eqx.field(static=True)
    twist: Callable | Twist | None = eqx.field(static=True)

    level_name: ClassVar[str] = "steps_taken"

    @property
    def length(self) -> int:
        return self.opened.length

    def start(self, key, num: int) -> Population:
        """Particles that have taken the first step."""
        key_begin, key_step = jax.random.split(key)
        shared = Shared(key_begin, PARTICLES, num)
        begun = jax.vmap(lambda _: self.opened.begin(shared), axis_name=PARTICLES)(jnp.arange(num))
        zero = jnp.zeros_like(begun.log_likelihood)
        walkers, log_weights = self._together(key_step, jnp.int32(0), Walker(begun.before, begun.carry, {}, zero))
        return Population.of(walkers, zero, level=jnp.int32(1)).reweighted(begun.log_likelihood + log_weights)

    def ended(self, level):
        return level >= self.opened.length

    def told(self, level) -> str:
        return f"step {int(level) - 1} of {self.opened.length}"

    def extend(self, key, population: Population) -> tuple[Population, jax.Array]:
        walkers, log_weights = self._together(key, population.level, population.particles)
        return population._replace(particles=walkers, level=population.level + 1), log_weights

    def _together(self, key, t, walkers: Walker):
        """Step number `t` of all particles, and their log weights (N,)."""
        shared = Shared(key, PARTICLES, len(walkers.log_twist))
        return jax.vmap(lambda walker: self.step(shared, t, walker), axis_name=PARTICLES)(walkers)

    def step(self, key, t, walker: Walker, given=None) -> tuple[Walker, jax.Array]:
        """One particle's step number `t`, and its log weight. `given`: all choices of the step, to make as if proposed."""
        choices, log_q, drawn = self.proposed(key, t, walker, given)
        new = self.opened.step(key, t, walker.before, walker.carry, choices, drawn)
        moved = Walker(walker.before, new.carry, new.choices, jnp.zeros_like(walker.log_twist))
        log_twist = self.foreseen(key, t + 1, moved)
        return moved._replace(log_twist=log_twist), new.log_weight - log_q + (log_twist - walker.log_twist)

    def proposed(self, key, t, walker: Walker, given=None):
        """Choices proposed for a step, the log density that they are proposed with, and which others the program draws."""
        if self.proposal is None:
            return ({}, 0.0, ()) if given is None else (given, 0.0, tuple(flatten(given)))
        guide = self.proposal(walker.carry, *self.opened.seen(t, walker.before))
        if given is None:
            trace = guide.simulate(fold(key, t))
            return trace.choices, trace.log_density, ()
        own = {address: x for address, x in flatten(given).items() if address in guide.sites()}
        return given, guide.log_density(nest(own)), tuple(flatten(given).keys() - own.keys())

    def foreseen(self, key, t, walker: Walker):
        """The log twist of a particle that is about to take step `t`; zero when there is none."""
        if self.twist is None:
            return jnp.zeros(())
        there = jnp.minimum(t, self.opened.length - 1)
        if isinstance(self.twist, Twist):
            log_twist = self.twist(fold_name(fold(key, t), "twist"), self, there, walker)
        else:
            log_twist = self.twist(walker.carry, *self.opened.seen(there, walker.before))
        return jnp.where(t < self.opened.length, log_twist, 0.0)

    def choices(self, particle: Walker):
        return merge(particle.before, particle.choices)


def _check_proposal(path: ProgramPath, proposal: Callable) -> None:
    """Refuse a proposal of sites that the loop does not have, or that cannot reach all that a site can be."""
    tables: list[dict[str, Any]] = []

    def look():
        begun = path.opened.begin(jax.random.key(0))
        guide = proposal(begun.carry, *path.opened.seen(0, begun.before))
        tables.append(guide.sites())
        return jnp.zeros(())

    jax.eval_shape(look)
    sites = path.opened.program.sites()
    for address, row in tables[-1].items():
        own = sites.get(address)
        if own is None or own.kind != "latent" or not own.plates:
            there = [name for name, row in sites.items() if row.kind == "latent" and row.plates]
            raise ValueError(
                f"smc: the proposal has a site '{address}', but the loop's latent sites are {', '.join(there)}. It may "
                "propose some or all of these, and nothing else."
            )
        if row.support_name not in (own.support_name, "real", "real vector") or leaves_out(own, row):
            raise ValueError(
                f"smc: the proposal of site '{address}' is {row.support_name}, but the site is {own.support_name}: it never "
                "proposes the rest, so the answer would be wrong. Take one that reaches everywhere the site can be."
            )
