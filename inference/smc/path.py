"""Path: a way from a law that can be sampled to the posterior, through targets that differ little from one to the next.

    level -> target

A *bridge* joins laws over the same sites: its particles stay where they are while their weights change
(`tempering_path.py`, `data_order.py`, `threshold.py`). A *growing* path adds sites: its particles are extended
(`program_path.py`, a program's loop).
(Del Moral, Doucet and Jasra, JRSS B 68, 2006; Chopin, Biometrika 89, 2002.)
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from ppl._keys import Shared

from ..population import Population

PARTICLES = "particles"  # the axis over all particles


class Path(eqx.Module):
    """The contract of all paths.

    - `level_name`: what a level is called in statistics and sentences.
    - `length`: the number of stages, where it is known before the run; else None.
    """

    level_name: ClassVar[str] = "level"

    @property
    def length(self) -> int | None:
        return None

    def check_islands(self, islands: int) -> None:
        """Raise ValueError, with a sentence, where so many populations would not go the path independently."""
        return None

    @abc.abstractmethod
    def start(self, key, num: int) -> Population:
        """`num` particles, properly weighted for the first level."""

    @abc.abstractmethod
    def ended(self, level) -> jax.Array:
        """Whether `level` is the last one."""

    @abc.abstractmethod
    def choices(self, particle) -> dict[str, Any]:
        """What a posterior keeps of one particle, a nested dict by site."""

    @abc.abstractmethod
    def told(self, level) -> str:
        """Where a level is, in words, for sentences."""


class Bridge(Path):
    """A path over one space. A particle is a point with those parts of its densities that all levels are made of."""

    target: eqx.AbstractVar[Any]

    def drawn(self, key, num: int, reference: ppl.Program | ppl.Generative | None = None) -> Any:
        """The particles (num, ...) at independent draws from the prior, or from a reference over the same sites."""
        shared = Shared(key, PARTICLES, num)

        def position():
            if reference is None:
                return self.target.draw(shared)
            if isinstance(reference, ppl.Program):
                return self.target.unconstrain(reference.simulate(shared).choices)
            return self.target.unconstrain(reference.simulate(shared.own()).choices)

        return jax.vmap(lambda _: self.at(position()), axis_name=PARTICLES)(jnp.arange(num))

    @abc.abstractmethod
    def at(self, position) -> Any:
        """The particle at a flat position (dim,), with its densities evaluated."""

    @abc.abstractmethod
    def log_density(self, particle, level) -> jax.Array:
        """+log density of the target at `level`, from what the particle holds."""

    def log_ratio(self, particles, old, new) -> jax.Array:
        """(N,): log density at level `new`, less that at level `old`."""
        return jax.vmap(lambda p: self.log_density(p, new) - self.log_density(p, old))(particles)

    @abc.abstractmethod
    def furthest(self, population: Population, fits: Callable[[Any], Callable[[Any], jax.Array]]) -> jax.Array:
        """The furthest level that still fits; one beyond the present level in any case.

        - `fits(alive)(log_ratio)`: whether log ratios (N,) fit; `alive` (N,) says which are not -inf. In two calls, for on
          many paths the first is the same for all levels.
        """

    @abc.abstractmethod
    def at_level(self, level) -> Any:
        """The target of a level, as kernels move on it."""

    @abc.abstractmethod
    def check_levels(self, levels) -> None:
        """Raise ValueError, with a sentence, for levels (num,) that are not on the path, or don't lead to its end."""

    def choices(self, particle):
        return self.target.record(particle.position)


class Growing(Path):
    """A path whose every stage adds sites."""

    @abc.abstractmethod
    def extend(self, key, population: Population) -> tuple[Population, jax.Array]:
        """The population, grown by one stage, and the log ratios (N,) by which it is to be reweighted."""


class Level(eqx.Module):
    """The target of a bridge at a level, for kernels that need its log density alone."""

    path: Bridge
    level: Any

    @property
    def dim(self) -> int:
        return self.path.target.dim

    @property
    def slots(self):
        """Those of the target, with no lanes told apart."""
        return tuple(slot._replace(apart=0) for slot in self.path.target.slots)

    @property
    def is_discrete(self):
        return self.path.target.is_discrete

    def refuse_discrete(self, who: str, slots=None) -> None:
        self.path.target.refuse_discrete(who, slots)

    def refuse_continuous(self, who: str, slots=None) -> None:
        self.path.target.refuse_continuous(who, slots)

    def log_density(self, position):
        """+log density at `position` (dim,), up to a constant; a scalar."""
        return self.path.log_density(self.path.at(position), self.level)

    def log_density_apart(self, address: str, position):
        """The log density in one lane; see `Target.log_density_apart`."""
        return self.log_density(position)[None]
