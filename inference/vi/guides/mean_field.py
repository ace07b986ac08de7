"""Mean field: every coordinate a Normal of its own. The default: it learns fast and never fails, and is too narrow.

    position = location + scale * noise

(Kucukelbir, Tran, Ranganath, Gelman and Blei, "Automatic Differentiation Variational Inference", JMLR 18, 2017.)
"""

import jax
import jax.numpy as jnp

from .law import Family, Transport


class Diagonal(Transport):
    """`location` and `log_scale`, each (dim,)."""

    location: jax.Array
    log_scale: jax.Array

    @property
    def dim(self):
        return self.location.shape[-1]

    def forward(self, noise):
        return self.location + jnp.exp(self.log_scale) * noise, jnp.sum(self.log_scale)

    def inverse(self, position):
        return (position - self.location) * jnp.exp(-self.log_scale), -jnp.sum(self.log_scale)


class MeanField(Family):
    """See the file's docstring. `guide_for(program | data, MeanField())`."""

    def law(self, key, target, location, scale):
        return Diagonal(location, jnp.log(scale))
