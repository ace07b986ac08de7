"""Head: the last layer of an amortised network. It says how many raw numbers it needs, and makes a distribution of them.

```python
head = Mixture(dim=2, num=5)
raw = head.start() + linear(features)      # (..., head.size): a network ends in a linear map to head.size numbers
law = head.law(raw)                        # a dist.Distribution: batch (...), event head.event_shape
ppl.sample("x", law); law.log_prob(x)      # wherever a distribution can be
```
Laws, of every member (`tests/surrogates/test_heads.py`): any finite raw numbers make a law; its density integrates to one and
is that of its draws; densities and their gradients are finite, in float32 too; `law(start())` is broad, with unit scale.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl import dist

LOG_SCALE = 7.0  # log scales are softly clamped to [-LOG_SCALE, LOG_SCALE]: factors of a thousand about standardised data


class Head(eqx.Module):
    """The contract. Settings are static fields; inexact arrays, where a head has any, are parameters to be learned.

    A member says `size`, `event_shape`, `made` and `start`. Events are scalars, (), or vectors, (dim,).
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many raw numbers a law is made of."""

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Of one value of the law."""

    @abc.abstractmethod
    def made(self, raw: jax.Array) -> dist.Distribution:
        """The law of raw numbers that `law` has checked: (..., size), float32 or float64."""

    @abc.abstractmethod
    def start(self) -> jax.Array:
        """The bias (size,) of a network's last linear map, so that a network of zeros begins as a broad law of unit scale."""

    def law(self, raw: jax.Array) -> dist.Distribution:
        """The distribution that `raw` (..., size) says: batch shape (...), event shape `event_shape`.

        Half-precision numbers are computed with in float32: densities need its digits.

        Raises:
            ValueError: if the last axis of `raw` has not the length `size`.

        Example:
            `Categories(3).law(jnp.zeros((8, 3))).log_prob(0)` is -log 3, eight times.
        """
        raw = jnp.asarray(raw)
        if raw.shape[-1:] != (self.size,):
            raise ValueError(
                f"{type(self).__name__}: a law is made of {self.size} raw numbers, (..., {self.size}), but came an array of "
                f"shape {raw.shape}. End the network in a linear map to head.size numbers."
            )
        return self.made(raw.astype(jnp.promote_types(raw.dtype, jnp.float32)))


def count(owner: str, name: str, value: int, least: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{owner}: {name} must be a whole number of at least {least}, got {value!r}.")


def softly(x: jax.Array, limit: float) -> jax.Array:
    """`x` for small numbers, never outside [-limit, limit], and smooth between."""
    return limit * jnp.tanh(x / limit)


def unsoftly(y: jax.Array, limit: float) -> jax.Array:
    """The `x` of which `softly` makes `y`."""
    return limit * jnp.arctanh(y / limit)
