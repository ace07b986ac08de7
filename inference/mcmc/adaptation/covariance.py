"""A metric from draws alone, for kernels without gradients: their covariance, shrunk towards the diagonal.

With n draws in dim dimensions the correlations are shrunk by the weight n / (n + dim): none are believed at first, nearly
all in the end.
"""

import equinox as eqx
import jax.numpy as jnp

from ...metrics import Dense
from ...numerics import select
from .estimator import Moments, WindowEstimator, Windows, all_finite


class Covariance(WindowEstimator):
    """The covariance of the draws of a window."""

    least: int = eqx.field(static=True, default=10)
    every: int = eqx.field(static=True, default=10)

    def init(self, position) -> Windows:
        empty = Moments.empty(position, pairs=True)
        return Windows(Dense.identity(len(position), position.dtype), empty, empty)

    def add(self, state: Windows, inner) -> Windows:
        return state.add(inner.position)

    def refit(self, state: Windows) -> Windows:
        count, covariance = state.older.count, state.older.squares / state.older.count
        weight = count / (count + len(covariance))
        shrunk = weight * covariance + (1.0 - weight) * jnp.diag(jnp.diag(covariance))
        metric = Dense.from_covariance(shrunk)
        usable = (count >= self.least) & all_finite(metric)
        return state._replace(metric=select(usable, metric, state.metric))
