"""Scaled: the law of a head in units of its own: what is far from 0, or much larger or smaller than 1, is easily said.

    value = middle + spread * x,   log p(value) = log p(x) - sum log spread

```python
head = Scaled.from_samples(Mixture(dim=2, num=5), positions)      # middle and spread of what is to be said
```
Networks begin with laws of unit scale about 0, and learn fastest if that is about right.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ppl import dist

from .head import Head


class Scaled(Head):
    """See the file's docstring. `size` and `event_shape` are those of `head`.

    - `head`: of real numbers, no discrete ones.
    - `middle`, `spread`: numbers, or one for each coordinate. Not learned.

    Raises:
        ValueError: for numbers that are not finite, spreads that are not positive, and a wrong number of either.

    Example:
        `Scaled(Mixture(None, num=5), 20.0, 3.0)`, laws about 20
    """

    head: Head
    middle: tuple[float, ...] = eqx.field(static=True)
    spread: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, head: Head, middle: Any, spread: Any) -> None:
        size = int(np.prod(head.event_shape))
        for name, value in (("middle", middle), ("spread", spread)):
            if np.size(value) not in (1, size) or not np.isfinite(value).all():
                raise ValueError(f"Scaled: {name} must be a finite number, or {size} of them, got {value!r}.")
        if not (np.asarray(spread) > 0.0).all():
            raise ValueError(f"Scaled: spreads must be positive, got {spread!r}.")
        self.head = head
        self.middle, self.spread = (tuple(map(float, np.broadcast_to(np.ravel(x), (size,)))) for x in (middle, spread))

    @staticmethod
    def from_samples(head: Head, samples: Any) -> "Scaled":
        """With the median of samples (n, *event), and half of what holds two thirds of them, by coordinate; the standard
        deviation, where most are the same."""
        samples = np.reshape(np.asarray(samples, np.float64), (-1, int(np.prod(head.event_shape))))
        low, middle, high = np.quantile(samples, [0.16, 0.5, 0.84], axis=0)
        spread = np.where(high > low, 0.5 * (high - low), samples.std(0))
        return Scaled(head, middle, np.where(spread > 0.0, spread, 1.0))

    @property
    def size(self):
        return self.head.size

    @property
    def event_shape(self):
        return self.head.event_shape

    def made(self, raw):
        law = self.head.law(raw)
        middle, spread = (jnp.reshape(jnp.asarray(x, raw.dtype), self.event_shape) for x in (self.middle, self.spread))
        each = dist.transforms.AffineTransform(middle, spread)
        return dist.TransformedDistribution(law, dist.transforms.IndependentTransform(each, 1) if self.event_shape else each)

    def start(self):
        return self.head.start()
