"""The small networks inside flows: layers with tanh, the last of which is zero at first; so a flow starts as what it bends.

They hold arrays and nothing else, so that guides go through `jax.jit` as arguments.
"""

import equinox as eqx
import jax
import jax.numpy as jnp


class Network(eqx.Module):
    """`weights`, each (out, in), and `biases` (out,)."""

    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]

    @staticmethod
    def of(key, sizes: tuple[int, ...], dtype) -> "Network":
        """From `sizes[0]` numbers to `sizes[-1]`."""
        weights = []
        for k, num, out in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True):
            weights.append(jax.random.normal(k, (out, num), dtype) / jnp.sqrt(max(num, 1)))
        weights[-1] = jnp.zeros_like(weights[-1])
        return Network(tuple(weights), tuple(jnp.zeros(size, dtype) for size in sizes[1:]))

    def masked(self, masks) -> "Network":
        """With only those weights that the `masks`, one a layer, leave."""
        return Network(tuple(jnp.where(m, w, 0.0) for m, w in zip(masks, self.weights, strict=True)), self.biases)

    def __call__(self, x):
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = jnp.tanh(weight @ x + bias)
        return self.weights[-1] @ x + self.biases[-1]
