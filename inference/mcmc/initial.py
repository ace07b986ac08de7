"""Where chains begin.

```python
inf.mcmc(..., init=inf.Uniform(radius=2.0))      # the default: uniform on the unconstrained scale, as in Stan
inf.mcmc(..., init=inf.At({"mu": 0.0, "tau": 1.0}, jitter=0.1))
```
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp


class Initial(eqx.Module):
    """The contract: a position for one chain; every new `key` gives another try."""

    @abc.abstractmethod
    def position(self, key, target) -> jax.Array:
        """A flat unconstrained position (dim,)."""


class Uniform(Initial):
    """Uniform on [-radius, radius] in every unconstrained coordinate; discrete sites are drawn from their distributions."""

    radius: float = 2.0

    def position(self, key, target):
        position = jax.random.uniform(key, (target.dim,), minval=-self.radius, maxval=self.radius)
        return target.fill(key, position)


class At(Initial):
    """At given values of all latent choices, plus normal jitter on the unconstrained scale (discrete sites get none)."""

    choices: dict
    jitter: float = 0.0

    def position(self, key, target):
        position = jnp.asarray(target.unconstrain(self.choices))
        jitter = self.jitter * jax.random.normal(key, position.shape, position.dtype)
        return position + jnp.where(target.is_discrete, 0.0, jitter)
