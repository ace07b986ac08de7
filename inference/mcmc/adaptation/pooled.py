"""What many chains learn together: one metric from the draws of all, one step size for all.

A single state of a thousand chains says more of a posterior than a thousand states of one chain, and it does not remember
where the chains came from. So windows of draws are short here: a chain keeps its last few, and a metric is made from those of
all chains.

```python
inf.adapted(inf.ChEES(), estimator=inf.adaptation.Pooled(inf.adaptation.FisherDiagonal()))
```

Kernels that look at the other chains do so over the axis CHAINS. What all chains have in common, such as a metric, is kept by
every chain, for `vmap` maps all of a state; `shared` says so where it is used, and the compiler makes one product of a matrix
with all momenta, not one product for each chain.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ...kernel import CHAINS
from ...numerics import finite_or
from .estimator import Moments, WindowEstimator, Windows
from .low_rank import Ring, RingEstimator


def shared(tree):
    """The pytree as the first chain has it: for what is the same in all chains. Under `vmap` it is then not batched."""
    return jax.tree.map(lambda x: lax.all_gather(x, CHAINS)[0], tree)


def pooled_mean(values):
    """The mean over all chains; one that is not a number counts as zero."""
    return lax.pmean(finite_or(values, 0.0), CHAINS)


class Pooled(RingEstimator):
    """An estimator of one chain, `estimator`, applied to the last `size` draws of all chains together, or a few more.

    A chain that is not at a finite density and gradient is left out.
    """

    estimator: WindowEstimator
    size: int = eqx.field(static=True, default=2000)
    every: int = eqx.field(static=True, default=5)

    def init(self, position) -> Ring:
        length = -(-self.size // lax.axis_size(CHAINS))
        nothing, zero = self.estimator.init(position), jnp.int32(0)
        rows = jnp.zeros((2, length, *position.shape), position.dtype)
        return Ring(nothing.metric, rows, zero, zero, zero, nothing.curvature)

    def refit(self, state: Ring) -> Ring:
        used = state.used() & jnp.all(jnp.isfinite(state.rows), axis=(0, 2))
        rows = jnp.where(used[:, None], state.rows, 0.0)
        used, rows = lax.all_gather(used, CHAINS, tiled=True), lax.all_gather(rows, CHAINS, axis=1, tiled=True)
        like = self.estimator.init(rows[0, 0]).older  # draws and gradients, side by side or all in a row
        moments = moments_of(jnp.swapaxes(rows, 0, 1).reshape(-1, *like.mean.shape), used, like)
        new = self.estimator.refit(Windows(shared(state.metric), moments, moments, shared(state.curvature)))
        return state._replace(metric=new.metric, curvature=new.curvature)

    def curvature(self, state: Ring) -> jax.Array | float:
        return 0.0 if state.curvature is None else state.curvature


def moments_of(values, used, like: Moments) -> Moments:
    """The moments of those of `values` (num, ...) that are `used` (num,), of all pairs or not as in `like`."""
    weight = used.astype(values.dtype).reshape(-1, *[1] * like.mean.ndim)
    count = jnp.sum(weight)
    mean = jnp.sum(weight * values, axis=0) / count
    deviation = (values - mean) * weight
    pairs = like.squares.ndim > like.mean.ndim
    squares = jnp.einsum("n...i,n...j->...ij", deviation, deviation) if pairs else jnp.sum(deviation**2, axis=0)
    return Moments(count, mean, squares)
