"""Bar: a histogram with soft ends, the predictive law of prior-fitted networks, over all real numbers.

Edges e_0 < ... < e_num make `num` buckets, and `num` raw numbers their weights, by a softmax. Inside a bucket the density is
uniform. The first and the last bucket have no end: half a Normal falls off from e_1 downwards and from e_{num-1} upwards, so
wide that half of it lies in the bucket.

    log p(x) = log softmax(raw)_i - log(e_{i+1} - e_i),    i the bucket of x, not the first nor the last

Any one-dimensional law is near one of these if buckets are narrow where its mass is: take the edges from data, `from_samples`.
(Mueller, Hollmann, Pineda Arango, Grabocka and Hutter, "Transformers can do Bayesian inference", ICLR 2022, arXiv:2112.10510,
section 4, the Riemann distribution with unbounded support.)
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf, erfc, ndtri

from ppl import dist
from ppl.distributions import is_traced

from .head import Head, count
from .implicit import solved

HALF = 0.6744897501960817  # the median of the half-normal of unit scale


class Bar(Head):
    """See the file's docstring. Scalar events; `size` is the number of buckets, in the order of the edges.

    - `edges`: (num + 1,) increasing numbers, for at least two buckets. Not learned.

    Raises:
        ValueError: for edges that do not increase, that are not finite, or fewer than three; when a law is made, for edges
            that are one in its precision.

    Example:
        `Bar.from_samples(y, 100).law(raw).icdf(0.95)`
    """

    edges: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, edges: Any) -> None:
        values = np.asarray(edges, np.float64)
        if values.ndim != 1 or len(values) < 3:
            raise ValueError(f"Bar: edges must be a vector of at least 3 numbers (two buckets), got shape {values.shape}.")
        if not np.isfinite(values).all():
            raise ValueError("Bar: edges must be finite: beyond the outer ones the density falls off by itself.")
        if (np.diff(values) <= 0.0).any():
            i = int(np.argmax(np.diff(values) <= 0.0))
            raise ValueError(
                f"Bar: edges must increase, but edge {i + 1} is {values[i + 1]} after {values[i]}. "
                "Bar.from_samples(y, num) chooses edges from data, ties included."
            )
        self.edges = tuple(map(float, values))

    @staticmethod
    def from_samples(y: Any, num: int) -> "Bar":
        """`num` buckets, each with an equal share of the samples `y` (any shape); so `start()` is their histogram.

        Quantiles that are one in float32 (ties) count once, and then the widest buckets are halved until there are `num`.

        Raises:
            ValueError: if `num` is below 2, if samples are not finite or all the same, or while JAX is tracing.

        Example:
            `Bar.from_samples(prior_program.simulate(key).choices["y"], 100)`
        """
        count("Bar.from_samples", "num", num, least=2)
        if is_traced(y):
            raise ValueError("Bar.from_samples: edges are fixed when a head is made; give it samples from outside jit.")
        values = np.ravel(np.asarray(y, np.float64))
        if values.size == 0 or not np.isfinite(values).all():
            bad = np.sum(~np.isfinite(values))
            raise ValueError(f"Bar.from_samples: needs finite samples, but {bad} of {values.size} are not.")
        edges = np.quantile(values, np.linspace(0.0, 1.0, num + 1))
        least = 16.0 * float(np.finfo(np.float32).eps) * np.abs(edges).max()
        kept = [edges[0]]
        for edge in edges[1:]:
            if edge - kept[-1] > least:
                kept.append(edge)
        if len(kept) == 1:
            raise ValueError(f"Bar.from_samples: all samples are {edges[0]}, which makes no bucket. Are these the targets?")
        while len(kept) <= num:
            i = int(np.argmax(np.diff(kept)))
            kept.insert(i + 1, 0.5 * (kept[i] + kept[i + 1]))
        return Bar(kept)

    @property
    def size(self):
        return len(self.edges) - 1

    @property
    def event_shape(self):
        return ()

    def made(self, raw):
        if (np.diff(np.asarray(self.edges, raw.dtype)) <= 0.0).any():
            raise ValueError(
                f"Bar: two edges are the same number in {raw.dtype}. Standardise the targets, or merge the edges."
            )
        return Bars(raw, self.edges)

    def start(self):
        return jnp.zeros(self.size)


class Bars(dist.Distribution):
    """The law of a `Bar`: `logits` (..., num) of the buckets between `edges`.

    Draws have slopes by the logits, through the cdf; right for averages of what is continuous in them. The law's own density
    is not, so objectives with an entropy, as the ELBO, must not use them: `has_rsample` is False.
    """

    arg_constraints = {"logits": dist.constraints.real_vector}
    support: Any = dist.constraints.real
    pytree_aux_fields = ("edges",)

    def __init__(self, logits: jax.Array, edges: tuple[float, ...], *, validate_args: bool | None = None) -> None:
        self.logits, self.edges = logits, edges
        super().__init__(jnp.shape(logits)[:-1], (), validate_args=validate_args)

    def log_prob(self, value, intermediates: Any = None):
        i, steep = self._bucket(value)
        widths, tails = self._widths()
        height = -np.log(widths)
        height[[0, -1]] = 0.5 * math.log(2.0 / math.pi) - np.log(tails)  # of a half-normal where it begins
        return _at(jax.nn.log_softmax(self.logits), i) + self._constant(height)[i] - 0.5 * steep**2

    def cdf(self, value):
        """P(x <= value); (...)."""
        i, steep = self._bucket(value)
        low, width = self._constant(self.edges)[i], self._constant(self._widths()[0])[i]
        inside = jnp.clip((value - low) / width, 0.0, 1.0)
        # each argument is 0 where its branch is not taken, so that no gradient comes from it
        falls, rises = (erfc(jnp.where(i == 0, steep, 0.0) / math.sqrt(2.0)), erf(steep / math.sqrt(2.0)))
        share = jnp.where(i == 0, falls, jnp.where(i == self._num - 1, rises, inside))
        weights, before = self._weights()
        return jnp.minimum(_at(before, i) + _at(weights, i) * share, 1.0)

    def icdf(self, q):
        """The value with `cdf(value) = q`; infinite at 0 and 1."""
        q = jnp.asarray(q)
        weights, before = lax.stop_gradient(self._weights())
        i = _bin(before, q)
        share = (q - _at(before, i)) / jnp.maximum(_at(weights, i), jnp.finfo(weights.dtype).tiny)
        return solved(lax.stop_gradient(self._placed(i, jnp.clip(share, 0.0, 1.0))), q, self)

    def sample(self, key: Any, sample_shape=()):
        # a number for the bucket and one for the place in it: a single one has too few digits for both in float32
        least, dtype = jnp.finfo(self.logits.dtype).tiny, self.logits.dtype
        u, v = jax.random.uniform(key, (2, *sample_shape, *self.batch_shape), dtype, minval=least)
        i = _bin(self._weights()[1], u)
        return solved(lax.stop_gradient(self._placed(i, v)), jnp.zeros_like(u), self)

    @property
    def mean(self):
        return jnp.sum(jax.nn.softmax(self.logits) * self._constant(self._means()), -1)

    @property
    def variance(self):
        widths, tails = self._widths()
        inside = widths**2 / 12.0
        inside[[0, -1]] = (1.0 - 2.0 / math.pi) * tails**2
        spread = self._constant(inside) + (self._constant(self._means()) - self.mean[..., None]) ** 2
        return jnp.sum(jax.nn.softmax(self.logits) * spread, -1)

    @property
    def _num(self) -> int:
        return len(self.edges) - 1

    def _constant(self, values) -> jax.Array:
        return jnp.asarray(np.asarray(values), self.logits.dtype)

    def _widths(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the buckets; and the scales of the first and the last half-normal."""
        widths = np.diff(self.edges)
        return widths, widths[[0, -1]] / HALF

    def _means(self) -> np.ndarray:
        (_, tails), middles = self._widths(), 0.5 * (np.asarray(self.edges[1:]) + np.asarray(self.edges[:-1]))
        middles[0] = self.edges[1] - math.sqrt(2.0 / math.pi) * tails[0]
        middles[-1] = self.edges[-2] + math.sqrt(2.0 / math.pi) * tails[1]
        return middles

    def _bucket(self, value):
        """The number of the bucket, and how many scales a value in an outer one is from where that begins; else 0."""
        value, (low, high) = jnp.asarray(value), map(float, self._widths()[1])
        i = jnp.searchsorted(self._constant(self.edges[1:-1]), value, side="right")
        down, up = (self._constant(self.edges[1]) - value) / low, (value - self._constant(self.edges[-2])) / high
        return i, jnp.where(i == 0, down, jnp.where(i == self._num - 1, up, 0.0))

    def _placed(self, i, share):
        """Where in bucket i the value is that has this share of the bucket's mass below it."""
        low, high = map(float, self._widths()[1])
        edges, widths = self._constant(self.edges), self._constant(self._widths()[0])
        down, up = edges[1] + low * ndtri(0.5 * share), edges[-2] - high * ndtri(0.5 * (1.0 - share))
        return jnp.where(i == 0, down, jnp.where(i == self._num - 1, up, edges[i] + widths[i] * share))

    def _weights(self):
        """Of the buckets, and of all before each. These end at exactly 1 where the last ones weigh nothing."""
        weights = jax.nn.softmax(self.logits)
        total = jnp.cumsum(weights, -1)
        before = total[..., :-1] / total[..., -1:]
        return weights, jnp.concatenate([jnp.zeros_like(total[..., :1]), before], -1)


def _at(values, i):
    """values[..., i], for every i."""
    return jnp.vectorize(lambda values, i: values[i], signature="(n),()->()")(values, i)


def _bin(before, q):
    """In which bucket q is: one that has some weight, for q below 1."""
    after = jnp.vectorize(lambda before, q: jnp.searchsorted(before, q, side="right"), signature="(n),()->()")
    return after(before[..., 1:], q)
