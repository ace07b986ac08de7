"""Killing: a particle survives with probability weight / largest weight; in its place comes one drawn from all.

Survivors keep their slots, so that little is copied where weights are nearly equal, and neighbours in time stay together (Del
Moral, "Feynman-Kac Formulae", 2004, section 5.3; conditional form: Karppinen, Singh and Vihola, arXiv:2206.02691).
"""

import jax
import jax.numpy as jnp

from .multinomial import independent
from .resampler import ByIndex, in_front, normalised


class Killing(ByIndex):
    """Killing: `Killing()`. Gives as many particles as it takes.

    Raises:
        ValueError: for another number of particles.
    """

    def ancestors(self, key, log_weights, num: int):
        _as_many(log_weights, num)
        key_survive, key_drawn = jax.random.split(key)
        survives = jax.random.uniform(key_survive, (num,), log_weights.dtype) < _survival(log_weights)
        return jnp.where(survives, jnp.arange(num), independent(key_drawn, log_weights, num))

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        _as_many(log_weights, num)
        key_slot, key_rest = jax.random.split(key)
        # slots are independent: choose the one that has this ancestor, by its probability of it
        killed = (1 - _survival(log_weights)) * normalised(log_weights)[pin]
        here = killed.at[pin].add(_survival(log_weights)[pin])
        slot = jax.random.categorical(key_slot, jnp.log(here))
        return in_front(pin, self.ancestors(key_rest, log_weights, num), slot)


def _survival(log_weights):
    return jnp.exp(log_weights - jnp.max(log_weights))


def _as_many(log_weights, num: int) -> None:
    if num != len(log_weights):
        raise ValueError(
            f"Killing: as many particles come out as go in, but {len(log_weights)} went in and {num} were asked for. Use "
            "Systematic(), for example."
        )
