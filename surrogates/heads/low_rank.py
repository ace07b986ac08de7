"""Low-rank mixture: Normals with a diagonal covariance made wider along a few directions, for many dimensions.

    density(x) = sum_i softmax(logit)_i Normal(x; mu_i, S_i (I + V_i V_i') S_i),   S_i diagonal, V_i (dim, rank)

Raw numbers are tokens, one a component: [logit, mu, log-diagonal of S, V row by row]; dim (rank + 2) + 1 of them instead of
about dim^2 / 2. Directions are in units of S, so that the inverse is well conditioned whatever the scales are. (Woodbury's
identity; Richardson and Weiss, "On GANs and GMMs", NeurIPS 2018, mixtures of factor analysers.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl import dist

from .head import Head, count
from .mixture import Gaussians, parts, spread


class LowRankMixture(Head):
    """See the file's docstring. Vector events (dim,); `size` is num (dim (rank + 2) + 1).

    Raises:
        ValueError: if `dim`, `num` or `rank` is no whole number of at least 1, or `rank` is not below `dim`.

    Example:
        `LowRankMixture(dim=50, num=3, rank=2).law(raw).log_prob(x)`
    """

    dim: int = eqx.field(static=True)
    num: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)

    def __check_init__(self):
        for name in ("dim", "num", "rank"):
            count("LowRankMixture", name, getattr(self, name))
        if self.rank >= self.dim:
            raise ValueError(f"LowRankMixture: rank {self.rank} is not below dim {self.dim}. Take Mixture(dim, num) instead.")

    @property
    def size(self):
        return self.num * (self.dim * (self.rank + 2) + 1)

    @property
    def event_shape(self):
        return (self.dim,)

    def made(self, raw):
        tokens, dim = raw.reshape(*raw.shape[:-1], self.num, -1), self.dim
        weights, means, scales, directions = parts(tokens, dim)
        factors = scales[..., None] * directions.reshape(*directions.shape[:-1], dim, self.rank)
        with jax.default_matmul_precision("highest"):
            components = dist.LowRankMultivariateNormal(means, factors, scales**2)
        return Gaussians(weights, components)

    def start(self):
        tokens = np.zeros((self.num, self.size // self.num))
        tokens[:, 1 : 1 + self.dim] = spread(self.num, self.dim)
        # directions a little apart: at zero, and where two are the same, none would have a gradient of its own
        directions = 0.1 * spread(self.num * self.rank, self.dim).reshape(self.num, self.rank, self.dim)
        tokens[:, 1 + 2 * self.dim :] = np.swapaxes(directions, 1, 2).reshape(self.num, -1)
        return jnp.asarray(tokens.ravel(), float)
