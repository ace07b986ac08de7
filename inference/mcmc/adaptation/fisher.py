"""Metrics from draws and gradients, for kernels that have gradients.

The metric under which a posterior looks most like a standard normal, in Fisher divergence, is the geometric mean of the
covariance of the draws and the inverse covariance of the gradients: the C with C cov(gradients) C = cov(draws). For a
normal posterior it is exact after dim + 1 draws, since there gradients are draws times the precision; the covariance of
the draws alone needs far more. Among diagonal metrics it is sd(draws) / sd(gradients). (Seyboldt, Carlson and Carpenter,
"Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence", arXiv:2603.18845, and their sampler nutpie.)

- `FisherDiagonal`: cheapest; for posteriors whose coordinates are nearly independent.
- `FisherDense`: all correlations; the default up to 100 coordinates.
- `FisherLowRank`: the strongest correlations; the default above. In `low_rank.py`.

None makes a metric before it has seen `least` draws: far from the typical set, one from fewer lets coordinates run ahead
of each other, and more chains end in minor modes (measured).
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ...metrics import Dense, Diagonal
from ...numerics import finite_or, select
from .estimator import Moments, WindowEstimator, Windows, all_finite


class FisherDiagonal(WindowEstimator):
    """The best diagonal metric."""

    least: int = eqx.field(static=True, default=10)
    every: int = eqx.field(static=True, default=1)

    def init(self, position) -> Windows:
        empty = Moments.empty(jnp.stack([position, position]), pairs=False)
        return Windows(Diagonal(jnp.ones_like(position)), empty, empty)

    def add(self, state: Windows, inner) -> Windows:
        return state.add(jnp.stack([inner.position, inner.gradient]))

    def refit(self, state: Windows) -> Windows:
        draws, gradients = state.older.squares
        variance = jnp.sqrt(draws / gradients)
        usable = jnp.isfinite(variance) & (variance > 0) & (state.older.count >= self.least)
        variance = jnp.clip(finite_or(variance, 1.0), 1e-20, 1e20)
        return state._replace(metric=Diagonal(jnp.where(usable, variance, state.metric.variance)))


class FisherDense(WindowEstimator):
    """The best dense metric; costs dim^2 per draw and dim^3 per `every` draws."""

    least: int = eqx.field(static=True, default=10)
    every: int = eqx.field(static=True, default=10)

    def init(self, position) -> Windows:
        empty = Moments.empty(jnp.concatenate([position, position]), pairs=True)
        return Windows(Dense.identity(len(position), position.dtype), empty, empty, jnp.zeros((), position.dtype))

    def add(self, state: Windows, inner) -> Windows:
        return state.add(jnp.concatenate([inner.position, inner.gradient]))

    def refit(self, state: Windows) -> Windows:
        dim = len(state.older.mean) // 2
        covariance = state.older.squares / state.older.count
        draws, gradients, cross = covariance[:dim, :dim], covariance[dim:, dim:], covariance[:dim, dim:]
        scale = balance(jnp.diag(draws), jnp.diag(gradients))
        outer = scale[:, None] * scale
        factor, inverse, curvature = geometric_mean(draws / outer, gradients * outer, jnp.trace(cross))
        factor = factor * scale[:, None]
        metric = Dense(factor @ factor.T, factor, inverse / scale[:, None])
        usable = (state.older.count >= self.least) & all_finite(metric)
        new = state._replace(metric=metric, curvature=curvature)
        return select(usable, new, state)

    def curvature(self, state: Windows) -> jax.Array:
        return state.curvature


def balance(variance_of_draws, variance_of_gradients):
    """Scales that give draws / scale and gradients * scale equal variances: the best diagonal standard deviations."""
    return jnp.sqrt(jnp.sqrt(variance_of_draws / variance_of_gradients))


def geometric_mean(draws, gradients, cross):
    """F and F^-T, (dim, dim), of the C = F F' with C gradients C = draws; and the curvature.

    The covariances are balanced; `cross` is the trace of that of draws and gradients. Curvature is the share of their
    variance, on the scale of C, that is not common to draws and negative gradients: nothing for any draws of a normal
    posterior, where these are equal. Where it is large, gradients are rare and huge, and C is far too narrow for the draws
    in some directions. So both covariances get a multiple of the identity: a fraction curvature^4 of their largest variance,
    a tenth at curvature 0.56 and a millionth at 0.03. A little is always there, for directions that no draw has seen yet.
    """
    identity = jnp.max(jnp.diag(draws)) * jnp.eye(len(draws), dtype=draws.dtype)
    least = jnp.sqrt(jnp.finfo(draws.dtype).eps)
    _, values, _ = _squared_ratio(draws + least * identity, gradients + least * identity)
    curvature = jnp.clip(1.0 + cross / jnp.sum(jnp.sqrt(values)), 0.0, 1.0)
    ridge = jnp.maximum(curvature**4, least) * identity
    low, values, vectors = _squared_ratio(draws + ridge, gradients + ridge)
    values = jnp.sqrt(jnp.sqrt(values))
    return jax.scipy.linalg.solve_triangular(low.T, vectors * values), low @ (vectors / values), curvature


def _squared_ratio(draws, gradients):
    """L, and eigenvalues and eigenvectors of L' draws L, for gradients = L L'. The eigenvalues are squares of the variances
    that draws and gradients have in common on the scale of their geometric mean."""
    low = jnp.linalg.cholesky(gradients)
    return low, *jnp.linalg.eigh(low.T @ draws @ low)
