"""In order: from the prior to the posterior by taking the parts of the likelihood one after the other.

    gamma_n = prior x the first n parts of the likelihood,  n = 0, 1, ..., num_parts

What a part is, and in which order they come, is the path's to say: data (`data_order.py`) or sites (`site_order.py`). A
particle holds the log likelihood of the first 0, 1, 2, ... parts, so that to go on by some of them, or to look how far one can
go, evaluates no model (Chopin, Biometrika 89, 2002).
"""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl

from ..population import Population
from .path import Bridge, Level


class Learner(NamedTuple):
    """A particle: `position` (dim,), `log_prior` (), and `log_likelihoods` (num_parts + 1,) of the first 0, 1, ... parts."""

    position: jax.Array
    log_prior: jax.Array
    log_likelihoods: jax.Array


class InOrder(Bridge):
    """The contract of such paths. A level is the number of parts so far. `parts`: what they are called."""

    target: eqx.AbstractVar[ppl.Target]

    parts: ClassVar[str] = "parts"

    @property
    @abc.abstractmethod
    def num_parts(self) -> int:
        """How many there are."""

    @abc.abstractmethod
    def each(self, by_site: dict[str, jax.Array]) -> jax.Array:
        """(num_parts,): the log likelihood of each part, from the pointwise ones of all sites."""

    def start(self, key, num: int) -> Population:
        return Population.of(self.drawn(key, num), level=jnp.int32(0))

    def ended(self, level):
        return level >= self.num_parts

    def check_levels(self, levels) -> None:
        if levels[0] < 1 or levels[-1] != self.num_parts or levels.dtype.kind not in "iu":
            raise ValueError(
                f"smc: numbers of {self.parts} must be whole and increase from at least 1 to exactly {self.num_parts}, but "
                f"they go from {levels[0]} to {levels[-1]}."
            )

    def at(self, position) -> Learner:
        log_prior, by_site = self.target.log_prior_and_likelihoods(position)
        each = self.each(by_site).astype(log_prior.dtype)
        return Learner(position, log_prior, jnp.concatenate([jnp.zeros(1, each.dtype), jnp.cumsum(each)]))

    def log_density(self, particle: Learner, level):
        return particle.log_prior + particle.log_likelihoods[level]

    def at_level(self, level) -> Any:
        return Level(self, level)

    def furthest(self, population, fits):
        """By bisection: weights become the more uneven the more parts are added, but for chance."""
        known, here = population.particles.log_likelihoods, population.level

        def halve(bounds):
            low, high = bounds
            middle = (low + high) // 2
            log_ratio = known[:, middle] - known[:, here]
            good = fits(log_ratio > -jnp.inf)(log_ratio)
            return jnp.where(good, middle, low), jnp.where(good, high, middle)

        beyond = jnp.full_like(here, self.num_parts + 1)
        return lax.while_loop(lambda bounds: bounds[1] - bounds[0] > 1, halve, (here + 1, beyond))[0]
