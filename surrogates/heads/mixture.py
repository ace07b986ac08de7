"""Mixture: a weighted sum of Normals with full covariances; and the way back, from a mixture to raw numbers.

    density(x) = sum_i softmax(logit)_i Normal(x; mu_i, L_i L_i'),   diag L_i = exp(log-diagonal)

Raw numbers are *tokens*, one a component: [logit, mu, log-diagonal of L, strictly lower part of L, row by row]. The
log-diagonal is softly clamped to [-7, 7], so every raw number makes a covariance. A network that reads priors and writes
posteriors in the same form, one token a component, is a Distribution Transformer. (Bishop, "Mixture density networks", 1994;
tokens: Whittle, Ziomek, Rawling and Osborne, "Distribution transformers", 2025, arXiv:2502.02463, section 3.)
"""

import math
from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ppl import dist
from ppl.distributions import is_traced

from .head import LOG_SCALE, Head, count, softly, unsoftly
from .implicit import solved

UNROLLED = 10  # dimensions; more are solved by LAPACK
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class Mixture(Head):
    """See the file's docstring. Vector events (dim,), or scalar ones; `size` is num * token_size.

    - `dim`: of vectors; None for scalar events, whose law also has `cdf` and `icdf`.
    - `num`: of components.

    Raises:
        ValueError: if `dim` or `num` is no whole number of at least 1.

    Example:
        `Mixture(dim=2, num=5).law(raw).sample(key)`
    """

    dim: int | None = eqx.field(static=True)
    num: int = eqx.field(static=True)

    def __check_init__(self):
        if self.dim is not None:
            count("Mixture", "dim", self.dim)
        count("Mixture", "num", self.num)

    @property
    def token_size(self) -> int:
        """How many numbers say one component."""
        return 1 + 2 * self._dim + self._dim * (self._dim - 1) // 2

    @property
    def size(self):
        return self.num * self.token_size

    @property
    def event_shape(self):
        return () if self.dim is None else (self.dim,)

    def tokens(self, raw: Array) -> Array:
        """Raw numbers (..., size), a component a row: (..., num, token_size)."""
        return jnp.reshape(raw, (*jnp.shape(raw)[:-1], self.num, self.token_size))

    def made(self, raw):
        tokens, dim = self.tokens(raw), self._dim
        weights, means, scales, lower = parts(tokens, dim)
        if self.dim is None:
            return ScalarGaussians(weights, dist.Normal(means[..., 0], scales[..., 0]))
        tril = scales[..., None] * jnp.eye(dim, dtype=tokens.dtype)
        tril = tril.at[(..., *_lower(dim))].set(lower)
        return Gaussians(weights, dist.MultivariateNormal(means, scale_tril=tril))

    def start(self):
        tokens = np.zeros((self.num, self.token_size))
        tokens[:, 1 : 1 + self._dim] = spread(self.num, self._dim)
        return jnp.asarray(tokens.ravel(), float)

    def encode(self, weights: Any, means: Any, scale_trils: Any) -> Array:
        """The raw numbers (..., size) of a mixture: `law(encode(...))` is it.

        - `weights` (..., num); their sum need not be 1.
        - `means` (..., num, dim), or for scalar events (..., num).
        - `scale_trils` (..., num, dim, dim), Cholesky factors of the covariances; for scalar events deviations (..., num).

        Raises:
            ValueError: for other shapes; for weights that are negative, and diagonals that are not between e^-7 and e^7
                (standardise the values). While JAX is tracing, such a diagonal is moved to the nearest within.

        Example:
            `head.tokens(head.encode(weights, means, jnp.linalg.cholesky(covariances)))`
        """
        weights, means, trils = (jnp.asarray(x, jnp.result_type(float, x)) for x in (weights, means, scale_trils))
        event = self.event_shape
        for name, x, shape in (("weights", weights, ()), ("means", means, event), ("scale_trils", trils, event + event)):
            shape = (self.num, *shape)
            if jnp.shape(x)[max(jnp.ndim(x) - len(shape), 0) :] != shape:
                raise ValueError(f"Mixture.encode: {name} must end in the axes {shape}, got shape {jnp.shape(x)}.")
        if not is_traced(weights) and not _are_shares(np.asarray(weights)):
            raise ValueError("Mixture.encode: weights must be finite numbers of at least 0.")
        if self.dim is None:
            means, trils = means[..., None], trils[..., None, None]
        logs = jnp.log(jnp.diagonal(trils, axis1=-2, axis2=-1))
        if not is_traced(logs) and not (jnp.abs(logs) < LOG_SCALE).all():
            raise ValueError(
                f"Mixture.encode: the diagonal of scale_trils must lie between e^-{LOG_SCALE:g} and e^{LOG_SCALE:g}, got "
                f"{jnp.exp(jnp.min(logs)):.3g} to {jnp.exp(jnp.max(logs)):.3g}. Standardise the values."
            )
        most = LOG_SCALE * (1.0 - 4.0 * float(jnp.finfo(logs.dtype).eps))
        logits = jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))[..., None]
        said = [logits, means, unsoftly(jnp.clip(logs, -most, most), LOG_SCALE), trils[(..., *_lower(self._dim))]]
        batch = jnp.broadcast_shapes(*(part.shape[:-2] for part in said))
        tokens = jnp.concatenate([jnp.broadcast_to(part, batch + part.shape[-2:]) for part in said], -1)
        return jnp.reshape(tokens, (*batch, self.size))

    @property
    def _dim(self) -> int:
        return 1 if self.dim is None else self.dim


