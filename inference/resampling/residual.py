"""Residual resampling: the whole parts of the expected counts are given, the rest is drawn (Liu and Chen, JASA 93, 1998)."""

import jax
import jax.numpy as jnp

from .cumulated import expected, repeated
from .multinomial import independent
from .resampler import ByIndex, in_front


class Residual(ByIndex):
    """Residual resampling: `Residual()`."""

    def ancestors(self, key, log_weights, num: int):
        given, rest = expected(log_weights, num)
        ends = jnp.cumsum(given)
        drawn = independent(key, jnp.log(rest), num)
        return jnp.where(jnp.arange(num) < ends[-1], repeated(ends, num), drawn)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        key_which, key_rest = jax.random.split(key)
        given, rest = expected(log_weights, num)
        ends = jnp.cumsum(given)
        ancestors = self.ancestors(key_rest, log_weights, num)
        # The pinned slot is one of those given to it, or one of those drawn, which then was drawn to be it.
        free = num - ends[-1]
        drawn_to_pin = free * rest[pin] / jnp.maximum(jnp.sum(rest), jnp.finfo(rest.dtype).tiny)
        is_given = jax.random.uniform(key_which, (), rest.dtype) * (given[pin] + drawn_to_pin) < given[pin]
        slot = jnp.where(is_given, ends[pin] - 1, ends[-1])
        return in_front(pin, ancestors, jnp.clip(slot, 0, num - 1))
