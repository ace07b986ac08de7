"""Multinomial resampling: ancestors drawn independently (Gordon, Salmond and Smith, 1993). Of the most variance, and the
simplest to reason about."""

import jax
import jax.numpy as jnp

from .cumulated import cumulated
from .resampler import ByIndex


class Multinomial(ByIndex):
    """Multinomial resampling: `Multinomial()`."""

    def ancestors(self, key, log_weights, num: int):
        return independent(key, log_weights, num)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        return independent(key, log_weights, num).at[0].set(pin)


def independent(key, log_weights, num: int):
    """(num,) ancestors, each with probabilities proportional to the weights."""
    key_whole, key_part = jax.random.split(key)
    total = len(log_weights)  # owners of points do not depend on the scale
    whole = jax.random.randint(key_whole, (num,), 0, total, jnp.int32)
    return cumulated(log_weights, total).find(whole, jax.random.bits(key_part, (num,), jnp.uint32))
