"""Full rank: one Normal for all coordinates together, with dim (dim + 3) / 2 parameters.

    position = location + S (I + T) noise,   S diagonal, T strictly lower triangular

(Kucukelbir et al., JMLR 18, 2017.)
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .law import Family, Transport


class Triangular(Transport):
    """`location` and `log_scale` (dim,), and the entries of T below the diagonal, row by row (dim (dim - 1) / 2,)."""

    location: jax.Array
    log_scale: jax.Array
    below: jax.Array

    @staticmethod
    def of(location, factor) -> "Triangular":
        """The Normal of this mean (dim,), and of the covariance F F' for a lower triangle F (dim, dim)."""
        scale = jnp.abs(jnp.diagonal(factor))
        unit = factor / scale[:, None] * jnp.sign(jnp.diagonal(factor))
        return Triangular(location, jnp.log(scale), unit[_below(len(scale))])

    @property
    def dim(self):
        return self.location.shape[-1]

    @property
    def factor(self) -> jax.Array:
        """The lower triangle F with covariance F F'."""
        return jnp.exp(self.log_scale)[:, None] * self._unit()

    def forward(self, noise):
        return self.location + jnp.exp(self.log_scale) * (self._unit() @ noise), jnp.sum(self.log_scale)

    def inverse(self, position):
        scaled = (position - self.location) * jnp.exp(-self.log_scale)
        return solve_triangular(self._unit(), scaled, lower=True, unit_diagonal=True), -jnp.sum(self.log_scale)

    def _unit(self):
        return jnp.eye(self.dim, dtype=self.below.dtype).at[_below(self.dim)].set(self.below)


class FullRank(Family):
    """See the file's docstring. `guide_for(program | data, FullRank())`."""

    def law(self, key, target, location, scale):
        return Triangular(location, jnp.log(scale), jnp.zeros(target.dim * (target.dim - 1) // 2, location.dtype))


def _below(dim: int):
    return np.tril_indices(dim, -1)
