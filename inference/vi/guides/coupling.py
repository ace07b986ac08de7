"""Coupling: a flow that bends half of the coordinates by splines which the other half sets, then the other way round.

Both directions are fast: draws and densities alike. A scale and a location come last, so that what is to be bent is about
standard normal. (Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017; splines: Durkan, Bekasov,
Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .law import Family, Transport
from .mean_field import Diagonal
from .networks import Network
from .spline import spline, unspline


class Bends(Transport):
    """`networks`: one a layer, leaves lead with (layers,). `last` scales and moves."""

    networks: Network
    last: Diagonal

    @property
    def dim(self):
        return self.last.dim

    def forward(self, noise):
        num = _bent(self.dim)

        def layer(x, network: Network):
            y, log_slope = spline(x[:num], network(x[num:]).reshape(num, -1))
            return jnp.concatenate([x[num:], y]), jnp.sum(log_slope)  # what is kept comes first, and is bent next

        noise, log_slopes = lax.scan(layer, noise, self.networks)
        position, log_scale = self.last.forward(noise)
        return position, jnp.sum(log_slopes) + log_scale

    def inverse(self, position):
        num = _bent(self.dim)

        def layer(y, network: Network):
            kept, bent = jnp.split(y, [self.dim - num])
            x, log_slope = unspline(bent, network(kept).reshape(num, -1))
            return jnp.concatenate([x, kept]), jnp.sum(log_slope)

        noise, log_scale = self.last.inverse(position)
        noise, log_slopes = lax.scan(layer, noise, self.networks, reverse=True)
        return noise, jnp.sum(log_slopes) + log_scale


class Coupling(Family):
    """See the file's docstring.

    - `layers`: how many times half of the coordinates are bent.
    - `bins` of each spline; `width`: units in each of the two hidden layers of a network.
    """

    layers: int = eqx.field(static=True, default=4)
    bins: int = eqx.field(static=True, default=8)
    width: int = eqx.field(static=True, default=32)

    def __check_init__(self):
        for name, least in (("layers", 1), ("bins", 2), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Coupling: {name} must be at least {least}, got {getattr(self, name)}.")

    def law(self, key, target, location, scale):
        num = _bent(target.dim)
        sizes = (target.dim - num, self.width, self.width, num * (3 * self.bins - 1))
        networks = jax.vmap(lambda key: Network.of(key, sizes, location.dtype))(jax.random.split(key, self.layers))
        return Bends(networks, Diagonal(location, jnp.log(scale)))


def _bent(dim: int) -> int:
    """How many coordinates a layer bends: half of them, or the only one."""
    return (dim + 1) // 2
