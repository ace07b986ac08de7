"""Dual averaging: a step size whose mean acceptance is a wanted one.

Nesterov's primal-dual averaging as Hoffman and Gelman (JMLR 15, 2014, section 3.2) put it to use: the running mean of
(target - acceptance) drives log(step size) away from a centre, and a weighted average of the iterates is the answer.

```python
averaging = DualAveraging(target=0.8)
state = averaging.init(step_size=1.0)
state = averaging.update(state, acceptance)      # once per transition
averaging.step_size(state), averaging.average(state)
```
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp


class DualAveragingState(NamedTuple):
    """Scalars: the current and the averaged log step size, the running error, the number of updates."""

    log_step: jax.Array
    log_average: jax.Array
    error: jax.Array
    count: jax.Array
    centre: jax.Array


class DualAveraging(eqx.Module):
    """`target` in (0, 1): the acceptance statistic to reach; larger is safer and dearer.

    `delay` (t0) and `decay` (kappa) are the paper's. `rate` (gamma) is 0.07, not 0.05: the iterates swing less, so the
    acceptance at their average lies nearer the target.
    """

    target: float = 0.8
    rate: float = 0.07
    delay: float = 10.0
    decay: float = 0.75

    def init(self, step_size, *, reach: float = 10.0) -> DualAveragingState:
        """Begin at `step_size`; the search is centred at `reach` times that, as steps too large are found out soonest."""
        log_step = jnp.log(step_size)
        zero = jnp.zeros_like(log_step)
        return DualAveragingState(log_step, log_step, zero, zero, log_step + jnp.log(reach).astype(log_step.dtype))

    def update(self, state: DualAveragingState, acceptance) -> DualAveragingState:
        count = state.count + 1
        error = state.error + (self.target - acceptance - state.error) / (count + self.delay)
        log_step = state.centre - jnp.sqrt(count) / self.rate * error
        log_average = state.log_average + count**-self.decay * (log_step - state.log_average)
        return DualAveragingState(log_step, log_average, error, count, state.centre)

    def step_size(self, state: DualAveragingState):
        return jnp.exp(state.log_step)

    def average(self, state: DualAveragingState):
        return jnp.exp(state.log_average)
