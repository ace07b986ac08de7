"""Cumulated weights as fixed-point numbers, so that a million particles in float32 are counted rightly.

A sum of a million weights in float32 is wrong by a count or so somewhere on the way, and a comparison of it with i / N is
undecided past 2^24. Here particle j expects m_j = num * w_j / sum(w) offspring, and m_0 + ... + m_j is held as a whole number
and 32 binary digits behind the point: adding is exact, and what each m_j was rounded by adds up to some 1e-4 of a count.

```python
heaps = cumulated(log_weights, num)        # on [0, num), particle j owns what lies between heaps j - 1 and j
heaps.below(parts)                         # for each heap: how many points k + parts[k] / 2^32 lie below it
heaps.find(whole, part)                    # who owns a point
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .resampler import normalised

ONE = 2.0**32


class Cumulated(NamedTuple):
    """(N,) each: `whole` (int32) + `part` (uint32) / 2^32, the offspring expected of particles 0 to j; `num` at the end."""

    whole: jax.Array
    part: jax.Array

    def below(self, parts) -> jax.Array:
        """(N,): for each j, how many of the `num` points k + parts[k] / 2^32 lie below heap j. Of one `part` for all: ()."""
        there = parts if jnp.ndim(parts) == 0 else parts[jnp.minimum(self.whole, len(parts) - 1)]
        return self.whole + (self.part > there)

    def find(self, whole, part) -> jax.Array:
        """The owner of each point, (n,): the first j whose heap lies above it. Binary search."""
        most = len(self.whole) - 1
        low, high = jnp.zeros_like(whole), jnp.full_like(whole, most)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) // 2
            above = (self.whole[middle] > whole) | ((self.whole[middle] == whole) & (self.part[middle] > part))
            return jnp.where(above, low, jnp.minimum(middle + 1, most)), jnp.where(above, middle, high)

        return lax.fori_loop(0, max(most, 1).bit_length(), halve, (low, high))[0]

    def inside(self, key, j):
        """A point drawn uniformly from what j owns: (whole, part)."""
        before = j - 1
        start = jnp.where(before < 0, 0, self.whole[before]), jnp.where(before < 0, jnp.uint32(0), self.part[before])
        borrowed = self.part[j] < start[1]
        share = jax.random.uniform(key, (), jnp.result_type(float))
        length = (self.whole[j] - start[0] - borrowed) + (self.part[j] - start[1]) / ONE
        whole, part = _fixed(share * length)
        end = start[1] + part
        return jnp.minimum(start[0] + whole + (end < part), self.whole[-1] - 1), end


def cumulated(log_weights, num: int) -> Cumulated:
    """See the file's docstring. Weights of zero (-inf) own nothing; at least one must not be zero."""
    weights = jnp.exp(log_weights - jnp.max(log_weights))
    whole, part = _fixed(num * (weights / jnp.sum(weights)))
    part = running(part)  # modulo one
    wraps = jnp.concatenate([jnp.zeros(1, bool), part[1:] < part[:-1]])
    whole = running(whole + wraps)
    # the sum in floating point was not quite right: what is too much is taken back in proportion
    excess = (whole[-1] - num) + part[-1] / ONE
    back, back_part = _fixed(jnp.abs(excess) * (whole / num))
    less, more = part - back_part, part + back_part
    whole = jnp.where(excess > 0, whole - back - (less > part), whole + back + (more < part))
    part = jnp.where(excess > 0, less, more)
    last = jnp.arange(len(weights)) >= len(weights) - 1 - jnp.argmax(weights[::-1] > 0)  # that has a weight, and on
    whole = jnp.where(last, num, jnp.clip(whole, 0, num))
    return Cumulated(whole, jnp.where(last | (whole == num), 0, part))


def running(x):
    """Sums of the first, of the first two, ... of whole numbers (N,). On a CPU by a plain loop: it runs as fast as XLA's tree
    of windows, and is compiled in half of the time or less."""

    def in_turn(x):
        def add(total, one):
            return total + one, total + one

        return lax.scan(add, jnp.zeros((), x.dtype), x)[1]

    return lax.platform_dependent(x, cpu=in_turn, default=lambda x: jnp.cumsum(x, dtype=x.dtype))


def _fixed(x):
    """Nonnegative numbers as whole ones and 32 binary digits."""
    whole = jnp.floor(x)
    part = jnp.minimum((x - whole) * ONE, jnp.nextafter(jnp.asarray(ONE, x.dtype), jnp.zeros((), x.dtype)))
    return whole.astype(jnp.int32), part.astype(jnp.uint32)


def expected(log_weights, num: int):
    """Whole and remaining parts of the counts expected of each particle, (N,) each."""
    counts = num * normalised(log_weights)
    whole = jnp.floor(counts)
    return whole.astype(jnp.int32), counts - whole


def repeated(below, num: int) -> jax.Array:
    """(num,) ancestors in order, where `below[j]` of them, (N,), are at most j."""
    ends = jnp.zeros(num + 1, jnp.int32).at[below].add(1, mode="drop")
    return running(ends)[:num]
