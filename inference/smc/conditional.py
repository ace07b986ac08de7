"""Conditional sequential Monte Carlo: a filter where one particle follows a given path, and a new path is drawn of it.

```python
path = particle_filter().way.of(program | data)
renewed = conditional_smc(key, path, particle_filter(), choices, particles=50)     # choices: of all latent sites
renewed.choices, renewed.log_evidence
```
Law: if `choices` have the posterior law, then so have `renewed.choices`, with two particles or more; and the evidence has the
law that a filter's has where it made this path (Andrieu, Doucet and Holenstein, JRSSB 72, 2010, theorem 5).

The given path lies in slot 0. Resamplers know how to draw all other ancestors given the one of slot 0; the given particle is
weighed like one that proposed its choices. How the new path is drawn is a policy; see `renewal.py`.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..population import Population, is_weight
from ..resampling import Resampled, Resampler
from .extend import Extend
from .loop import Method, State, begin, next_stage
from .memory import log_ahead
from .path import Growing
from .program_path import ProgramPath, Walker
from .renewal import AncestorSampling, Renewal, traced, visited
from .resample import Resample
from .step import Sequence, Step, Stepped


class Renewed(NamedTuple):
    """A path, as choices by site, and the estimate of the evidence by the particles that it was drawn from."""

    choices: dict[str, Any]
    log_evidence: jax.Array


def conditional_smc(key, path: ProgramPath, method: Method, choices, *, particles: int, renewal: Renewal | None = None):
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


def conditional(step: Step, renewal: Renewal) -> Step:
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
    renewal: Renewal

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