class Gaussians(dist.MixtureSameFamily):
    """The law of a mixture of vectors. Products are asked for in full precision: accelerators do not give it by themselves.

    Small triangles are solved in place: with few threads, two batches of LAPACK's solves that do not need each other can
    wait for each other for ever (JAX 0.10, processors).
    """

    def sample_with_intermediates(self, key: Any, sample_shape=()):
        with jax.default_matmul_precision("highest"):
            value, intermediates = super().sample_with_intermediates(key, sample_shape)
        return value.astype(self.component_mean.dtype), intermediates

    def log_prob(self, value, intermediates=None):
        parts: Any = self.component_distribution
        trils, away = parts.scale_tril, jnp.asarray(value)[..., None, :] - parts.loc
        if away.shape[-1] > UNROLLED:
            with jax.default_matmul_precision("highest"):
                return super().log_prob(value)
        solved = []
        for i in range(away.shape[-1]):
            known = sum(trils[..., i, j] * x for j, x in enumerate(solved))
            solved.append((away[..., i] - known) / trils[..., i, i])
        each = sum(-0.5 * x**2 - HALF_LOG_TWO_PI - jnp.log(trils[..., i, i]) for i, x in enumerate(solved))
        logits: Any = self.mixing_distribution.logits
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + each, -1)


class ScalarGaussians(dist.MixtureSameFamily):
    """The law of a mixture of numbers. Draws are reparameterised, by their cdf."""

    has_rsample: Any = True

    def sample_with_intermediates(self, key: Any, sample_shape=()):
        value, intermediates = super().sample_with_intermediates(key, sample_shape)
        value = lax.stop_gradient(value.astype(self.component_mean.dtype))
        return solved(value, jnp.zeros_like(value), self), intermediates

    def icdf(self, q):
        """The value with `cdf(value) = q`, by bisection between the components' own quantiles; infinite at 0 and 1."""
        q = jnp.asarray(q)[..., None]
        ends = lax.stop_gradient(self.component_distribution.icdf(q))
        low, high = jnp.min(ends, -1), jnp.max(ends, -1)
        law, q = lax.stop_gradient(self), q[..., 0]

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * low + 0.5 * high
            below = law.cdf(middle) < q
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        digits = jnp.finfo(ends.dtype).nmant + 1 + math.ceil(2.0 * LOG_SCALE / math.log(2.0))  # from one scale to another
        low, high = lax.fori_loop(0, digits + 10, halve, (low, high))
        return solved(lax.stop_gradient(jnp.where(jnp.isfinite(low), 0.5 * low + 0.5 * high, low)), q, self)


def parts(tokens: Array, dim: int) -> tuple[Any, Array, Array, Array]:
    """What tokens (..., num, size) say: the law of components, means and scales (..., num, dim), and the numbers left over."""
    logits, means, logs, rest = jnp.split(tokens, [1, 1 + dim, 1 + 2 * dim], -1)
    return dist.Categorical(logits=logits[..., 0]), means, jnp.exp(softly(logs, LOG_SCALE)), rest


def spread(num: int, dim: int) -> np.ndarray:
    """`num` means (num, dim), apart and of average 0, spread as a standard normal: quantiles at the points of an additive
    sequence (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018), in which no two are near."""
    ratio = 1.5
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / (dim + 1))
    steps = np.outer(np.arange(num), ratio ** -np.arange(1.0, dim + 1.0))
    means = np.vectorize(NormalDist().inv_cdf)((0.5 + steps) % 1.0)
    return means - means.mean(0)


def _are_shares(weights: np.ndarray) -> bool:
    return bool(((weights >= 0.0) & (weights < np.inf)).all())


def _lower(dim: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tril_indices(dim, -1)
