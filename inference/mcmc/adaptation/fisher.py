"""A diagonal metric from draws and gradients.

Among diagonal metrics, `variance = sd(draws) / sd(gradients)` makes the transformed posterior closest to a standard
normal in Fisher divergence; for a normal posterior it is exact after a handful of draws, since there gradients are draws times
the precision. It needs far fewer draws than the plain variance. (Seyboldt, Carlson and Carpenter, "Preconditioning
Hamiltonian Monte Carlo by minimizing Fisher divergence", arXiv:2603.18845, and their sampler nutpie.)

Two windows of running moments overlap: the older one gives the metric, at every draw; when the younger one is full it
takes the older one's place, so that the far past is forgotten.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ...metrics import Diagonal
from ...numerics import finite_or, select


class Moments(NamedTuple):
    """Running count (), mean (2, dim) and sum of squared deviations (2, dim) of positions and gradients (Welford)."""

    count: jax.Array
    mean: jax.Array
    squares: jax.Array

    @staticmethod
    def empty(dim, dtype) -> "Moments":
        return Moments(jnp.zeros((), dtype), jnp.zeros((2, dim), dtype), jnp.zeros((2, dim), dtype))

    def add(self, values) -> "Moments":
        count = self.count + 1
        deviation = values - self.mean
        mean = self.mean + deviation / count
        return Moments(count, mean, self.squares + deviation * (values - mean))


class FisherState(NamedTuple):
    """The metric so far, and the moments of the two overlapping windows."""

    metric: Diagonal
    older: Moments
    younger: Moments


class FisherDiagonal(eqx.Module):
    """The estimator. The metric is the identity until `least` draws have been seen: far from the typical set, a metric
    from fewer lets coordinates run ahead of each other, and more chains end in minor modes (measured)."""

    least: int = 10

    def init(self, position) -> FisherState:
        """Nothing seen, all coordinates alike."""
        empty = Moments.empty(position.shape[0], position.dtype)
        return FisherState(Diagonal(jnp.ones_like(position)), empty, empty)

    def update(self, state: FisherState, position, gradient, window) -> FisherState:
        """Take in a draw; `window` is the number of draws at which the younger window replaces the older one."""
        values = jnp.stack([position, gradient])
        older, younger = state.older.add(values), state.younger.add(values)
        full = younger.count >= window
        empty = Moments.empty(position.shape[0], position.dtype)
        older, younger = select(full, (younger, empty), (older, younger))
        variance = bounded(jnp.sqrt(older.squares[0] / older.squares[1]), state.metric.variance)
        metric = Diagonal(jnp.where(older.count >= self.least, variance, state.metric.variance))
        return FisherState(metric, older, younger)


def bounded(variance, other):
    """`variance` where it is a usable number, `other` where it is not."""
    usable = jnp.isfinite(variance) & (variance > 0)
    return jnp.clip(jnp.where(usable, finite_or(variance, 1.0), other), 1e-20, 1e20)
