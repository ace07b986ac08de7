"""Spline: a number that is a standard normal one, bent by a monotone spline and then scaled and moved. The scalar flow.

    x = location + exp(log scale) * spline(z; raw),   z ~ Normal(0, 1)

Raw numbers are [location, log scale, the spline's 3 bins - 1]; a spline bends what lies in [-4, 4], so tails are Normal. Other
than a mixture it begins as a Normal, and its quantiles are a formula. (Durkan, Bekasov, Murray and
Papamakarios, "Neural spline flows", NeurIPS 2019.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from inference.vi.guides.spline import spline, unspline
from ppl import dist

from .head import LOG_SCALE, Head, count, softly

BEND = 3.0  # softly, of a spline's raw numbers: bins at most e^6 apart in size can be told from their neighbours in float32


class Spline(Head):
    """See the file's docstring. Scalar events; `size` is 3 bins + 1.

    Raises:
        ValueError: if `bins` is no whole number of at least 2.

    Example:
        `Spline(bins=8).law(raw).cdf(0.0)`
    """

    bins: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        count("Spline", "bins", self.bins, least=2)

    @property
    def size(self):
        return 3 * self.bins + 1

    @property
    def event_shape(self):
        return ()

    def made(self, raw):
        return Splined(raw)

    def start(self):
        return jnp.zeros(self.size)


class Splined(dist.Distribution):
    """The law of a `Spline`. Draws are reparameterised."""

    arg_constraints = {"raw": dist.constraints.real_vector}
    reparametrized_params = ["raw"]
    support: Any = dist.constraints.real

    def __init__(self, raw: jax.Array, *, validate_args: bool | None = None) -> None:
        self.raw = raw
        super().__init__(jnp.shape(raw)[:-1], (), validate_args=validate_args)

    def log_prob(self, value, intermediates: Any = None):
        z, log_slope = self._noise(value)
        return dist.Normal(0.0, 1.0).log_prob(z) + log_slope

    def cdf(self, value):
        """P(x <= value); (...)."""
        return ndtr(self._noise(value)[0])

    def icdf(self, q):
        """The value with `cdf(value) = q`; infinite at 0 and 1."""
        return self._value(ndtri(jnp.asarray(q, jnp.result_type(q, self.raw))))

    def sample(self, key: Any, sample_shape=()):
        return self._value(jax.random.normal(key, (*sample_shape, *self.batch_shape), self.raw.dtype))

    @property
    def _knots(self):
        return softly(self.raw[..., 2:], BEND)

    @property
    def _log_scale(self):
        return softly(self.raw[..., 1], LOG_SCALE)

    def _value(self, z):
        knots = jnp.broadcast_to(self._knots, (*jnp.broadcast_shapes(jnp.shape(z), self.batch_shape), self._knots.shape[-1]))
        return self.raw[..., 0] + jnp.exp(self._log_scale) * spline(jnp.broadcast_to(z, knots.shape[:-1]), knots)[0]

    def _noise(self, value):
        scaled = (value - self.raw[..., 0]) * jnp.exp(-self._log_scale)
        z, log_slope = unspline(scaled, jnp.broadcast_to(self._knots, (*scaled.shape, self._knots.shape[-1])))
        return z, log_slope - self._log_scale
