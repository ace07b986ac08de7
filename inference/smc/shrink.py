"""Shrink: to the level of the k-th worst particle of a path of thresholds. It dies, with all that are not better.

The worst are at the edge of what is left of the prior, so where k of N die the mass left shrinks by about 1 - k / N, whatever
the likelihood and the dimension. With a likelihood that has plateaus more than k may be worst, and die together; their share
is the plateau's (Fowlie, Handley and Su, MNRAS 503, 2021, arXiv:2010.13884). The estimate of the mass, a product of the
shares that survived, is unbiased (Brehier, Lelievre and Rousset, ESAIM: P&S 19, 2015, arXiv:1408.6366).

The path ends where what is left cannot change log Z by more than `tolerance`, were it all as likely as the best particle; and
where no particle is better than the k-th worst, as on a plateau at the top.
"""

import equinox as eqx
import jax.numpy as jnp

from ..population import is_weight
from ..resampling import logmeanexp
from .reweight import Ladder, Reweight
from .step import Step, Stepped
from .threshold import ThresholdPath, finite


class Shrink(Step):
    """Let the worst `share` of the particles die (at least one).

    Statistics: `threshold`, the level; `num_dead`; `log_evidence_below`, of what has died so far; `ess`; and `num_nonfinite`,
    how many log likelihoods are NaN or +inf (they count as a likelihood of zero).
    """

    share: float = eqx.field(static=True, default=0.1)
    tolerance: float = 0.01

    def __check_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(f"Shrink: share must lie between 0 and 1, got {self.share!r}.")
        if isinstance(self.tolerance, float | int) and not self.tolerance > 0:
            raise ValueError(f"Shrink: tolerance must be positive, got {self.tolerance!r}.")

    def check(self, path) -> None:
        if not isinstance(path, ThresholdPath):
            raise ValueError(f"Shrink: {type(path).__name__} has no thresholds; use Reweight(...).")

    def init(self, population, path):
        """The log evidence of the dead."""
        return jnp.full((), -jnp.inf, population.log_weights.dtype)

    def __call__(self, key, population, memory, path) -> Stepped:
        height = finite(population.particles.log_likelihood)
        size = len(height)
        level, best = jnp.sort(height)[max(1, int(self.share * size)) - 1], jnp.max(height)
        dies = height <= level
        log_mass = population.log_divided + population.log_weights
        below = jnp.logaddexp(memory, logmeanexp(jnp.where(dies, log_mass + height, -jnp.inf)))
        left = logmeanexp(jnp.where(dies, -jnp.inf, log_mass))
        ends = (best <= level) | (left + best < below + jnp.log(self.tolerance))
        level = jnp.where(ends, jnp.inf, level)
        log_ratio = path.log_ratio(population.particles, population.level, level)
        population = population.reweighted(log_ratio, level)
        info = {
            path.level_name: level,
            "num_dead": jnp.where(ends, 0, jnp.sum(dies, dtype=jnp.int32)),
            "log_evidence_below": jnp.where(ends, memory, below),
            "ess": population.ess,
            "num_nonfinite": jnp.sum(~is_weight(population.particles.log_likelihood), dtype=jnp.int32),
        }
        return Stepped(population, info["log_evidence_below"], info, level)

    def frozen(self, choices) -> Reweight:
        return Reweight(Ladder(choices))
