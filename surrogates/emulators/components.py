"""Components: many outputs as a few numbers each run, which an emulator follows one by one.

```python
basis = Principal(loss=1e-6).fit(y)        # y (n, *out)
w = basis.encode(y)                        # (n, p), mean square 1 over the runs
basis.decode(w)                            # y up to what the components left out ...
basis.residual                             # ... whose variance, (*out), goes into every prediction
```
The law: y = center + w vectors + an error of variance `residual`, with components that are uncorrelated over the runs. The
residual is measured on runs that the components have not seen (they are made again without them, by Gram matrices, so the size
of an output does not matter): eight runs span eight curves exactly, and would call the error of a ninth zero.

Higdon, Gattiker, Williams and Rightley, "Computer model calibration using high-dimensional output", JASA 103, 2008.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import numpy as np

from .kernels import namespace

FOLDS = 32  # at most so often are components made again


class Basis(eqx.Module):
    """Outputs as components. The arrays may be NumPy's or JAX's, as what is given."""

    center: Any  # (*out)
    vectors: Any  # (p, *out): what a component of one adds
    unit: Any  # (*out): the size of an error that counts alike everywhere
    residual: Any  # (*out): the variance of what the components leave out

    @property
    def num(self) -> int:
        """How many components there are."""
        return self.vectors.shape[0]

    @property
    def reader(self) -> Any:
        """(p, *out): components are its sums over y - center. (Least squares, in units.)"""
        xp = namespace(self.vectors)
        axes = tuple(range(1, self.vectors.ndim))
        size = xp.sum((self.vectors / self.unit) ** 2, axes, keepdims=True)
        return xp.where(size > 0.0, self.vectors / self.unit**2 / xp.where(size > 0.0, size, 1.0), 0.0)

    def encode(self, y: Any) -> Any:
        """(..., *out) -> (..., p)."""
        axes = self.center.ndim
        out = list(range(y.ndim - axes, y.ndim)), list(range(1, axes + 1))
        return namespace(y).tensordot(y - self.center, self.reader, out)

    def decode(self, w: Any) -> Any:
        """(..., p) -> (..., *out)."""
        return self.center + namespace(w).tensordot(w, self.vectors, 1)


class Components(eqx.Module):
    """How a basis is found."""

    @abstractmethod
    def fit(self, y: np.ndarray) -> Basis:
        """The basis of outputs (n, *out)."""


class Principal(Components):
    """Principal components.

    - `num`: how many; by default as few as lose at most the share `loss` of the variance, and at most `most`.
    - `unit`: (*out) or a number: the size of an error that counts alike everywhere, such as the noise of data. By default
      all outputs count as they are: give their spread where they are of different kinds.

    Raises:
        ValueError: for units that are not positive.

    Example:
        `GaussianProcess(components=Principal(loss=1e-8, unit=0.003))`
    """

    num: int | None = None
    loss: float = 1e-7
    most: int = 24
    unit: Any = 1.0

    def __check_init__(self) -> None:
        if not np.all(np.asarray(self.unit) > 0.0):
            raise ValueError(f"Principal: unit must be positive, got {self.unit}. Give the size of an error that counts.")

    def fit(self, y: np.ndarray) -> Basis:
        n, out = len(y), y.shape[1:]
        unit = np.broadcast_to(np.asarray(self.unit, np.float64), out)
        flat = (y / unit).reshape(n, -1)
        center = flat.mean(0)
        left, sizes, right = np.linalg.svd(flat - center, full_matrices=False)
        top = int(min(n - 1, flat.shape[1]))
        p = self._number(sizes[:top], top)
        vectors = sizes[:p, None] / np.sqrt(n) * right[:p]
        residual = np.zeros(flat.shape[1]) if p == flat.shape[1] else left_out(flat, p)
        return Basis(
            (center.reshape(out) * unit),
            vectors.reshape(p, *out) * unit,
            unit,
            residual.reshape(out) * unit**2,
        )

    def _number(self, sizes: np.ndarray, top: int) -> int:
        if self.num is not None:
            return max(1, min(self.num, top))
        power = np.cumsum(sizes**2)
        if not power.size or not power[-1] > 0.0:
            return 1  # all runs are the same
        return int(min(np.searchsorted(power, (1.0 - self.loss) * power[-1]) + 1, self.most, top))


def left_out(y: np.ndarray, p: int) -> np.ndarray:
    """The mean square (m,) of what p principal components of the other runs miss of a run, for outputs y (n, m)."""
    n = len(y)
    gram = y @ y.T
    miss = np.zeros((n, n))  # row i: the combination of runs that run i is off by
    for fold in np.array_split(np.arange(n), min(n, FOLDS)):
        rest = np.setdiff1d(np.arange(n), fold)
        if not len(rest):
            return np.zeros(y.shape[1])
        mean = np.zeros(n)
        mean[rest] = 1.0 / len(rest)
        about = np.eye(n) - mean  # rows: runs, minus the mean of the rest
        powers, left = np.linalg.eigh(about[rest] @ gram @ about[rest].T)
        powers, left = powers[::-1][:p], left[:, ::-1][:, :p]
        good = powers > 1e-12 * max(powers[0], 1e-300)
        powers, left = powers[good], left[:, good]
        own = about[fold]
        inner = own @ gram @ about[rest].T @ left
        miss[fold] = own - (inner / powers) @ left.T @ about[rest]
    return np.mean((miss @ y) ** 2, 0)
