"""Small numerical helpers that several algorithms share."""

import jax
import jax.numpy as jnp


def finite_or(x, other):
    """`x` where it is finite, `other` elsewhere (NaN, infinities)."""
    return jnp.where(jnp.isfinite(x), x, other)


def trailing_ones(n):
    """How many binary ones end the integer `n`: 0b1011 has two."""
    return population_count(n & ~(n + 1))


def population_count(n):
    """How many ones the binary form of `n` holds."""
    return jnp.bitwise_count(n).astype(n.dtype)


def select(use_new, new, old):
    """The pytree `new` where the scalar `use_new` holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(use_new, a, b), new, old)
