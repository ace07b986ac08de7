"""Conditional sequential Monte Carlo: a filter where one particle follows a given path, and a new path is drawn of it.

```python
path = particle_filter().way.of(program | data)
renewed = conditional_smc(key, path, particle_filter(), choices, particles=50)     # choices: of all latent sites
renewed.choices, renewed.log_evidence
```
Law: if `choices` have the posterior law, then so have `renewed.choices`, with two particles or more; and the evidence has the
law that a filter's has where it made this path (Andrieu, Doucet and Holenstein, JRSSB 72, 2010, theorem 5).

The given path lies in slot 0. Resamplers know how to draw all other ancestors given the one of slot 0; the given particle is
weighed like one that proposed its choices. How the new path is drawn is a policy:

- `Traced()`: a last particle and its ancestors. Long ago they are mostly those of the given path.
- `AncestorSampling()`: besides, the given path gets a new ancestor at every step, by how well the rest of it would follow
  (Lindsten, Jordan and Schon, JMLR 15, 2014).
- `BackwardSampling()`: from the last step to the first, each particle is chosen by how well the later ones follow it
  (Whiteley, discussion of Andrieu et al.; Lindsten and Schon, Found. Trends Mach. Learn. 6, 2013).

How well later choices follow is weighed as far ahead as the loop remembers; see `memory.py`.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ppl.choices import merge

from ..population import Population, is_weight
from ..resampling import Resampled, Resampler
from .extend import Extend
from .loop import Method, State, begin, next_stage
from .memory import log_ahead, memory
from .path import Growing
from .program_path import ProgramPath, Walker
from .resample import Resample
from .step import Sequence, Step, Stepped


class Visited(NamedTuple):
    """What is kept of every stage, leading with (stage, N): particles, ancestors, and log weights without twist."""

    walkers: Walker
    ancestors: jax.Array
    log_weights: jax.Array


def visited(population: Population) -> Visited:
    """Of one stage."""
    walkers = population.particles
    return Visited(walkers, population.ancestors, population.log_weights - walkers.log_twist)


class Renewed(NamedTuple):
    """A path, as choices by site, and the estimate of the evidence by the particles that it was drawn from."""

    choices: dict[str, Any]
    log_evidence: jax.Array


def conditional_smc(key, path: ProgramPath, method: Method, choices, *, particles: int, renewal: "Renewal | None" = None):
    """One conditional run, and a new path: `Renewed`. Pure, and traceable.

    - `path`: `method.way.of(program)`.
    - `choices`: a nested dict of all its latent sites, those of the loop leading with (step,).
    - `method`: a particle filter. `particles`: at least 2, the given one counted.
    - `renewal`: how the new path is drawn; by default `AncestorSampling()`.

    Raises:
        ValueError: for a method with a step that has no conditional form, or fewer than two particles.
    """
    if particles < 2:
        raise ValueError(f"conditional_smc: particles must be at least 2, the given one counted, got {particles}.")
    renewal = AncestorSampling() if renewal is None else renewal
    key_walk, key_draw = jax.random.split(key)
    pinned = Pinned(path, choices, renewal.span(path))
    last, rows = walk(conditional(method.stage, renewal), pinned, key_walk, particles, visited)
    return Renewed(renewal.draw(key_draw, pinned, rows), last.population.log_evidence)


def filtered_path(key, path: ProgramPath, method: Method, *, particles: int, keys=None) -> Renewed:
    """A run with no particle given, and a path of it: a last particle and its ancestors. `keys` (step,): of the run."""
    key_walk, key_draw = jax.random.split(key)
    last, rows = walk(method.stage, path, key_walk if keys is None else keys, particles, visited)
    return Renewed(traced(key_draw, rows), last.population.log_evidence)


def walk(stage: Step, path, key, num: int, keep: Callable) -> tuple[State, Any]:
    """All stages of a path of known length, and what `keep(population)` says of each, leading with (stage,). `key`: one, or
    one for each stage."""

    def one(state, key):
        state = next_stage(stage, path, key, state)[0]
        return state, keep(state.population)

    keys = jnp.broadcast_to(key, (path.length,))
    first = begin(stage, path, keys[0], num)
    last, rows = lax.scan(one, first, keys[1:])
    return last, jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), keep(first.population), rows)


# -- a path and a stage with slot 0 pinned ----------------------------------------------------------------------------------


class Pinned(Growing):
    """A program's loop, where the particle in slot 0 makes the `reference` choices. `span`: see `log_ahead`."""

    path: ProgramPath
    reference: dict[str, Any]
    span: int = eqx.field(static=True)

    level_name: ClassVar[str] = "steps_taken"

    @property
    def length(self) -> int:
        return self.path.length

    def ended(self, level):
        return self.path.ended(level)

    def told(self, level) -> str:
        return self.path.told(level)

    def choices(self, particle):
        return self.path.choices(particle)

    def start(self, key, num: int) -> Population:
        opened = self.path.opened
        begun = opened.begin(key, {name: x for name, x in self.reference.items() if name in opened.before})
        walker = Walker(begun.before, begun.carry, {}, jnp.zeros_like(begun.log_likelihood))
        walker, log_weight = self.path.step(key, jnp.int32(0), walker, self.chosen(0))
        free = self.path.start(key, num)
        log_weight = begun.log_likelihood + log_weight
        log_weight = jnp.where(is_weight(log_weight), log_weight, -jnp.inf)
        return in_front(free, walker)._replace(log_weights=free.log_weights.at[0].set(log_weight))

    def extend(self, key, population: Population) -> tuple[Population, jax.Array]:
        given = jax.tree.map(lambda x: x[0], population.particles)
        walker, log_ratio = self.path.step(key, population.level, given, self.chosen(population.level))
        free, log_ratios = self.path.extend(key, population)
        return in_front(free, walker), log_ratios.at[0].set(log_ratio)

    def chosen(self, t) -> dict[str, Any]:
        """The reference's choices at step `t`."""
        return jax.tree.map(lambda x: x[t], self.along)

    @property
    def along(self) -> dict[str, Any]:
        """The reference's choices in the loop, leaves (step, ...)."""
        return {name: x for name, x in self.reference.items() if name in self.path.opened.latent}

    def log_ahead(self, t, walkers: Walker, choices) -> jax.Array:
        """(N,): how well choices (leaves (step, ...)) of step `t` and on follow each particle, up to what is alike for all."""
        ahead = jax.vmap(log_ahead, (None, None, None, 0, 0, None))
        return ahead(self.path.opened, self.span, t, walkers.before, walkers.carry, choices)


