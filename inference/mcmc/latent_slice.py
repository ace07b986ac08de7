"""LatentSlice: slice sampling in all directions at once, in a box whose widths are variables of the chain.

A height is drawn under the density, and where the metric is the identity a box is placed at random around the position. A
point drawn from it that lies below the height shrinks the box towards the position. The law of the widths s is
Gamma(2, 2 / width), independent of the position. Given where the box was placed, a centre at a distance r from the position
in some coordinate, s there is 2 r plus an exponential variable. So nothing is stepped out, and only a rough scale is to be
known; no gradients. (Li and Walker, Comput. Stat. Data Anal. 179, 2023, arXiv:2010.08047.)

```python
posterior = inf.mcmc(program, inf.LatentSlice(), key=key)
```
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..metrics import Metric
from .metropolis import State, at
from .slice import SliceInfo, shrink


class LatentSliceState(NamedTuple):
    """Where the chain is, and the `widths` (dim,) of its box."""

    position: jax.Array
    log_density: jax.Array
    widths: jax.Array


class LatentSlice(Kernel):
    """Latent slice sampling.

    - `metric`: its covariance shapes the box; learned in warm-up where None.
    - `width`: mean width of the box, in standard deviations of the metric. Boxes too wide cost little: each point that is
      missed cuts all sides.
    """

    metric: Metric | None = None
    width: float = 4.0

    learns: ClassVar[tuple[str, ...]] = ("metric",)

    def __check_init__(self):
        if isinstance(self.width, float | int) and not self.width > 0:
            raise ValueError(f"LatentSlice: width must be positive, got {self.width}.")

    def init(self, key, target, position) -> LatentSliceState:
        widths = 0.5 * self.width * jax.random.gamma(key, 2.0, position.shape, position.dtype)
        return LatentSliceState(*at(target, position), widths)

    def step(self, key, state: LatentSliceState, target) -> tuple[LatentSliceState, SliceInfo]:
        if self.metric is None:
            raise ValueError("LatentSlice: the metric must be known to take a step; see inference.adapted.")
        metric, position, dtype = self.metric, state.position, state.position.dtype
        key_height, key_centre, key_width, key_point = jax.random.split(key, 4)
        height = state.log_density - jax.random.exponential(key_height, dtype=dtype)
        centre = state.widths * jax.random.uniform(key_centre, position.shape, dtype, -0.5, 0.5)
        widths = longer(key_width, centre, jnp.asarray(self.width, dtype))

        def along(t):
            new = at(target, position + metric.unwhiten(t))
            return new.log_density, new

        lower, upper = centre - 0.5 * widths, centre + 0.5 * widths
        point, num_drawn = shrink(key_point, along, height, lower, upper, State(position, state.log_density))
        return LatentSliceState(*point, widths), SliceInfo(point.log_density, num_drawn)


def longer(key, centre, width):
    """Widths (dim,) of boxes that have their centre at `centre` (dim,), and 0 inside."""
    return 2.0 * jnp.abs(centre) + 0.5 * width * jax.random.exponential(key, centre.shape, centre.dtype)
