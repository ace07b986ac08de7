"""Reweight: on to the next level of a bridge, each particle weighted by the ratio of the two densities there.

How far is a rule's to say:

```python
Reweight(ByESS(0.5))             # as far as keeps half of the effective sample size: adaptive
Reweight(Ladder(jnp.linspace(0.0, 1.0, 21)[1:]))      # through given levels
```

The rule looks at the particles as they are, after the last move, with the weights that they have; densities are known, so that
no model is evaluated (Zhou, Johansen and Aston, JCGS 25, 2016, arXiv:1303.3123, for the conditional ESS).
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl.distributions import is_traced

from ..population import Population, is_weight
from ..resampling import ess
from .path import Bridge
from .step import Step, Stepped


class Rule(eqx.Module):
    """Which level is next."""

    @abc.abstractmethod
    def __call__(self, population: Population, path: Bridge) -> jax.Array:
        """A level further on than the population's."""


def _share(who: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{who}: share must lie between 0 and 1, got {share!r}.")


class ByESS(Rule):
    """As far as leaves `share` of the effective sample size there is (Jasra, Stephens, Doucet and Tsagaris, 2011)."""

    share: float = 0.5

    def __check_init__(self):
        _share("ByESS", self.share)

    def __call__(self, population, path):
        present = population.log_weights

        def fits(alive):
            least = self.share * ess(jnp.where(alive, present, -jnp.inf))  # the dead, dead at any level, don't hold it up
            return lambda log_ratio: ess(present + log_ratio) >= least

        return path.furthest(population, fits)


class ByCESS(Rule):
    """As far as keeps the conditional effective sample size at `share` of the particles: it measures how far two levels are
    apart, however uneven the weights are. For rules that resample now and then."""

    share: float = 0.9

    def __check_init__(self):
        _share("ByCESS", self.share)

    def __call__(self, population, path):
        log_w = jax.nn.log_softmax(population.log_weights)

        def fits(alive):
            least = jnp.log(self.share) + jax.nn.logsumexp(jnp.where(alive, log_w, -jnp.inf))

            def fit(log_ratio):
                first, second = jax.nn.logsumexp(log_w + log_ratio), jax.nn.logsumexp(log_w + 2 * log_ratio)
                return 2 * first - second >= least

            return fit

        return path.furthest(population, fits)


class Ladder(Rule):
    """Through given `levels` (num,), increasing; the last one is the end of the path.

    Raises:
        ValueError: for levels that do not increase.
    """

    levels: jax.Array = eqx.field(converter=jnp.asarray)

    def __check_init__(self):
        if isinstance(self.levels, jax.Array) and not is_traced(self.levels):
            levels = np.asarray(self.levels)
            if levels.ndim != 1 or not len(levels) or not (np.diff(levels) > 0).all():
                raise ValueError(
                    f"Ladder: levels must be an array that increases, such as jnp.linspace(0, 1, 21)[1:], got {levels}."
                )

    def __call__(self, population, path):
        place = jnp.searchsorted(self.levels, population.level, side="right")
        return self.levels[jnp.minimum(place, len(self.levels) - 1)]


class Reweight(Step):
    """Reweight to the level that `rule` names. Statistics: the level, under the path's name for it; `ess`, the effective
    sample size afterwards; `num_nonfinite`, how many log ratios were not numbers (they count as weight zero)."""

    rule: Rule

    def check(self, path) -> None:
        if not isinstance(path, Bridge):
            raise ValueError(f"Reweight: {type(path).__name__} grows and has no densities to go between; use Extend().")
        if isinstance(self.rule, Ladder):
            path.check_levels(np.asarray(self.rule.levels))

    def __call__(self, key, population, memory, path) -> Stepped:
        level = self.rule(population, path)
        log_ratio = path.log_ratio(population.particles, population.level, level)
        population = population.reweighted(log_ratio, level)
        info = {
            path.level_name: population.level,
            "ess": population.ess,
            "num_nonfinite": jnp.sum(~is_weight(log_ratio), dtype=jnp.int32),
        }
        return Stepped(population, (), info, population.level)

    def frozen(self, choices) -> "Reweight":
        return Reweight(Ladder(choices))
