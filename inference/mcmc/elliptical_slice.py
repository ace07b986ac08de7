"""EllipticalSlice: for a density that is a normal reference times a rest.

A second point of the reference and the position span an ellipse; moving along it leaves the reference as it is, so a slice of
the rest alone, target.log_density - reference.log_density, is drawn from, shrinking towards the position. It has nothing to
tune and always moves: made for a normal prior with a mild likelihood, however correlated the prior. (Murray, Adams and MacKay,
AISTATS 2010, arXiv:1001.0175.) The reference need not be the prior: any normal will do that is nowhere far narrower than the
target (Nishihara, Murray and Adams, JMLR 15, 2014).

```python
inf.EllipticalSlice()                                                        # the prior is a standard normal
inf.EllipticalSlice(mean, inf.metrics.Dense.from_covariance(covariance))     # of unconstrained positions
```
"""

import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..metrics import Diagonal, Metric
from .metropolis import State, at
from .slice import SliceInfo, shrink


class EllipticalSlice(Kernel):
    """Elliptical slice sampling; no gradients, nothing to learn.

    - `mean`: of the reference, (dim,) or a scalar.
    - `metric`: its covariance is that of the reference; `None`: the identity.
    """

    mean: jax.Array | float = 0.0
    metric: Metric | None = None

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, SliceInfo]:
        key_normal, key_height, key_cut, key_point = jax.random.split(key, 4)
        position, dtype = state.position, state.position.dtype
        metric = Diagonal(jnp.ones_like(position)) if self.metric is None else self.metric
        mean = jnp.asarray(self.mean, dtype)
        here = metric.whiten(position - mean)  # the ellipse: cos(t) here + sin(t) there, in the space of the reference
        there = jax.random.normal(key_normal, position.shape, dtype)
        height = rest(state, here) - jax.random.exponential(key_height, dtype=dtype)

        def along(t):
            white = jnp.cos(t) * here + jnp.sin(t) * there
            new = at(target, mean + metric.unwhiten(white))
            return rest(new, white), new

        lower = -2 * jnp.pi * jax.random.uniform(key_cut, dtype=dtype)  # the ellipse is cut open where chance has it
        state, num = shrink(key_point, along, height, lower, lower + 2 * jnp.pi, state)
        return state, SliceInfo(state.log_density, num)


def rest(state: State, white):
    """Log density of the target less that of the reference, whose space has the state at `white` (dim,); a scalar."""
    return state.log_density + 0.5 * jnp.vdot(white, white)