def in_front(population: Population, walker: Any) -> Population:
    """The population with this particle in slot 0."""
    return population._replace(particles=jax.tree.map(lambda xs, x: xs.at[0].set(x), population.particles, walker))


def conditional(step: Step, renewal: "Renewal") -> Step:
    """A step in its conditional form, for a `Pinned` path.

    Raises:
        ValueError: for a step that has none.
    """
    if isinstance(step, Sequence):
        return Sequence(tuple(conditional(one, renewal) for one in step.steps))
    if isinstance(step, Resample):
        return ResamplePinned(step.resampler, renewal)
    if isinstance(step, Extend):
        return step  # the path extends slot 0 as it must
    raise ValueError(f"conditional_smc: {type(step).__name__} has no conditional form; give a particle_filter(...).")


class ResamplePinned(Step):
    """Resample, given that slot 0 has the ancestor that the policy says."""

    resampler: Resampler
    renewal: "Renewal"

    def __call__(self, key, population: Population, memory, path: Pinned) -> Stepped:
        key_ancestor, key_rest = jax.random.split(key)
        pin = self.renewal.ancestor(key_ancestor, path, population)
        return Stepped(population.resampled(key_rest, With(self.resampler, pin)))


class With(Resampler):
    """A resampler with its pin."""

    resampler: Resampler
    pin: Any

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        return self.resampler.pinned(key, particles, log_weights, num, pin=self.pin)

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin=0) -> Resampled:
        return self.resampler.pinned(key, particles, log_weights, num, pin=pin)


# -- how a new path is drawn ------------------------------------------------------------------------------------------------


class Renewal(eqx.Module):
    """The contract: what ancestor the given path has, and how a new path is drawn of all that was visited."""

    def span(self, path: ProgramPath) -> int:
        """How many steps ahead are looked at."""
        return memory(path.opened)

    def ancestor(self, key, path: Pinned, population: Population) -> Any:
        """The slot whose particle the given path goes on from."""
        return 0

    @abc.abstractmethod
    def draw(self, key, path: Pinned, rows: Visited) -> dict[str, Any]:
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
    heaps = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    below = jnp.nextafter(heaps[-1], jnp.zeros_like(heaps[-1]))
    point = jnp.minimum(jax.random.uniform(key, (), heaps.dtype) * heaps[-1], below)
    return jnp.minimum(jnp.sum(heaps <= point, dtype=jnp.int32), len(heaps) - 1)


def ancestry(ancestors, slot) -> jax.Array:
    """(stage,): the slots of a last particle, and of its ancestors at every stage. `ancestors` (stage, N)."""
    return lax.scan(lambda slot, up: (up[slot], slot), slot, ancestors, reverse=True)[1]


def along(walkers: Walker, slots) -> dict[str, Any]:
    """The choices of the particles in `slots` (stage,), as those of one path."""
    stages = jnp.arange(len(slots))
    before = jax.tree.map(lambda x: x[0, slots[0]], walkers.before)
    return merge(before, jax.tree.map(lambda x: x[stages, slots], walkers.choices))
