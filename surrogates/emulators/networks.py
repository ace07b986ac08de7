"""Networks for emulators: small, smooth, and with nothing in them but arrays: so an emulator may be an argument of jit."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array


class Dense(eqx.Module):
    """Layers with tanh between them: (num,) -> (out,). All derivatives exist."""

    layers: tuple[eqx.nn.Linear, ...]

    @staticmethod
    def of(key: Array, num: int, out: int, *, width: int, depth: int, zero: bool = False) -> "Dense":
        """`depth` hidden layers of this width. `zero`: the last layer begins as zero, and so the network."""
        sizes = (num, *[width] * depth, out)
        keys = jax.random.split(key, depth + 1)
        layers = [eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]
        if zero:
            layers[-1] = jax.tree.map(jnp.zeros_like, layers[-1])
        return Dense(tuple(layers))

    def __call__(self, x: Array) -> Array:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)
