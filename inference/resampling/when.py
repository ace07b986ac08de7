"""`When(resampler, ess=0.5)`: resample only where the weights have become uneven.

To resample adds noise; it is worth it where it spares work on particles that hardly count (Liu and Chen, JASA 93, 1998).
Evidence estimates stay unbiased, because every step keeps the population properly weighted.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .resampler import Resampled, Resampler, ess, in_front


class When(Resampler):
    """Resample where the effective sample size is at most `ess` of the particles: `When(Systematic(), ess=0.5)`.

    Raises:
        ValueError: for a share that is not between 0 and 1, and for another number of particles.
    """

    resampler: Resampler
    ess: float = 0.5

    def __check_init__(self):
        if not 0 <= self.ess <= 1:
            raise ValueError(f"When: ess must be a share of the particles between 0 and 1, got {self.ess!r}.")

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        return self._decided(
            particles, log_weights, num, jnp.arange(len(log_weights)), lambda: self.resampler(key, particles, log_weights)
        )

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin=0) -> Resampled:
        return self._decided(
            particles, log_weights, num, in_front(pin, jnp.arange(len(log_weights)), pin),
            lambda: self.resampler.pinned(key, particles, log_weights, pin=pin),
        )  # fmt: skip

    def _decided(self, particles, log_weights, num, slots, resample) -> Resampled:
        if num not in (None, len(log_weights)):
            raise ValueError(f"When: {len(log_weights)} particles may be kept as they are, so {num} cannot come out.")

        def keep():
            return Resampled(jax.tree.map(lambda x: x[slots], particles), log_weights[slots], slots)

        def alike(new):  # arange is wider in double precision
            return new._replace(ancestors=new.ancestors.astype(jnp.int32))

        return lax.cond(ess(log_weights) <= self.ess * len(log_weights), lambda: alike(resample()), lambda: alike(keep()))
