"""Inner filters: particles are parameters, each with a whole particle filter of the program's loop given these.

```python
path = InnerFilters(particle_filter(), sizes=(128, 256, 512)).of(program | data)
```
The parameters are the sites before the program's `ppl.scan`. A stage takes every filter one step further, and weighs its
parameters by what the filter's evidence grew by. That is an unbiased estimate of p(next data | data so far, parameters), and
the filter is part of the particle, so the weights are exact for a law that has the parameters' posterior as its marginal,
however few walkers a filter has (Chopin, Jacob and Papaspiliopoulos, JRSSB 75, 2013; Andrieu, Doucet and Holenstein, 2010).

All filters have the same number of walkers, one of `sizes`; arrays have room for the largest.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.choices import merge

from ..numerics import finite_or
from ..population import Population
from ..resampling import logmeanexp
from .conditional import Pinned, conditional
from .history import History, Paths
from .loop import Method
from .path import Growing
from .program_path import ByStep
from .renewal import Traced, ancestry, owner
from .room import Filter, Learner, fitted, resized, split, written


class InnerFilters(eqx.Module):
    """Which way to go: parameters with filters.

    - `method`: of the filters, a `particle_filter(...)`.
    - `sizes`: numbers of walkers, increasing: the filters begin with the first; see `Exchange`.
    - `history`: what filters keep: `Paths()`, all that their walkers chose, for whole paths in the posterior and for exchange
      `ByPath()`; or `Last()`, the last step alone.

    Raises:
        ValueError: for sizes that are not whole numbers of at least 2, or do not increase.
    """

    method: Method
    sizes: tuple[int, ...] = eqx.field(static=True)
    history: History = Paths()

    def __check_init__(self):
        sizes = self.sizes if isinstance(self.sizes, tuple) else ()
        whole = all(isinstance(num, int) and not isinstance(num, bool) and num >= 2 for num in sizes)
        if not sizes or not whole or list(sizes) != sorted(set(sizes)):
            raise ValueError(
                "smc2: inner must be whole numbers of at least 2 that increase, such as (128, 256, 512), got "
                f"{self.sizes!r}. Filters have the first number of walkers, and the next where it is too few."
            )

    def of(self, program) -> "InnerPath":
        """The path of a conditioned program with sites before one `ppl.scan`.

        Raises:
            ValueError: for something else than a program, or one without loop, without sites before it or in it, or with
                discrete ones before it.
        """
        if not isinstance(self.method.way, ByStep):
            raise ValueError(
                f"smc2: the method of the filters must be a particle filter, such as particle_filter(), but it goes by "
                f"{type(self.method.way).__name__}."
            )
        opened = self.method.way.of(program).opened
        if not opened.before:
            raise ValueError(
                "smc2: there is no site before the program's ppl.scan, so no parameter to learn. Use particle_filter()."
            )
        if not opened.latent:
            raise ValueError(
                "smc2: there is no latent site in the program's ppl.scan, so nothing to filter. Use ibis() or tempering()."
            )
        parameters = ppl.Target(opened.prelude)
        parameters.refuse_discrete("smc2")
        missing = [slot.address for slot in parameters.slots if slot.missing is not None]
        return InnerPath(self, program.without(*missing) if missing else program, parameters, opened.length)


class InnerPath(Growing):
    """See the file's docstring. A level is the number of steps that filters have taken."""

    way: InnerFilters
    program: ppl.Program
    parameters: ppl.Target
    steps: int = eqx.field(static=True)

    level_name: ClassVar[str] = "steps_taken"

    @property
    def length(self) -> int:
        return self.steps

    @property
    def most(self) -> int:
        return self.way.sizes[-1]

    @property
    def target(self) -> ppl.Target:
        return self.parameters

    def ended(self, level):
        return level >= self.steps

    def told(self, level) -> str:
        return f"step {int(level) - 1} of {self.steps}"

    def start(self, key, num: int) -> Population:
        """Parameters from their prior, with filters that have taken the first step."""
        key_draw, key_filters = jax.random.split(key)
        prior = self.parameters.log_prior_and_likelihood
        positions = jax.vmap(self.parameters.draw)(jax.random.split(key_draw, num))
        learners = self.filtered(key_filters, positions, 0, jnp.int32(1))
        log_prior = jax.vmap(lambda position: prior(position)[0])(positions)
        return Population.of(learners, level=jnp.int32(1)).reweighted(learners.log_density - log_prior)

    def extend(self, key, population: Population) -> tuple[Population, jax.Array]:
        level, old = population.level, population.particles
        key_filters, key_point = jax.random.split(key)

        def further(size):
            filters, row = self._step(key_filters, level, old.position, fitted(old.filter, self.way.sizes[size]))
            return self._log_density(old.position, filters), fitted(filters, self.most), resized(row, self.most)

        log_density, filters, row = self.by_size(old.size, further)
        new = old._replace(
            log_density=log_density,
            filter=filters,
            rows=written(old.rows, row, level),
            point=jax.random.uniform(key_point, old.point.shape, old.point.dtype),
        )
        return population._replace(particles=new, level=level + 1), log_density - old.log_density

    def filtered(self, key, positions, size: int, level, references=None) -> Learner:
        """Particles at `positions` (N, dim) with new filters, of number `size` of the sizes, that have taken `level` steps.

        `references`: choices in the loop, leaves (N, step, ...), that a walker of each filter is to make: the filters are
        those of conditional SMC then.
        """
        key_begin, key_filters, key_point = jax.random.split(key, 3)
        filters, row = self._begin(key_begin, positions, self.way.sizes[size], references)
        rows = jax.tree.map(lambda x: jnp.zeros((x.shape[0], self.steps, *x.shape[1:]), x.dtype), row)
        if rows:  # of steps to come: everyone is its own ancestor
            rows = rows._replace(ancestors=jnp.broadcast_to(row.ancestors[:, None], rows.ancestors.shape))

        def on(t, state):
            filters, rows = state
            filters, row = self._step(jax.random.fold_in(key_filters, t), t, positions, filters, references)
            return filters, written(rows, row, t)

        filters, rows = lax.fori_loop(1, level, on, (filters, written(rows, row, 0)))
        return Learner(
            position=positions,
            log_density=self._log_density(positions, filters),
            filter=fitted(filters, self.most),
            size=jnp.full(len(positions), size, jnp.int32),
            rows=resized(rows, self.most, axis=2),
            point=jax.random.uniform(key_point, positions.shape[:1], positions.dtype),
        )

    def by_size(self, size, do: Callable[[int], Any], num: int | None = None) -> Any:
        """`do(number)`, for the number of the size (of the first `num`) that all particles have; `size` (N,)."""
        return lax.switch(size[0], [partial(do, k) for k in range(num or len(self.way.sizes))])

    def log_density(self, particle: Learner, level):
        return particle.log_density

    def choices(self, particle: Learner):
        """The parameters, and the path or the last step of a walker drawn by its weight."""
        return merge(self.parameters.constrain(particle.position), self.drawn(particle))

    def drawn(self, particle: Learner) -> dict[str, Any]:
        """Choices in the loop of a walker drawn by its weight: its path (step, ...), or its last step, as filters keep it."""
        slot = owner(particle.filter.log_weights, particle.point)
        if not particle.rows:
            return jax.tree.map(lambda x: x[slot], particle.filter.walkers.choices)
        slots = ancestry(particle.rows.ancestors, slot)
        return jax.tree.map(lambda x: x[jnp.arange(self.steps), slots], particle.rows.choices)

    # -- the filters of all particles, side by side ---------------------------------------------------------------------------

    def _begin(self, key, positions, num: int, references):
        """Filters that have taken the first step, and what is kept of it."""

        def one(key, position, reference):
            path, stage = self._inner(position, reference)
            population = path.start(key, num)
            return split(population, stage.init(population, path), self.way.history)

        return jax.vmap(one)(jax.random.split(key, len(positions)), positions, references)

    def _step(self, key, t, positions, filters: Filter, references=None):
        """The filters, one step further, and what is kept of it."""

        def one(key, position, filter, reference):
            path, stage = self._inner(position, reference)
            population = Population.of(filter.walkers, filter.log_weights, level=t)
            population = population._replace(log_divided=filter.log_divided)
            new = stage(key, population, filter.memory, path)
            return split(new.population, new.memory, self.way.history)

        return jax.vmap(one)(jax.random.split(key, len(positions)), positions, filters, references)

    def _inner(self, position, reference):
        """The path of the loop given the parameters, and a stage of its filter. They are data here, and the filter's evidence
        counts their density; not so what maps them to the real line."""
        path, stage = self.way.method.way.of(self.program | self.parameters.constrain(position)), self.way.method.stage
        if reference is None:
            return path, stage
        return Pinned(path, reference, 0), conditional(stage, Traced())

    def _log_density(self, positions, filters: Filter) -> jax.Array:
        """(N,): of the parameters at `positions`, by what the filters found."""
        log_evidence = jax.vmap(lambda filter: filter.log_divided + logmeanexp(filter.log_weights))(filters)
        return finite_or(log_evidence + jax.vmap(self.parameters.log_jacobian)(positions), -jnp.inf)
