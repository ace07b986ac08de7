"""What L-BFGS makes of its last steps: the inverse Hessian of a function, as a map of vectors and as a covariance.

It is a diagonal and a change of low rank, H = D + B M B'. (Byrd, Nocedal and Schnabel, Mathematical Programming 63, 1994; as a
covariance: Zhang et al., JMLR 23, 2022, appendix B.)

```python
pairs = remember(pairs, step, fall)      # a step, and by how much the gradient of the log density fell
direction = inverse(pairs) @ gradient
move = inverse(pairs).factor() @ normal  # from Normal(0, H)
```
Law: the secant equation, inverse(remember(pairs, step, fall)) @ fall == step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..metrics import LowRank
from ..numerics import select


class Pairs(NamedTuple):
    """What L-BFGS remembers, oldest first: steps and falls of the gradient (history, dim), zero where there are none yet; and
    a diagonal (dim,)."""

    steps: jax.Array
    falls: jax.Array
    diagonal: jax.Array


class Inverse(NamedTuple):
    """H: its `diagonal` D (dim,), B (dim, 2 history) and M (2 history, 2 history)."""

    diagonal: jax.Array
    basis: jax.Array
    middle: jax.Array

    def __matmul__(self, vector):
        return self.diagonal * vector + self.basis @ (self.middle @ (vector @ self.basis))

    def factor(self) -> "Factor":
        """What draws from Normal(0, H) need."""
        scale = jnp.sqrt(self.diagonal)
        basis, low = jnp.linalg.qr(self.basis / scale[:, None])
        return Factor(scale, basis, jnp.linalg.cholesky(jnp.eye(len(low)) + low @ self.middle @ low.T))


class Factor(NamedTuple):
    """F of H = F F': F = S (I + Q (L - I) Q') for a `scale` S (dim,), an orthonormal `basis` Q (dim, rank), and a lower
    triangle L (rank, rank)."""

    scale: jax.Array
    basis: jax.Array
    low: jax.Array

    @staticmethod
    def of_identity(like, rank: int) -> "Factor":
        """That of the identity, for vectors as `like`; of so high a rank, or the dimension."""
        rank = min(rank, like.size)
        return Factor(jnp.ones_like(like), jnp.eye(like.size, rank, dtype=like.dtype), jnp.eye(rank, dtype=like.dtype))

    def __matmul__(self, normal):
        part = normal @ self.basis
        return self.scale * (normal + self.basis @ (self.low @ part - part))

    def metric(self) -> LowRank:
        """H as a metric."""
        values, vectors = jnp.linalg.eigh(self.low @ self.low.T)
        return LowRank(self.scale, self.basis @ vectors, values)

    def log_determinant(self):
        """Of H."""
        return 2.0 * (jnp.sum(jnp.log(self.scale)) + jnp.sum(jnp.log(jnp.diag(self.low))))


def remember(pairs: Pairs, step, fall) -> Pairs:
    """The newest pair in place of the oldest, if the gradient fell along it; and the diagonal fitted to it (Gilbert and
    Lemarechal, Mathematical Programming 45, 1989)."""
    diagonal = pairs.diagonal
    a, b, c = jnp.vdot(fall, diagonal * fall), jnp.vdot(fall, step), jnp.vdot(step, step / diagonal)
    fitted = 1.0 / (a / (b * diagonal) + fall**2 / b - a * (step / diagonal) ** 2 / (b * c))
    fitted = jnp.where(jnp.isfinite(fitted) & (fitted > 0), fitted, diagonal)
    steps, falls = (jnp.concatenate([old[1:], new[None]]) for old, new in zip(pairs[:2], (step, fall), strict=True))
    return select(b > jnp.finfo(step.dtype).eps * jnp.vdot(fall, fall), Pairs(steps, falls, fitted), pairs)


def inverse(pairs: Pairs) -> Inverse:
    """The inverse Hessian that the pairs make of the diagonal (Byrd, Nocedal and Schnabel, Mathematical Programming 63, 1994,
    theorem 2.2). Rows of pairs that are not there yet are zero and change nothing."""
    steps, falls, diagonal = pairs
    inner = steps @ falls.T
    rates = jnp.diag(inner)
    corner = jnp.triu(inner) + jnp.diag(jnp.where(rates > 0, 0.0, 1.0))
    corner = jax.scipy.linalg.solve_triangular(corner, jnp.eye(len(corner), dtype=corner.dtype))
    last = corner.T @ (jnp.diag(rates) + (falls * diagonal) @ falls.T) @ corner
    middle = jnp.block([[jnp.zeros_like(corner), -corner], [-corner.T, last]])
    return Inverse(diagonal, jnp.concatenate([falls * diagonal, steps]).T, middle)
