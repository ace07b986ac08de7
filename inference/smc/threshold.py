"""Thresholds: from the prior inwards, to ever smaller sets of higher likelihood.

    gamma_l = prior, restricted to log likelihood > l

The integral of gamma_l is the prior mass left at level l. The first level is -inf, the prior itself. The last is +inf, and
there the law is prior x likelihood above the threshold before it: a path that ends after the first level is importance
sampling from the prior, and whatever lay below the thresholds on the way is for the method to keep (see `layers.py`).
(Skilling, Bayesian Analysis 1, 2006; Salomone, South, Drovandi and Kroese, arXiv:1805.03924, 2018.)

```python
path = Thresholds().of(program | data)
```
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl

from ..population import Population, is_weight
from .path import Bridge, Level


class Thresholds(eqx.Module):
    """Go from the prior inwards."""

    def of(self, program) -> "ThresholdPath":
        """The path of a conditioned program, or a `ppl.Target`.

        Raises:
            ValueError: where the prior is improper.
        """
        target = ppl.as_target(program)
        sites = target.program.sites()
        improper = [slot.address for slot in target.slots if "ImproperUniform" in sites[slot.address].family]
        if improper:
            raise ValueError(
                f"smc: the prior of site '{improper[0]}' is improper: it has no mass of one that thresholds could take shares "
                "of, and no particles can be drawn from it. Give it a proper one."
            )
        return ThresholdPath(target)


class Point(NamedTuple):
    """A particle: `position` (dim,), the log density of the prior there, and the log likelihood."""

    position: jax.Array
    log_prior: jax.Array
    log_likelihood: jax.Array


class ThresholdPath(Bridge):
    """See the file's docstring. A level is a log likelihood."""

    target: ppl.Target

    level_name: ClassVar[str] = "threshold"

    def start(self, key, num: int) -> Population:
        points = self.drawn(key, num)
        return Population.of(points, level=jnp.full((), -jnp.inf, points.log_likelihood.dtype))

    def ended(self, level):
        return level == jnp.inf

    def told(self, level) -> str:
        return "the end" if level == jnp.inf else f"log likelihood {float(level):.6g}"

    def check_levels(self, levels) -> None:
        if levels[-1] != jnp.inf:
            raise ValueError(f"smc: thresholds must end with inf, the posterior, but the last one is {levels[-1]:.6g}.")

    def at(self, position) -> Point:
        return Point(position, *self.target.log_prior_and_likelihood(position))

    def log_density(self, particle: Point, level):
        return particle.log_prior + self._log_factor(particle, level)

    def log_ratio(self, particles, old, new):
        return self._log_factor(particles, new)  # of those that are above the old threshold, which all with a weight are

    def at_level(self, level) -> Any:
        return Level(self, level)

    def furthest(self, population, fits):
        """By bisection of the ranks of the particles; to the end where all of them are at or below the level found."""
        height = finite(population.particles.log_likelihood)
        ranked = jnp.sort(jnp.where(population.log_weights > -jnp.inf, height, jnp.finfo(height.dtype).min))

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) // 2
            log_ratio = self.log_ratio(population.particles, population.level, ranked[middle])
            good = fits(log_ratio > -jnp.inf)(log_ratio)
            return jnp.where(good, middle, low), jnp.where(good, high, middle)

        size = len(ranked)
        low, _ = jax.lax.fori_loop(0, size.bit_length(), halve, (jnp.int32(0), jnp.int32(size)))
        level = jnp.maximum(ranked[low], jnp.nextafter(population.level, jnp.inf))
        return jnp.where(ranked[-1] > level, level, jnp.inf)

    def _log_factor(self, particle: Point, level):
        """What a level multiplies the prior by."""
        height = particle.log_likelihood
        inside = (level == -jnp.inf) | ((height > level) & is_weight(height))
        return jnp.where(level == jnp.inf, height, jnp.where(inside, 0.0, -jnp.inf))


def finite(log_likelihood):
    """The same as finite numbers: those that are a likelihood of zero, or no number, are the lowest."""
    lowest = jnp.finfo(log_likelihood.dtype).min
    return jnp.where(is_weight(log_likelihood), jnp.maximum(log_likelihood, lowest), lowest)
