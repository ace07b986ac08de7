"""Masked autoregressive flow: every coordinate is scaled and moved by what a network makes of those before it.

    y_i = m_i(x_1 ... x_{i-1}) + exp(s_i(x_1 ... x_{i-1})) x_i

One network with masked weights gives all m and s at once; layers reverse the order. Draws, with their densities, take one
pass, which is what learning needs; the density of a given position (importance weights of others' draws, a posterior as
prior of data elsewhere) takes as many passes as there are coordinates. (Kingma et al., "Improved Variational Inference with
Inverse Autoregressive Flow", NeurIPS 2016; masks: Germain, Gregor, Murray and Larochelle, "MADE", ICML 2015; Papamakarios,
Pavlakou and Murray, NeurIPS 2017.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .law import Family, Transport
from .mean_field import Diagonal
from .networks import Network


class Chain(Transport):
    """`networks`: one a layer, leaves lead with (layers,). `last` scales and moves."""

    networks: Network
    last: Diagonal

    @property
    def dim(self):
        return self.last.dim

    def forward(self, noise):
        def layer(x, network: Network):
            move, log_scale = self._given(network, x)
            return (move + jnp.exp(log_scale) * x)[::-1], jnp.sum(log_scale)

        noise, log_scales = lax.scan(layer, noise, self.networks)
        position, log_scale = self.last.forward(noise)
        return position, jnp.sum(log_scales) + log_scale

    def inverse(self, position):
        def layer(y, network: Network):
            y = y[::-1]

            def closer(x, _):  # after pass i the first i coordinates are right
                move, log_scale = self._given(network, x)
                return (y - move) * jnp.exp(-log_scale), None

            x = lax.scan(closer, jnp.zeros_like(y), length=self.dim)[0]
            return x, -jnp.sum(self._given(network, x)[1])

        noise, log_scale = self.last.inverse(position)
        noise, log_scales = lax.scan(layer, noise, self.networks, reverse=True)
        return noise, jnp.sum(log_scales) + log_scale

    def _given(self, network: Network, x):
        move, log_scale = jnp.split(network.masked(_masks(network, self.dim))(x), 2)
        return move, 3.0 * jnp.tanh(log_scale / 3.0)  # so that no network makes a scale that is not a number


class MaskedAutoregressive(Family):
    """See the file's docstring. `layers`, each a network of two hidden layers of `width` units."""

    layers: int = eqx.field(static=True, default=3)
    width: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        for name in ("layers", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"MaskedAutoregressive: {name} must be at least 1, got {getattr(self, name)}.")

    def law(self, key, target, location, scale):
        sizes = (target.dim, self.width, self.width, 2 * target.dim)
        networks = jax.vmap(lambda key: Network.of(key, sizes, location.dtype))(jax.random.split(key, self.layers))
        return Chain(networks, Diagonal(location, jnp.log(scale)))


def _masks(network: Network, dim: int) -> list[np.ndarray]:
    """Which weights are kept: a unit of degree d sees coordinates 1 to d, and output i those of degree below i."""
    degrees = [np.arange(1, dim + 1)]
    for weight in network.weights[:-1]:
        degrees.append(np.arange(len(weight)) % max(dim - 1, 1) + 1)
    masks = [high[:, None] >= low for low, high in zip(degrees[:-1], degrees[1:], strict=True)]
    return [*masks, np.tile(degrees[0], 2)[:, None] > degrees[-1]]
