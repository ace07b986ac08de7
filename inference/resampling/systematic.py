"""Systematic resampling: one uniform number, and N points at equal distances.

Counts differ from their means by less than one. The order of the particles matters to its variance (Carpenter, Clifford and
Fearnhead, 1999; Whitley, "A genetic algorithm tutorial", 1994, as stochastic universal sampling).
"""

import jax
import jax.numpy as jnp

from .cumulated import cumulated, repeated
from .resampler import ByIndex, in_front


class Systematic(ByIndex):
    """Systematic resampling: `Systematic()`. The usual choice in particle filters."""

    def ancestors(self, key, log_weights, num: int):
        heaps = cumulated(log_weights, num)
        return repeated(heaps.below(jax.random.bits(key, (), jnp.uint32)), num)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        heaps = cumulated(log_weights, num)
        slot, part = heaps.inside(key, pin)  # the point of the pinned slot; all others follow from it
        return in_front(pin, repeated(heaps.below(part), num), slot)
