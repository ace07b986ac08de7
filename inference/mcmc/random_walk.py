"""RandomWalk: Metropolis with normal steps; no gradients.

The proposal is Normal(position, step_size^2 * C), C the covariance of the metric; it is symmetric, so the acceptance ratio
is that of the densities. In high dimension the best step is 2.38 / sqrt(dim) posterior standard deviations, which accepts
0.234 of the proposals (Roberts, Gelman and Gilks, Ann. Appl. Probab. 7, 1997); warm-up aims at that.

```python
posterior = inf.mcmc(program, inf.RandomWalk(), key=key, draws=20_000)
```
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from .. import noise
from ..kernel import Kernel
from ..metrics import Metric
from .metropolis import State, at, decided


class RandomWalkInfo(NamedTuple):
    """Statistics of one transition; all scalars."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array


class RandomWalk(Kernel):
    """Random-walk Metropolis. `step_size` and `metric`: learned in warm-up where None."""

    step_size: jax.Array | float | None = None
    metric: Metric | None = None

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric")
    target_acceptance: ClassVar[float] = 0.234
    shares: ClassVar[bool] = True

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, RandomWalkInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("RandomWalk: step size and metric must be known to take a step; see inference.adapted.")
        position = state.position
        step_size = jnp.asarray(self.step_size, position.dtype)
        normal, exponential = noise.normal_and_exponential(key, position.size, position.dtype)
        new = at(target, position + step_size * self.metric.unwhiten(normal))
        state, rate = decided(exponential, new.log_density - state.log_density, new, state)
        return state, RandomWalkInfo(state.log_density, rate, step_size)
