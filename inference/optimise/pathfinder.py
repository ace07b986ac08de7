"""Multi-path Pathfinder: many climbs to the mode, each with its best Normal on the way, weighed together.

```python
posterior = inf.pathfinder(program | {"y": y}, key=jax.random.key(0))
```
The paths and their approximations are those of `inf.Pathfinder`, where chains begin. Here draws of all of them, as of one
mixture in equal parts, are weighted by the posterior over the mixture and resampled, the largest weights smoothed. (Zhang,
Carpenter, Gelman and Vehtari, JMLR 23, 2022, arXiv:2108.03782, section 2.3; who weigh each draw by its own path.)

The same weights say which share of the posterior each path found, and that is its share in the guide: a path that is stuck
where there is next to nothing has none. (Cappe, Douc, Guillin, Marin and Robert, "Adaptive importance sampling in general
mixture classes", Statistics and Computing 18, 2008.)
"""

import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl

from ..fixed import Fixed
from ..mcmc.initial import Initial, Uniform
from ..mcmc.lbfgs import Factor
from ..mcmc.pathfinder import Pathfinder
from ..posterior import Posterior
from ..smc.importance import importance, smooth
from ..smc.result import Run
from ..vi.guides.guide import Guide
from ..vi.guides.law import Transport
from ..vi.guides.mixture import Components
from ..vi.strategies import Enumerate
from .climb import check


class Quasi(Transport):
    """A Normal with the covariance that L-BFGS made."""

    location: jax.Array
    factor: Factor

    @property
    def dim(self):
        return self.location.shape[-1]

    def forward(self, noise):
        return self.location + self.factor @ noise, 0.5 * self.factor.log_determinant()

    def inverse(self, position):
        scaled = (position - self.location) / self.factor.scale
        part = scaled @ self.factor.basis
        own = jax.scipy.linalg.solve_triangular(self.factor.low, part, lower=True)
        return scaled + self.factor.basis @ (own - part), -0.5 * self.factor.log_determinant()


class Paths(NamedTuple):
    """`posterior.run`: the mixture of paths by their shares, a guide; the ELBO of each path's Normal (paths,); and what
    weighing them came to."""

    guide: Guide
    elbos: np.ndarray
    weighing: Run


def pathfinder(
    program, *, key: jax.Array, paths: int = 8, draws: int = 1000, proposals: int = 4000, init: Initial | None = None
) -> Posterior:
    """Draws, (1, draws), from Normal approximations along climbs to the mode, importance resampled.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `paths`: how many climbs; `init`: where they begin, by default `Uniform()`.
    - `proposals`: draws of the mixture that are weighted.

    `posterior.run.guide` is the mixture of paths by their shares of the posterior; `stages["pareto_k"]` has Pareto's k last,
    and `log_evidence` is by importance.

    Raises:
        ValueError: for a discrete site; where no path found a Normal.
    Warns:
        SamplingWarning: where Pareto's k is above 0.7.

    Example:
        `pathfinder(eight_schools(sigma) | {"y": y}, key=jax.random.key(0)).summary()`
    """
    began, target = time.monotonic(), ppl.as_target(program)
    check("pathfinder", target, key, paths=paths, draws=draws, proposals=proposals)
    key_paths, key_weigh, key_draw = jax.random.split(key, 3)
    finder = Pathfinder(paths=paths, start=Uniform() if init is None else init)
    bests = jax.jit(lambda key, target: finder.climbs(key, target).best)(key_paths, target)
    elbos = np.asarray(bests.elbo)
    if not np.isfinite(elbos).any():
        raise ValueError(
            f"pathfinder: none of {paths} paths found a Normal with a finite ELBO: at the start of the first "
            f"{target.explain(bests.mean[0])}. Begin elsewhere, init=At({{...}})."
        )
    found = jax.tree.map(lambda x: x[np.isfinite(elbos)], bests)
    members = Quasi(found.mean, found.factor)
    alike = Components(jnp.zeros_like(found.elbo), members, Enumerate())
    guide = Guide(alike, Fixed(target), "Mixture of Normals")
    weighted = importance(target, guide, key=key_weigh, num=proposals)
    guide = dataclasses.replace(guide, law=dataclasses.replace(alike, logits=_shares(members, weighted.run.population)))
    rows = jax.random.choice(key_draw, proposals, (draws,), replace=draws > proposals)
    made = weighted.provenance | {
        "algorithm": "pathfinder",
        "paths": paths,
        "paths_lost": int(paths - np.isfinite(elbos).sum()),
        "sampling_seconds": time.monotonic() - began,
    }
    return dataclasses.replace(
        weighted,
        draws=jax.tree.map(lambda x: x[:, rows], weighted.draws),
        stats={name: x[:, rows] for name, x in weighted.stats.items()},
        provenance=made,
        run=Paths(guide, elbos, weighted.run),
    )


def _shares(members: Quasi, population) -> jax.Array:
    """The logs (paths,) of what share of weighted draws of all paths is owed to each.

    A share of zero is as good as one of a rounding error, from which a path can be learned back.
    """
    log_q = jax.vmap(lambda x: jax.vmap(lambda member: member.density(x))(members))(population.particles.position)
    weights = jax.nn.softmax(smooth(population.log_weights)[0])
    shares = weights @ jax.nn.softmax(log_q)
    return jnp.log(jnp.maximum(shares, jnp.finfo(shares.dtype).eps))
