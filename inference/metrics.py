"""Metrics: the kinetic energy of Hamiltonian kernels, `K(momentum) = momentum . velocity(momentum) / 2`.

The inverse mass matrix should look like the posterior covariance. A metric offers three maps, so that a dense or a
low-rank-plus-diagonal one can take the diagonal's place without a change in any kernel.

```python
metric = Diagonal(variance)                 # (dim,): posterior variances
momentum = metric.sample_momentum(key)      # Normal(0, mass matrix)
metric.velocity(momentum)                   # inverse mass matrix times momentum
```
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp


class Metric(eqx.Module):
    """The contract: how momenta are drawn and what velocity they stand for."""

    @abc.abstractmethod
    def sample_momentum(self, key) -> jax.Array:
        """A momentum (dim,) from Normal(0, mass matrix)."""

    @abc.abstractmethod
    def velocity(self, momentum) -> jax.Array:
        """Inverse mass matrix times `momentum`."""

    def kinetic_energy(self, momentum):
        """Half the inner product of momentum and velocity, a scalar."""
        return 0.5 * jnp.vdot(momentum, self.velocity(momentum))


class Diagonal(Metric):
    """Independent coordinates: `variance` (dim,) is the diagonal of the inverse mass matrix."""

    variance: jax.Array

    def sample_momentum(self, key):
        normal = jax.random.normal(key, self.variance.shape, self.variance.dtype)
        return normal * jax.lax.rsqrt(self.variance)

    def velocity(self, momentum):
        return self.variance * momentum
