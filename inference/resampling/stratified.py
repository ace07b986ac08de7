"""Stratified resampling: one uniform number in each of N equal intervals (Kitagawa, JCGS 5, 1996)."""

import jax
import jax.numpy as jnp

from .cumulated import cumulated, repeated
from .resampler import ByIndex, in_front


class Stratified(ByIndex):
    """Stratified resampling: `Stratified()`. Never of more variance than multinomial, whatever the order."""

    def ancestors(self, key, log_weights, num: int):
        return repeated(cumulated(log_weights, num).below(jax.random.bits(key, (num,), jnp.uint32)), num)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        key_pin, key_rest = jax.random.split(key)
        heaps = cumulated(log_weights, num)
        slot, part = heaps.inside(key_pin, pin)
        parts = jax.random.bits(key_rest, (num,), jnp.uint32).at[slot].set(part)
        return in_front(pin, repeated(heaps.below(parts), num), slot)
