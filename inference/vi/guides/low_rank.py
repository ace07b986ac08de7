"""Low rank: a Normal with a diagonal covariance, made wider along a few directions; dim (rank + 2) parameters.

    position = location + S (I + W W') noise,   S diagonal, W (dim, rank)

whose covariances are S S and what has rank `rank`: all sums of a diagonal and that many factors. (Ong, Nott and Smith,
"Gaussian Variational Approximation with a Factor Covariance Structure", JCGS 27, 2018; with as much noise as there are
coordinates here, so that it has an inverse.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from .law import Family, Transport


class Factors(Transport):
    """`location` and `log_scale` (dim,), `directions` W (dim, rank)."""

    location: jax.Array
    log_scale: jax.Array
    directions: jax.Array

    @property
    def dim(self):
        return self.location.shape[-1]

    def forward(self, noise):
        moved = noise + self.directions @ (self.directions.T @ noise)
        return self.location + jnp.exp(self.log_scale) * moved, self._log_jacobian(self._low())

    def inverse(self, position):
        scaled, low = (position - self.location) * jnp.exp(-self.log_scale), self._low()
        part = jax.scipy.linalg.cho_solve((low, True), self.directions.T @ scaled)
        return scaled - self.directions @ part, -self._log_jacobian(low)

    def _low(self):
        """The Cholesky factor of I + W' W."""
        inner = self.directions.T @ self.directions
        return jnp.linalg.cholesky(jnp.eye(len(inner), dtype=inner.dtype) + inner)

    def _log_jacobian(self, low):
        return jnp.sum(self.log_scale) + 2.0 * jnp.sum(jnp.log(jnp.diagonal(low)))


class LowRank(Family):
    """See the file's docstring. `rank`: the number of directions, at most that of coordinates."""

    rank: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"LowRank: rank must be a whole number of at least 1, got {self.rank!r}.")

    def law(self, key, target, location, scale):
        if self.rank > target.dim:
            raise ValueError(f"LowRank: rank {self.rank} is above the dimension {target.dim}. Take FullRank() instead.")
        # not zero, where all directions would have the same gradient, none
        directions = 0.1 * jax.random.normal(key, (target.dim, self.rank), location.dtype) / jnp.sqrt(target.dim)
        return Factors(location, jnp.log(scale), directions)
