"""A low-rank correction of a diagonal metric, for dimensions in which a dense one costs too much.

The last draws and their gradients span a small subspace. There the best metric (see `fisher.py`) is found exactly; outside
it the diagonal stays. Of the directions found, the `rank` whose variance differs most from the diagonal's are kept.
(The way of nutpie; see `fisher.py` for the source.)
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ...metrics import LowRank
from ...numerics import select
from .estimator import Estimator, all_finite
from .fisher import balance, geometric_mean


class Ring(NamedTuple):
    """The metric so far; the last draws and gradients (2, size, dim), a ring; the number of draws ever, and in the two
    windows."""

    metric: Any
    rows: jax.Array
    total: jax.Array
    older: jax.Array
    younger: jax.Array
    curvature: Any = None

    def add(self, row) -> "Ring":
        """One more draw and gradient (2, dim)."""
        rows = jax.lax.dynamic_update_index_in_dim(self.rows, row, self.total % self.rows.shape[1], axis=1)
        return self._replace(rows=rows, total=self.total + 1, older=self.older + 1, younger=self.younger + 1)

    def used(self) -> jax.Array:
        """Which rows belong to the older window, (size,)."""
        size = self.rows.shape[1]
        return (self.total - 1 - jnp.arange(size)) % size < self.older


class RingEstimator(Estimator):
    """An estimator whose state is a `Ring` of the last draws: it has still to say how it refits."""

    def add(self, state: Ring, inner) -> Ring:
        return state.add(jnp.stack([inner.position, inner.gradient]))

    def switch(self, state: Ring) -> Ring:
        return state._replace(older=state.younger, younger=jnp.zeros_like(state.younger))

    def fresh(self, state: Ring) -> jax.Array:
        return state.younger


class FisherLowRank(RingEstimator):
    """The best metric of low rank plus diagonal.

    - `rank`: how many directions; each costs two multiplications per coordinate and leapfrog step.
    - `size`: how many of the last draws it looks at; a refit costs dim * size^2.
    """

    rank: int = eqx.field(static=True, default=20)
    size: int = eqx.field(static=True, default=100)
    least: int = eqx.field(static=True, default=10)
    every: int = eqx.field(static=True, default=20)

    def init(self, position) -> Ring:
        dim, dtype, zero = len(position), position.dtype, jnp.int32(0)
        rank = min(self.rank, dim)
        metric = LowRank(jnp.ones_like(position), jnp.eye(dim, rank, dtype=dtype), jnp.ones(rank, dtype))
        return Ring(metric, jnp.zeros((2, self.size, dim), dtype), zero, zero, zero, jnp.zeros((), dtype))

    def refit(self, state: Ring) -> Ring:
        used = state.used().astype(state.rows.dtype)
        count = used.sum()
        mean = jnp.einsum("n,cnd->cd", used, state.rows) / count
        rows = (state.rows - mean[:, None]) * used[:, None] / jnp.sqrt(count)
        metric, curvature = best(rows, state.metric.values.shape[0])
        usable = (count >= self.least) & all_finite(metric)
        return select(usable, state._replace(metric=metric, curvature=curvature), state)

    def curvature(self, state: Ring) -> jax.Array:
        return state.curvature


def best(rows, rank: int) -> tuple[LowRank, jax.Array]:
    """The metric, and the curvature (see `geometric_mean`), from rows (2, n, dim) whose products `part.T @ part` are the
    covariances of draws and of gradients."""
    dim = rows.shape[2]
    scale = balance(*jnp.sum(rows**2, axis=1))
    rows = rows * jnp.stack([1.0 / scale, scale])[:, None]
    basis = jnp.eye(dim, dtype=rows.dtype)
    if 2 * rows.shape[1] < dim:
        basis, _ = jnp.linalg.qr(rows.reshape(-1, dim).T)
        rows = rows @ basis
    draws, gradients = (part.T @ part for part in rows)
    factor, _, curvature = geometric_mean(draws, gradients, jnp.sum(rows[0] * rows[1]))
    values, vectors = jnp.linalg.eigh(factor @ factor.T)
    chosen = jnp.argsort(-jnp.abs(jnp.log(values)))[:rank]
    return LowRank(scale, basis @ vectors[:, chosen], values[chosen]), curvature
