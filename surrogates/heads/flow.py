"""Flow: vectors that are standard normal ones, bent half by half by splines which the other half and the raw numbers set.

    x = location + exp(log scale) * (layer_n o ... o layer_1)(z),   z ~ Normal(0, I)

Raw numbers are [location, log scale, context]: the first two are the law's own, and the context is read by the networks of the
layers, which are parameters of this head, shared by all laws. They begin as the identity. Draws and densities are both fast.
(Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows", NeurIPS 2019, section 3; the layers are those of the guide
`inference.vi.Coupling`.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from inference.vi.guides.coupling import Bends
from inference.vi.guides.mean_field import Diagonal
from inference.vi.guides.networks import Network
from ppl import dist

from .head import LOG_SCALE, Head, count, softly
from .spline import BEND


class Flow(Head):
    """See the file's docstring. Vector events (dim,); `size` is 2 dim + context. For scalar events, take `Spline`.

    - `layers`: how many times half of the coordinates are bent; `bins` of each spline.
    - `context`: how many raw numbers the networks read; `width`: units in each of their two hidden layers.
    - `key`: for the networks' first numbers.

    Raises:
        ValueError: if one of the numbers is not whole or too small.

    Example:
        `Flow(dim=3, layers=4, bins=8, key=key).law(raw).sample(key)`
    """

    networks: Network  # one a layer, leaves lead with (layers,)
    dim: int = eqx.field(static=True)
    layers: int = eqx.field(static=True)
    bins: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(self, dim: int, layers: int = 4, bins: int = 8, *, context: int = 32, width: int = 32, key: Any) -> None:
        for name, value, least in (("dim", dim, 1), ("layers", layers, 1), ("bins", bins, 2), ("context", context, 1)):
            count("Flow", name, value, least)
        count("Flow", "width", width)
        self.dim, self.layers, self.bins, self.context = dim, layers, bins, context
        bent = (dim + 1) // 2  # as in `Bends`
        sizes = (dim - bent + context, width, width, bent * (3 * bins - 1))
        make = jax.jit(jax.vmap(lambda key: Network.of(key, sizes, jnp.result_type(float))))
        self.networks = make(jax.random.split(key, layers))

    @property
    def size(self):
        return 2 * self.dim + self.context

    @property
    def event_shape(self):
        return (self.dim,)

    def made(self, raw):
        return Flowing(self.networks, raw, self.dim)

    def start(self):
        return jnp.zeros(self.size)


class Flowing(dist.Distribution):
    """The law of a `Flow`: `raw` (..., 2 dim + context), read by `networks`. Draws are reparameterised."""

    has_rsample: Any = True
    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("networks", "raw")

    def __init__(self, networks: Network, raw: jax.Array, dim: int, *, validate_args: bool | None = None) -> None:
        self.networks, self.raw = networks, raw
        super().__init__(jnp.shape(raw)[:-1], (dim,), validate_args=validate_args)

    def log_prob(self, value, intermediates: Any = None):
        inverse = jnp.vectorize(lambda raw, x: self._transport(raw).inverse(x), signature="(n),(d)->(d),()")
        noise, log_slope = inverse(self.raw, value)
        return dist.Normal(0.0, 1.0).log_prob(noise).sum(-1) + log_slope

    def sample(self, key: Any, sample_shape=()):
        noise = jax.random.normal(key, (*sample_shape, *self.batch_shape, *self.event_shape), self.raw.dtype)
        return jnp.vectorize(lambda raw, z: self._transport(raw).forward(z)[0], signature="(n),(d)->(d)")(self.raw, noise)

    def _transport(self, raw) -> Bends:
        (dim,), layers = self.event_shape, len(self.networks.biases[0])
        location, log_scale, context = jnp.split(raw, [dim, 2 * dim])
        networks: Any = Told(self.networks, jnp.broadcast_to(context, (layers, *context.shape)))
        return Bends(networks, Diagonal(location, softly(log_scale, LOG_SCALE)))


class Told(eqx.Module):
    """A network that is also told the context."""

    network: Network
    context: jax.Array

    def __call__(self, kept):
        dtype = self.context.dtype
        network: Any = jax.tree.map(lambda x: x.astype(dtype), self.network)
        return softly(network(jnp.concatenate([kept, self.context])), BEND)
