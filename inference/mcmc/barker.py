"""Barker: a gradient-based proposal that forgives a wrong step size.

In the space where the metric is the identity, each coordinate draws a normal increment w and keeps its sign with
probability logistic(w * slope), slope the gradient along it, else turns it round. Unlike MALA's drift this cannot overshoot,
however steep the density. The proposal's density is 2 Normal(w) logistic(w * slope); there and back the normals cancel:

    log_ratio = log p(new) - log p(old) + sum [log logistic(-w * slope_new) - log logistic(w * slope_old)]

(Livingstone and Zanella, JRSS B 84, 2022, arXiv:1908.11812; acceptance of about 0.4 is best: Vogrinc, Livingstone and
Zanella, Biometrika 110, 2023.)

```python
posterior = inf.mcmc(program, inf.Barker(), key=key)
```
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..metrics import Metric
from .metropolis import GradientState, accept, at_with_gradient


class BarkerInfo(NamedTuple):
    """Statistics of one transition; all scalars. `n_steps`: gradients taken, always one."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    n_steps: jax.Array


class Barker(Kernel):
    """The Barker proposal, accepted or rejected. `step_size` and `metric`: learned in warm-up where None."""

    step_size: jax.Array | float | None = None
    metric: Metric | None = None

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric")
    target_acceptance: ClassVar[float] = 0.4

    def init(self, key, target, position) -> GradientState:
        return at_with_gradient(target, position)

    def step(self, key, state: GradientState, target) -> tuple[GradientState, BarkerInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("Barker: step size and metric must be known to take a step; see inference.adapted.")
        metric, step_size = self.metric, jnp.asarray(self.step_size, state.position.dtype)
        key_size, key_sign, key_accept = jax.random.split(key, 3)
        increment = step_size * jax.random.normal(key_size, state.position.shape, step_size.dtype)
        slope = metric.whiten_gradient(state.gradient)
        keep = jax.random.logistic(key_sign, increment.shape, increment.dtype) < increment * slope
        increment = jnp.where(keep, increment, -increment)
        new = at_with_gradient(target, state.position + metric.unwhiten(increment))
        log_ratio = new.log_density - state.log_density
        log_ratio += back_and_forth(increment, slope, metric.whiten_gradient(new.gradient))
        state, rate = accept(key_accept, log_ratio, new, state)
        return state, BarkerInfo(state.log_density, rate, step_size, jnp.int32(1))


def back_and_forth(increment, slope, slope_new):
    """log q(old | new) - log q(new | old), a scalar, for an `increment` (dim,) between points of these slopes (dim,)."""
    return jnp.sum(jax.nn.log_sigmoid(-increment * slope_new) - jax.nn.log_sigmoid(increment * slope))
