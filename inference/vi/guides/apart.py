"""Apart: where the components of a mixture begin: on climbs to the modes, as far from one another as can be.

Components that begin together share the nearest modes, and what none of them is near to is never found. So more climbs are
made than there are components, from random places (see `inf.Pathfinder`); the best is taken, then again and again the one that
is farthest from all that were taken, in units of the scales that the climbs found. (Gonzalez, "Clustering to minimize the
maximum intercluster distance", Theoretical Computer Science 38, 1985.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ...mcmc.initial import Initial, Start
from ...mcmc.pathfinder import Pathfinder
from ...metrics import LowRank
from ...numerics import select


class Apart(Initial):
    """`num` positions (num, dim) at once, with scales, of `tries` climbs for each."""

    num: int = eqx.field(static=True)
    tries: int = eqx.field(static=True, default=8)

    def position(self, key, target):
        return self.begin(key, target).position

    def begin(self, key, target):
        climbs = Pathfinder(paths=self.num * self.tries).climbs(key, target)
        best = jnp.argmax(climbs.best.elbo)
        lost = ~(jnp.isfinite(climbs.best.elbo) & jnp.isfinite(jax.vmap(target.log_density)(climbs.best.draw)))
        found = jax.vmap(lambda own, lost: select(lost, jax.tree.map(lambda x: x[best], climbs.best), own))(climbs.best, lost)
        metrics = jax.vmap(lambda factor: factor.metric())(found.factor)
        rows = _farthest(found.draw, deviations(metrics), best, self.num)
        return Start(found.draw[rows], jax.tree.map(lambda x: x[rows], metrics), jnp.sum(climbs.num))


def deviations(metric: LowRank):
    """The standard deviations (..., dim) of the Normal that a metric stands for."""
    return metric.scale * jnp.sqrt(1.0 + jnp.einsum("...dr,...r->...d", metric.directions**2, metric.values - 1.0))


def _farthest(points, scales, first, num: int):
    """The rows of `num` points, of (many, dim), each far from those before it."""
    rows, nearest = [first], jnp.full(len(points), jnp.inf)
    for _ in range(num - 1):
        last = rows[-1]
        squares = jnp.sum((points - points[last]) ** 2 / (scales**2 + scales[last] ** 2), 1)
        nearest = jnp.minimum(nearest, squares)
        rows.append(jnp.argmax(nearest))
    return jnp.stack(rows)
