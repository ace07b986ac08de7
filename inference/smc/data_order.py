"""Data order: from the prior to the posterior by taking the data one after the other.

    gamma_n = prior x likelihood of the first n data,  n = 0, ..., num_data

The order is that of the leading axis of the observed sites, which they have in common; sites without an axis count with the
first datum. A particle holds the log likelihood of the first 0, 1, 2, ... data, so that to go on by some data, or to look how
far one can go, evaluates no model (Chopin, Biometrika 89, 2002).

```python
path = DataOrder().of(regression(x) | {"y": y})
```
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl

from ..population import Population
from .path import Bridge, Level
from .tempering_path import Tempering


class DataOrder(eqx.Module):
    """Which way to go: datum by datum."""

    def of(self, program) -> "DataOrderPath":
        """The path to the posterior of a conditioned program.

        Raises:
            ValueError: where no observed site has an axis, their leading axes disagree, or the prior is improper.
        """
        target = Tempering().of(program).target
        parts = {name: x.shape for name, x in _shapes(target).items()}
        axes = {name: shape[0] for name, shape in parts.items() if shape}
        if not axes:
            raise ValueError(
                f"smc: to go along the data one by one, some observed site must have an axis of independent data, but "
                f"{', '.join(parts) or 'no site'} has none. Write them as a ppl.vmap, or without .to_event()."
            )
        if len(set(axes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in axes.items())
            raise ValueError(
                f"smc: the leading axes of the observed sites disagree ({told}), so it is not clear which data come "
                "together. Write them with one leading axis."
            )
        return DataOrderPath(target, next(iter(axes.values())))


def _shapes(target):
    return jax.eval_shape(lambda u: target.program.log_likelihoods(target.constrain(u)), jnp.zeros(target.dim))


class Learner(NamedTuple):
    """A particle: `position` (dim,), `log_prior` (), and `log_likelihoods` (num_data + 1,) of the first 0, 1, ... data."""

    position: jax.Array
    log_prior: jax.Array
    log_likelihoods: jax.Array


class DataOrderPath(Bridge):
    """See the file's docstring. A level is the number of data so far."""

    target: ppl.Target
    num_data: int = eqx.field(static=True)

    level_name: ClassVar[str] = "num_data"

    def start(self, key, num: int) -> Population:
        return Population.of(self.drawn(key, num, self.target.program), level=jnp.int32(0))

    def ended(self, level):
        return level >= self.num_data

    def told(self, level) -> str:
        return f"datum {int(level)} of {self.num_data}"

    def check_levels(self, levels) -> None:
        if levels[0] < 1 or levels[-1] != self.num_data or levels.dtype.kind not in "iu":
            raise ValueError(
                f"smc: numbers of data must be whole and increase from at least 1 to exactly {self.num_data}, but they go "
                f"from {levels[0]} to {levels[-1]}."
            )

    def at(self, position) -> Learner:
        log_prior, _ = self.target.log_prior_and_likelihood(position)
        each = jnp.zeros(self.num_data, log_prior.dtype)
        for log_p in self.target.program.log_likelihoods(self.target.constrain(position)).values():
            each = each + log_p.reshape(self.num_data, -1).sum(axis=1) if log_p.ndim else each.at[0].add(log_p)
        return Learner(position, log_prior, jnp.concatenate([jnp.zeros(1, each.dtype), jnp.cumsum(each)]))

    def log_density(self, particle: Learner, level):
        return particle.log_prior + particle.log_likelihoods[level]

    def at_level(self, level) -> Any:
        return Level(self, level)

    def furthest(self, population, fits):
        """By bisection: weights become the more uneven the more data are added, but for chance."""
        known, here = population.particles.log_likelihoods, population.level

        def halve(bounds):
            low, high = bounds
            middle = (low + high) // 2
            good = fits(known[:, middle] - known[:, here])
            return jnp.where(good, middle, low), jnp.where(good, high, middle)

        beyond = jnp.full_like(here, self.num_data + 1)
        return lax.while_loop(lambda bounds: bounds[1] - bounds[0] > 1, halve, (here + 1, beyond))[0]
