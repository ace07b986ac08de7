"""Kernels: how alike two outputs are, by the distance of their inputs; each input has a length scale of its own.

```python
Matern52()(r2)         # correlation at the squared scaled distance r2 = sum_d ((u_d - v_d) / scale_d)^2
```
Law: 1 at zero, decreasing, positive definite in every dimension. NumPy arrays give NumPy arrays, and JAX arrays JAX's.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapter 4.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

TINY = 1e-30  # under a root, where a slope at zero would not be a number


def namespace(x: Any) -> Any:
    """NumPy of what is NumPy's, else JAX's: fits are made on the host, in double precision, predictions where one asks."""
    return np if isinstance(x, np.ndarray | np.generic | float) else jnp


class Kernel(eqx.Module):
    """A correlation function of the squared scaled distance."""

    @abstractmethod
    def __call__(self, r2: Any) -> Any:
        """The correlation."""

    @abstractmethod
    def slope(self, r2: Any) -> Any:
        """Its derivative by r2."""


class SquaredExponential(Kernel):
    """exp(-r2 / 2): for functions with all derivatives, as most solvers' outputs are.

    Example:
        `GaussianProcess(kernel=SquaredExponential())`
    """

    def __call__(self, r2: Any) -> Any:
        return namespace(r2).exp(-0.5 * r2)

    def slope(self, r2: Any) -> Any:
        return -0.5 * self(r2)


class Matern52(Kernel):
    """(1 + a + a^2 / 3) exp(-a), a = sqrt(5 r2): for functions with two derivatives.

    Example:
        `GaussianProcess(kernel=Matern52())`
    """

    def __call__(self, r2: Any) -> Any:
        xp = namespace(r2)
        a = xp.sqrt(5.0 * r2 + TINY)
        return (1.0 + a + 5.0 / 3.0 * r2) * xp.exp(-a)

    def slope(self, r2: Any) -> Any:
        xp = namespace(r2)
        a = xp.sqrt(5.0 * r2 + TINY)
        return -5.0 / 6.0 * (1.0 + a) * xp.exp(-a)
