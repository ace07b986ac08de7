"""SSP: Srinivasan's sampling process. Counts differ from their means by less than one, and are negatively associated.

Fractions of the expected counts are rounded to 0 or 1 in pairs, so that each pair keeps its sum and each fraction its mean. A
central limit theorem holds whatever the order of the particles, which is not known of systematic resampling (Gerber, Chopin
and Whiteley, Annals of Statistics 47, 2019, arXiv:1707.01845). It goes through the particles one after the other.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .cumulated import expected, repeated
from .resampler import ByIndex, in_front


class SSP(ByIndex):
    """Srinivasan's sampling process: `SSP()`."""

    def ancestors(self, key, log_weights, num: int):
        whole, part = expected(log_weights, num)
        return repeated(jnp.cumsum(_rounded(key, whole, part, num, lambda i, now, then: 1.0)), num)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        key_up, key_rest = jax.random.split(key)
        whole, part = expected(log_weights, num)
        # A slot at random is more often of a particle with one offspring more. Given how its fraction is rounded, the
        # process is steered there: each rounding is weighted by how probable it makes that (Doob's transform).
        up = jax.random.uniform(key_up, (), part.dtype) * (whole[pin] + part[pin]) < part[pin] * (whole[pin] + 1)
        up = jnp.where(whole[pin] == 0, True, up)

        def steer(i, now, then):
            there = jnp.where(up, then / now, (1 - then) / (1 - now))
            return jnp.where(i == pin, there, 1.0)

        below = jnp.cumsum(_rounded(key_rest, whole, part, num, steer))
        return in_front(pin, repeated(below, num), below[pin] - 1)


def _rounded(key, whole, part, num: int, steer):
    """Counts (N,): `whole`, or one more. `steer(i, now, then)`: how much likelier it is to be that the fraction of particle i
    goes from `now` to `then`."""

    def pair(carry, new):
        i, p = carry
        j, q, u = new
        up, down = jnp.minimum(1 - p, q), jnp.minimum(p, 1 - q)
        rise = jnp.where(up + down > 0, down / (up + down), 1.0) * steer(i, p, p + up) * steer(j, q, q - up)
        rises = u < rise
        done = jnp.where(rises, up == 1 - p, down == p)  # the fraction of i is 0 or 1 now; else that of j is
        left = jnp.where(rises, jnp.where(done, q - up, p + up), jnp.where(done, q + down, p - down))
        return (jnp.where(done, j, i), left), (jnp.where(done, i, j), rises == done)

    indices = jnp.arange(len(part))
    draws = jax.random.uniform(key, (len(part) - 1,), part.dtype)
    (last, _), (settled, ups) = lax.scan(pair, (indices[0], part[0]), (indices[1:], part[1:], draws))
    counts = whole.at[settled].add(ups)
    return counts.at[last].add(num - jnp.sum(counts))  # a whole number, but for rounding
