"""Renewal: how conditional sequential Monte Carlo draws a new path of all that its particles have visited.

- `Traced()`: a last particle and its ancestors. Long ago they are mostly those of the given path.
- `AncestorSampling()`: besides, the given path gets a new ancestor at every step, by how well the rest of it would follow
  (Lindsten, Jordan and Schon, JMLR 15, 2014).
- `BackwardSampling()`: from the last step to the first, each particle is chosen by how well the later ones follow it
  (Whiteley, discussion of Andrieu et al.; Lindsten and Schon, Found. Trends Mach. Learn. 6, 2013).

How well later choices follow is weighed as far ahead as the loop remembers; see `memory.py`.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ppl.choices import merge

from ..population import Population
from .memory import memory
from .program_path import ProgramPath, Walker


class Visited(NamedTuple):
    """What is kept of every stage, leading with (stage, N): particles, ancestors, and log weights without twist."""

    walkers: Walker
    ancestors: jax.Array
    log_weights: jax.Array


def visited(population: Population) -> Visited:
    """Of one stage."""
    walkers = population.particles
    return Visited(walkers, population.ancestors, population.log_weights - walkers.log_twist)


class Renewal(eqx.Module):
    """The contract: what ancestor the given path has, and how a new path is drawn of all that was visited."""

    def span(self, path: ProgramPath) -> int:
        """How many steps ahead are looked at."""
        return memory(path.opened)

    def ancestor(self, key, path, population: Population) -> Any:
        """The slot whose particle the given path goes on from."""
        return 0

    @abc.abstractmethod
    def draw(self, key, path, rows: Visited) -> dict[str, Any]:
        """The choices of a new path."""


class Traced(Renewal):
    """A last particle, drawn by its weight, and its ancestors: `Traced()`."""

    def span(self, path):
        return 0

    def draw(self, key, path, rows):
        return traced(key, rows)


class AncestorSampling(Traced):
    """`Traced()`, with a new ancestor for the given path at every step: `AncestorSampling()`."""

    def span(self, path):
        return memory(path.opened)

    def ancestor(self, key, path, population):
        walkers = population.particles
        follows = path.log_ahead(population.level, walkers, path.along)
        return drawn(key, population.log_weights - walkers.log_twist + follows)


class BackwardSampling(Renewal):
    """From the last step to the first: `BackwardSampling()`."""

    def draw(self, key, path, rows):
        num, keys = len(rows.ancestors), jax.random.split(key, len(rows.ancestors))

        def choose(new, now):
            t, key, row = now
            slot = drawn(key, row.log_weights + path.log_ahead(t + 1, row.walkers, new))
            return jax.tree.map(lambda xs, x: xs.at[t].set(x[slot]), new, row.walkers.choices), slot

        last = drawn(keys[-1], rows.log_weights[-1])
        new = jax.tree.map(lambda x: jnp.zeros_like(x[:, 0]).at[-1].set(x[-1, last]), rows.walkers.choices)
        early = jax.tree.map(lambda x: x[:-1], (jnp.arange(num), keys, rows))
        _, slots = lax.scan(choose, new, early, reverse=True)
        return along(rows.walkers, jnp.append(slots, last))


def traced(key, rows: Visited) -> dict[str, Any]:
    """The choices of a last particle, drawn by its weight, and of its ancestors."""
    last = drawn(key, rows.log_weights[-1])
    return along(rows.walkers, ancestry(rows.ancestors, last))


def drawn(key, log_weights) -> jax.Array:
    """A slot, drawn by the weights (N,): with one random number, for N of them take longer than all else."""
    return owner(log_weights, jax.random.uniform(key, (), log_weights.dtype))


def owner(log_weights, point) -> jax.Array:
    """The slot that owns a point of [0, 1], on which the particles lie side by side, as wide as their weights (N,)."""
    log_weights = lax.stop_gradient(log_weights)  # a slot has no gradient
    heaps = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    below = jnp.nextafter(heaps[-1], jnp.zeros_like(heaps[-1]))  # what weighs nothing may come last, and owns nothing
    return jnp.minimum(jnp.sum(heaps <= jnp.minimum(point * heaps[-1], below), dtype=jnp.int32), len(heaps) - 1)


def ancestry(ancestors, slot) -> jax.Array:
    """(stage,): the slots of a last particle, and of its ancestors at every stage. `ancestors` (stage, N)."""
    return lax.scan(lambda slot, up: (up[slot], slot), slot, ancestors, reverse=True)[1]


def along(walkers: Walker, slots) -> dict[str, Any]:
    """The choices of the particles in `slots` (stage,), as those of one path."""
    stages = jnp.arange(len(slots))
    before = jax.tree.map(lambda x: x[0, slots[0]], walkers.before)
    return merge(before, jax.tree.map(lambda x: x[stages, slots], walkers.choices))
