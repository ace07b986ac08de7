"""Sums of exponentials, and how to draw the terms that a sum was made of.

`log_sum(x, key)` has the value of the sum, but the gradient of one term alone, drawn in proportion. So the gradient of a log
density that was made of such sums, with respect to numbers added to its terms, is 1 at the terms of one exact draw given all
else, and 0 at the others; through a forward algorithm that is backward sampling. (Rush, "Torch-Struct", ACL 2020
demonstrations, arXiv:2002.00876.)
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

NOTHING = 1e-36  # less is the probability of what is impossible: some densities say -85, for the slope's sake


def log_sum(x: Array, key: Any = None) -> Array:
    """log sum exp over the first axis. Gradients are finite also where all is impossible; `key`: see the file's docstring."""
    top = level(jax.lax.stop_gradient(jnp.max(x, 0)))
    total = jnp.sum(jnp.exp(x - top), 0)
    none = total == 0
    whole = jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1.0, total)) + top)
    if key is None:
        return whole
    term = jnp.take_along_axis(x, jax.random.categorical(key, x, axis=0)[None], 0)[0]
    return instead(whole, term)


def log_mean(log_weights: Array) -> Array:
    """Log of the mean of exp(log_weights) (K,), a scalar."""
    return jax.nn.logsumexp(log_weights) - math.log(len(log_weights))


def instead(value: Array, other: Array) -> Array:
    """`value`, with the gradient of `other`."""
    return jax.lax.stop_gradient(value - level(other)) + level(other)


def level(x: Array) -> Array:
    """Zero where a log weight is -inf, else the weight: what is impossible stays so, whatever is subtracted."""
    return jnp.where(x == -jnp.inf, 0.0, x)
