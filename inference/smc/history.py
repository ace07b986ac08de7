"""What a run keeps of its populations, and so what its posterior is made of.

- `Last()`: the last population alone. Of a program's loop, the choices of the last step.
- `Paths()`: what every particle chose at every stage, and its ancestor: whole paths, by following ancestors back. The default
  of programs with a loop. It takes (stages x particles) numbers for each scalar, and for ancestors and weights.
- `AncestorTree()`: the same without what has died out, for long runs; see `ancestor_tree.py`.
- `Window(num)`: the same of the last stages alone; see `window.py`.

Paths followed back are draws from the smoothing law, but few of them differ long ago: all particles soon descend from one
(Kitagawa, JCGS 5, 1996). See `smoothing.py` for better ones.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ppl.choices import merge

from ..compiled import compiled
from ..population import Population


class History(eqx.Module):
    """The contract: `keep` is called at every stage, in the compiled loop; `draws` once, at the end.

    What is kept is stacked, leading with the stages; or, by one that is `Folding`, folded on the host, block by block.
    """

    def num(self, particles: int) -> int:
        """How many draws the posterior of so many particles has."""
        return particles

    @abc.abstractmethod
    def keep(self, population: Population) -> Any:
        """What to write down of a population: a pytree of arrays."""

    def whole(self, path, population: Population, kept) -> Population:
        """What the posterior is made of: the last population, or more. `kept` leads with the stages, or is what was held."""
        return population

    @abc.abstractmethod
    def draws(self, path, population: Population, kept, slots) -> dict[str, Any]:
        """Choices by site (num, ...) of particles of the whole population, in `slots` (num,); `kept` as for `whole`."""


class Folding(History):
    """The contract of histories that hold less than all stages: on the host, in memory, and so not in a store."""

    @abc.abstractmethod
    def fold(self, held, kept) -> Any:
        """What was held (at first None) with a block of stages more, NumPy arrays that lead with (stage,)."""


class Last(History):
    """Keep nothing but the last population."""

    def keep(self, population):
        return ()

    def draws(self, path, population, kept, slots):
        slots = np.asarray(slots)
        more = np.resize(slots, 1 << max(len(slots) - 1, 0).bit_length())  # so that islands share a program
        particles = jax.tree.map(lambda x: np.asarray(x)[more], population.particles)
        choices = compiled(_choices, ("smc", "choices"), path, particles)(path, particles)
        return jax.tree.map(lambda x: np.asarray(x)[: len(slots)], choices)


def _choices(path, particles):
    return jax.vmap(path.choices)(particles)


class Kept(NamedTuple):
    """Of every stage, leading with (stage, N): the choices, the ancestors, and the log weights."""

    choices: dict[str, Any]
    ancestors: jax.Array
    log_weights: jax.Array


class Paths(History):
    """Keep everything that particles of a program's loop chose."""

    def keep(self, population):
        walkers = in_a_loop(self, population)
        return Kept(walkers.choices, population.ancestors, population.log_weights - walkers.log_twist)

    def draws(self, path, population, kept: Kept, slots):
        slots = np.asarray(slots)
        before = jax.tree.map(lambda x: np.asarray(x)[slots], population.particles.before)
        followed = followed_back(np.asarray(kept.ancestors), slots)
        along = jax.tree.map(lambda x: taken(np.asarray(x), followed), kept.choices)
        return merge(before, along)


def in_a_loop(history: History, population: Population) -> Any:
    """The particles, where they follow a program's loop; else ValueError."""
    if not hasattr(population.particles, "choices"):
        raise ValueError(
            f"smc: {type(history).__name__} keeps what particles chose at every step of a program's ppl.scan, but by this "
            "method they are whole at every stage. Leave out history."
        )
    return population.particles


def followed_back(ancestors, slots) -> np.ndarray:
    """(num, stages): the slots of the particles in `slots` and of their ancestors at every stage. `ancestors` (stages, N)."""
    stages = len(ancestors)
    out = np.empty((stages, len(slots)), np.int32)
    for s in range(stages - 1, -1, -1):
        out[s] = slots
        slots = ancestors[s][slots]
    return out.T


def taken(x, followed):
    """From x (stages, N, ...), along paths (num, stages): (num, stages, ...)."""
    return x[np.arange(len(x)), followed]


def weighted_quantiles(x, log_weights, probabilities) -> np.ndarray:
    """Quantiles (len(probabilities), ...) of x (N, ...) with weights."""
    order = np.argsort(x, axis=0)
    weights = np.exp(log_weights - np.max(log_weights))
    cumulated = np.cumsum(weights[order], axis=0) / weights.sum()
    place = np.stack([np.sum(cumulated < p, axis=0) for p in probabilities])
    return np.take_along_axis(x, np.take_along_axis(order, np.minimum(place, len(x) - 1), axis=0), axis=0)
