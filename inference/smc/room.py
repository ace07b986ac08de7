"""Room: arrays that hold the filters of all particles side by side, with room for more walkers and steps than there are.

Leaves lead with (N,); then come the steps, where they are kept, and then the walkers.
"""

import jax
import jax.numpy as jnp
from jax import lax


def written(rows, row, t):
    """`rows` (N, step, ...), with `row` (N, ...) as that of step `t`."""
    return jax.tree.map(lambda xs, x: lax.dynamic_update_index_in_dim(xs, x, t, axis=1), rows, row)


def resized(tree, num: int, axis: int = 1, fill: float = 0):
    """Arrays with `num` entries along an axis: their first ones; or all of them, and then `fill`."""

    def fit(x):
        more = num - x.shape[axis]
        if more <= 0:
            return lax.slice_in_dim(x, 0, num, axis=axis)
        return jnp.pad(x, [(0, more if k == axis else 0) for k in range(x.ndim)], constant_values=fill)

    return jax.tree.map(fit, tree)
