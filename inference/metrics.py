"""Metrics: the shape of the posterior as a kernel sees it.

A metric stands for a covariance C = F F' (the inverse mass matrix of Hamiltonian kernels), which should look like that of
the posterior. Kernels use it only through five maps, so that any metric serves any kernel.

```python
metric = Diagonal(variance)                 # (dim,): posterior variances
metric = Dense.from_covariance(covariance)
metric = LowRank(scale, directions, values) # a diagonal, corrected along few directions
momentum = metric.momentum(normal)          # F'^-1 normal: of Normal(0, mass matrix)
metric.velocity(momentum)                   # C momentum
metric.unwhiten(normal)                     # F normal: a displacement with covariance C
metric.whiten(displacement)                 # F^-1 displacement: back to where the metric is the identity
metric.whiten_gradient(gradient)            # F' gradient: the gradient there
```

Laws: `unwhiten(whiten_gradient(m)) == velocity(m)`; `whiten(unwhiten(v)) == v`.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

__all__ = ["Dense", "Diagonal", "LowRank", "Metric"]


class Metric(eqx.Module):
    """The contract. All vectors are (dim,)."""

    @abc.abstractmethod
    def momentum(self, normal) -> jax.Array:
        """Of standard normals, a momentum from Normal(0, C^-1)."""

    @abc.abstractmethod
    def velocity(self, momentum) -> jax.Array:
        """C momentum."""

    @abc.abstractmethod
    def unwhiten(self, vector) -> jax.Array:
        """F vector: from the space where the metric is the identity."""

    @abc.abstractmethod
    def whiten(self, vector) -> jax.Array:
        """F^-1 vector: the inverse of `unwhiten`."""

    @abc.abstractmethod
    def whiten_gradient(self, gradient) -> jax.Array:
        """F' gradient: to the space where the metric is the identity."""

    @abc.abstractmethod
    def like(self, guess: "LowRank") -> "Metric":
        """A metric of the kind and shapes of this one, as near to `guess` as may be."""

    def kinetic_energy(self, momentum):
        """Half the inner product of momentum and velocity, a scalar; rounding must not make it negative, for where a diverging
        step has led to momenta of 1e15 that would outweigh any density."""
        return 0.5 * jnp.maximum(jnp.vdot(momentum, self.velocity(momentum)), 0.0)


class Diagonal(Metric):
    """Independent coordinates: `variance` (dim,) is the diagonal of C."""

    variance: jax.Array

    def like(self, guess):
        return Diagonal(guess.scale**2 * (1.0 + guess.directions**2 @ (guess.values - 1.0)))

    def momentum(self, normal):
        return normal * jax.lax.rsqrt(self.variance)

    def velocity(self, momentum):
        return self.variance * momentum

    def unwhiten(self, vector):
        return jnp.sqrt(self.variance) * vector

    def whiten(self, vector):
        return vector / jnp.sqrt(self.variance)

    def whiten_gradient(self, gradient):
        return jnp.sqrt(self.variance) * gradient


class Dense(Metric):
    """All coordinates together: `covariance` C, `factor` F and `mass_factor` F^-T, each (dim, dim)."""

    covariance: jax.Array
    factor: jax.Array
    mass_factor: jax.Array

    @staticmethod
    def identity(dim: int, dtype) -> "Dense":
        """All coordinates alike and independent."""
        return Dense(*(jnp.eye(dim, dtype=dtype) for _ in range(3)))

    @staticmethod
    def from_covariance(covariance) -> "Dense":
        """The metric of a positive definite matrix (dim, dim)."""
        factor = jnp.linalg.cholesky(covariance)
        inverse = jax.scipy.linalg.solve_triangular(factor, jnp.eye(len(factor), dtype=factor.dtype), lower=True)
        return Dense(covariance, factor, inverse.T)

    def like(self, guess):
        return Dense.from_covariance(jax.vmap(guess.velocity)(jnp.eye(len(guess.scale), dtype=guess.scale.dtype)))

    def momentum(self, normal):
        return self.mass_factor @ normal

    def velocity(self, momentum):
        return self.covariance @ momentum

    def unwhiten(self, vector):
        return self.factor @ vector

    def whiten(self, vector):
        return self.mass_factor.T @ vector

    def whiten_gradient(self, gradient):
        return self.factor.T @ gradient


class LowRank(Metric):
    """A diagonal metric corrected along few directions: C = S (I + U (V - I) U') S.

    - `scale` (dim,): the diagonal of S, standard deviations.
    - `directions` (dim, rank): the columns of U, orthonormal, or zero where the value is one.
    - `values` (rank,): the diagonal of V, variances along the directions after scaling.
    """

    scale: jax.Array
    directions: jax.Array
    values: jax.Array

    def like(self, guess):
        chosen = jnp.argsort(-jnp.abs(jnp.log(guess.values)))[: len(self.values)]
        more = len(self.values) - len(chosen)
        directions = jnp.pad(guess.directions[:, chosen], ((0, 0), (0, more)))
        return LowRank(guess.scale, directions, jnp.pad(guess.values[chosen], (0, more), constant_values=1.0))

    def momentum(self, normal):
        return self._stretch(normal, jax.lax.rsqrt(self.values)) / self.scale

    def velocity(self, momentum):
        return self.scale * self._stretch(self.scale * momentum, self.values)

    def unwhiten(self, vector):
        return self.scale * self._stretch(vector, jnp.sqrt(self.values))

    def whiten(self, vector):
        return self._stretch(vector / self.scale, jax.lax.rsqrt(self.values))

    def whiten_gradient(self, gradient):
        return self._stretch(self.scale * gradient, jnp.sqrt(self.values))

    def _stretch(self, vector, values):
        """(I + U (V - I) U') vector."""
        return vector + self.directions @ ((values - 1.0) * (self.directions.T @ vector))
