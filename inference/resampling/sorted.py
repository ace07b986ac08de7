"""`Sorted(resampler)`: particles in order of where they are, before they are resampled.

To resample by one uniform number picks points on a line on which the particles lie one after the other. Where neighbours there
are neighbours in space, counts of whole regions are nearly right, and the noise is less (Gerber, Chopin and Whiteley, Ann.
Statist. 47, 2019). And two runs that differ little resample alike, which correlated estimates of a likelihood live on
(Deligiannidis, Doucet and Pitt, JRSSB 80, 2018): see `inf.pmmh`.

```python
particle_filter(resample=Sorted(Systematic(), by=lambda walker: walker.carry))
```
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .resampler import Resampled, Resampler


class Sorted(Resampler):
    """Resample in order of the scalar `by(particle)`: `Sorted(Systematic(), by=lambda walker: walker.carry)`.

    Raises:
        ValueError: where `by` does not give one number.
    """

    resampler: Resampler
    by: Callable[[Any], jax.Array] = eqx.field(static=True)

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        order = self._order(particles)
        sorted_, weights = _taken(particles, order), log_weights[order]
        return _named(order, self.resampler(key, sorted_, weights, num))

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin=0) -> Resampled:
        order = self._order(particles)
        sorted_, weights, pin = _taken(particles, order), log_weights[order], jnp.argmax(order == pin)
        return _named(order, self.resampler.pinned(key, sorted_, weights, num, pin=pin))

    def _order(self, particles) -> jax.Array:
        found = jax.vmap(self.by)(particles)
        if not isinstance(found, jax.Array) or found.ndim != 1:
            shape = jax.tree.map(lambda x: x.shape[1:], found)
            raise ValueError(f"Sorted: by(particle) must be one number, to sort by, but it has shape {shape}.")
        return jnp.argsort(found)


def _taken(particles, order):
    return jax.tree.map(lambda x: x[order], particles)


def _named(order, new: Resampled) -> Resampled:
    """Ancestors by their slots before the sort."""
    return new._replace(ancestors=order[new.ancestors])
