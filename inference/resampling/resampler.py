"""Resampler: particles of unequal weights become particles of equal weights.

```python
particles, log_weights, ancestors = Systematic()(key, particles, log_weights)
```

Laws, tested for every member of the registry:

- *Unbiased*: each particle has num * weight / (sum of weights) offspring in the mean, and a particle of weight zero has none.
- *The total stays*: logmeanexp(log_weights) is the same before and after, so evidence survives.
- *Exact totals*: `num` ancestors, and counts right to one, in float32 with a million particles too.
- *Pinned*: `pinned(..., pin=j)` draws from the law of all ancestors given that a slot chosen at random has ancestor j, and
  puts that slot first. This is what conditional SMC needs (Andrieu, Doucet and Holenstein, JRSSB 72, 2010, section 4.3;
  Chopin and Singh, Bernoulli 21, 2015).

(Douc, Cappe and Moulines, "Comparison of resampling schemes for particle filtering", 2005; Chopin and Papaspiliopoulos, "An
Introduction to Sequential Monte Carlo", 2020, chapter 9.)
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp


class Resampled(NamedTuple):
    """Pytree of particles (num, ...), `log_weights` (num,), and `ancestors` (num,): the slots where they come from."""

    particles: Any
    log_weights: jax.Array
    ancestors: jax.Array


class Resampler(eqx.Module):
    """The contract; see the file's docstring. `num` particles come out, by default as many as go in."""

    @abc.abstractmethod
    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        """Resample. Pure, and traceable."""

    @abc.abstractmethod
    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin: Any = 0) -> Resampled:
        """Resample given that slot 0 has ancestor `pin`."""


class ByIndex(Resampler):
    """Resamplers that only choose ancestors. Members give the two laws of these, from one set of weights."""

    @abc.abstractmethod
    def ancestors(self, key, log_weights, num: int) -> jax.Array:
        """(num,) integers, in any order."""

    @abc.abstractmethod
    def ancestors_pinned(self, key, log_weights, num: int, pin) -> jax.Array:
        """(num,) integers, the first of them `pin`."""

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        num = len(log_weights) if num is None else num
        return taken(particles, log_weights, self.ancestors(key, log_weights, num))

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin: Any = 0) -> Resampled:
        num = len(log_weights) if num is None else num
        return taken(particles, log_weights, self.ancestors_pinned(key, log_weights, num, pin))


def taken(particles, log_weights, ancestors) -> Resampled:
    """The particles at `ancestors`, each with the mean weight of all."""
    level = logmeanexp(log_weights)
    new = jax.tree.map(lambda x: x[ancestors], particles)
    return Resampled(new, jnp.full(len(ancestors), level, log_weights.dtype), ancestors)


def relative(log_weights):
    """The weights over the largest of them, (N,), and its logarithm (); where all are zero they are zeros."""
    most = jnp.maximum(jax.lax.stop_gradient(jnp.max(log_weights)), jnp.finfo(log_weights.dtype).min)
    return jnp.exp(log_weights - most), most


def logmeanexp(log_weights):
    """log of the mean weight; -inf where all are zero."""
    weights, most = relative(log_weights)
    return most + jnp.log(jnp.sum(weights) / len(weights))


def normalised(log_weights):
    """The weights, with a sum of one; not numbers where all are zero."""
    weights, _ = relative(log_weights)
    return weights / jnp.sum(weights)


def ess(log_weights):
    """Effective sample size (sum w)^2 / sum w^2, between 1 and N; 0 where all weights are zero (Kong, Liu and Wong, 1994)."""
    weights, _ = relative(log_weights)
    squares = jnp.sum(weights**2)
    return jnp.where(squares > 0, jnp.sum(weights) ** 2 / squares, 0)


def in_front(pin, ancestors, slot):
    """The same ancestors, with that of `slot`, which is `pin`, in front."""
    return ancestors.at[slot].set(ancestors[0]).at[0].set(pin)
