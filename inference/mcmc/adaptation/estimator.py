"""Estimators of metrics: what a warm-up learns from the states that a chain visits.

Two windows of draws overlap. The older one gives the metric; when the younger one is full it takes the older one's place,
so that the far past is forgotten and there are always draws to go by.

```python
state = estimator.init(position)          # state.metric: all coordinates alike and independent
state = estimator.add(state, inner)       # take in the kernel's state: its position, and its gradient if need be
state = estimator.refit(state)            # state.metric: from the draws of the older window
state = estimator.switch(state)           # forget what the younger window does not hold
```
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp


class Estimator(eqx.Module):
    """The contract. `every`: how many draws apart `refit` is worth its cost."""

    every: eqx.AbstractVar[int]

    @abc.abstractmethod
    def init(self, position) -> Any:
        """Nothing seen. The state's field `metric` is the identity."""

    @abc.abstractmethod
    def add(self, state, inner) -> Any:
        """Take in the state `inner` of the kernel after a transition."""

    @abc.abstractmethod
    def refit(self, state) -> Any:
        """Make the metric anew, where there are enough draws for one that is finite."""

    @abc.abstractmethod
    def switch(self, state) -> Any:
        """The younger window takes the older one's place."""

    @abc.abstractmethod
    def fresh(self, state) -> jax.Array:
        """How many draws the younger window holds."""

    def curvature(self, state) -> jax.Array | float:
        """How far from normal the posterior looks, from 0 (normal, or not known) to 1."""
        return 0.0


class Moments(NamedTuple):
    """Running moments of vectors (Welford): count (); mean (..., dim); and sum of squared deviations, of each coordinate
    (..., dim) or of all pairs (..., dim, dim)."""

    count: jax.Array
    mean: jax.Array
    squares: jax.Array

    @staticmethod
    def empty(mean, *, pairs: bool) -> "Moments":
        """Of no vectors shaped like `mean`."""
        zeros = jnp.zeros_like(mean)
        return Moments(jnp.zeros((), mean.dtype), zeros, zeros[..., :, None] * zeros[..., None, :] if pairs else zeros)

    def add(self, values) -> "Moments":
        """One more vector."""
        count = self.count + 1
        deviation = values - self.mean
        mean = self.mean + deviation / count
        rest = values - mean
        pairs = self.squares.ndim > self.mean.ndim
        products = deviation[..., :, None] * rest[..., None, :] if pairs else deviation * rest
        return Moments(count, mean, self.squares + products)


class Windows(NamedTuple):
    """The metric so far, the moments of the two windows, and a curvature (see `fisher.py`), where one is learned."""

    metric: Any
    older: Moments
    younger: Moments
    curvature: Any = None

    def add(self, values) -> "Windows":
        """One more vector in both windows."""
        return self._replace(older=self.older.add(values), younger=self.younger.add(values))


class WindowEstimator(Estimator):
    """An estimator whose state is `Windows`: it has still to say what it adds and how it refits."""

    def switch(self, state: Windows) -> Windows:
        return state._replace(older=state.younger, younger=jax.tree.map(jnp.zeros_like, state.younger))

    def fresh(self, state: Windows) -> jax.Array:
        return state.younger.count


def all_finite(tree) -> jax.Array:
    """Whether no number in the pytree is NaN or infinite; a scalar."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
