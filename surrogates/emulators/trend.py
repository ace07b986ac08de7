"""Trends: the mean of a Gaussian process, polynomials of its inputs, whose coefficients come by generalised least squares.

```python
Linear()(u)        # u (..., d) -> (..., q) regressors, here 1 and the coordinates
```
Far from runs a process falls back to its trend; with few runs of a function that is nearly a low polynomial it does better
with one. O'Hagan, "Curve fitting and optimal design for prediction", JRSS B 40, 1978.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import numpy as np

from .kernels import namespace


class Trend(eqx.Module):
    """Regressors of coordinates that run from 0 to 1."""

    @abstractmethod
    def __call__(self, u: Any) -> Any:
        """(..., d) -> (..., q)."""


class Constant(Trend):
    """One constant."""

    def __call__(self, u: Any) -> Any:
        return namespace(u).ones_like(u[..., :1])


class Linear(Trend):
    """A constant and a slope for each input."""

    def __call__(self, u: Any) -> Any:
        xp = namespace(u)
        return xp.concatenate([xp.ones_like(u[..., :1]), u - 0.5], -1)


class Quadratic(Trend):
    """A constant, slopes, squares and products: (d + 1) (d + 2) / 2 coefficients."""

    def __call__(self, u: Any) -> Any:
        xp = namespace(u)
        v = u - 0.5
        i, j = np.triu_indices(u.shape[-1])
        return xp.concatenate([xp.ones_like(u[..., :1]), v, v[..., i] * v[..., j]], -1)
