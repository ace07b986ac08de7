"""MAMS: the Metropolis-adjusted microcanonical sampler.

The speed is always one; only the direction turns, towards the gradient. A step draws a direction, follows isokinetic dynamics
for a random time, and accepts the end with probability min(1, exp(-energy error)): the integrator is reversible, and its
change of volume is the kinetic part of that error. Where the density is steep the position does not rush, so steps can
be longer than Hamiltonian ones, the more so the more dimensions. (Robnik, Cohn-Gordon and Seljak, arXiv:2503.01707, 2025.)

The number of steps is uniform from 1 to about 2 length / step size, so no length is in tune with the posterior.

```python
posterior = inf.mcmc(program, inf.MAMS(), key=key)
```
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..metrics import Metric
from .metropolis import GradientState, at_with_gradient
from .microcanonical import MOST_COMING, Course, adjusted, at_least_two

CROSSINGS = 1.5  # mean length of a trajectory, in sizes of the posterior (measured; 1 to 2 are nearly as good)


class MAMSState(NamedTuple):
    """Where the chain is, and what warm-up has seen."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    course: Course


class MAMSInfo(NamedTuple):
    """Statistics of one transition; all scalars. `n_steps`: gradients; `length`: mean length of the trajectories."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    length: jax.Array
    n_steps: jax.Array
    diverging: jax.Array


class MAMS(Kernel):
    """The Metropolis-adjusted microcanonical sampler, for two dimensions or more.

    - `step_size`, `metric`, and `length`, the mean length of a trajectory where the metric is the identity: learned in
      warm-up where None.
    - `max_steps`: a trajectory has at most so many steps, one gradient each.
    - `target_acceptance`: what warm-up aims at.

    Raises ValueError for a target of one dimension.
    """

    step_size: jax.Array | float | None = None
    metric: Metric | None = None
    length: jax.Array | float | None = None
    max_steps: int = eqx.field(static=True, default=1000)
    target_acceptance: float = eqx.field(static=True, default=0.8, kw_only=True)

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric", "length")
    learns_itself: ClassVar[tuple[str, ...]] = ("length",)

    def check(self, target) -> None:
        super().check(target)
        at_least_two("MAMS", target)

    def init(self, key, target, position) -> MAMSState:
        coming = self.step_size is None or self.metric is None
        return MAMSState(*at_with_gradient(target, position), Course.begin(position, coming=coming))

    def step(self, key, state: MAMSState, target) -> tuple[MAMSState, MAMSInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("MAMS: step size and metric must be known to take a step; see inference.adapted.")
        metric, course, dtype = self.metric, state.course, state.position.dtype
        step_size = jnp.asarray(self.step_size, dtype)
        length = CROSSINGS * course.size if self.length is None else jnp.asarray(self.length, dtype)
        key_steps, key_move = jax.random.split(key)
        most = jnp.clip(jnp.round(2.0 * length / step_size - 1.0), 1, self.max_steps).astype(jnp.int32)
        n_steps = jax.random.randint(key_steps, (), 1, jnp.where(course.coming, MOST_COMING, most) + 1, jnp.int32)
        kept, went = adjusted(key_move, GradientState(*state[:3]), target, metric, step_size, n_steps, course)
        state = MAMSState(kept.position, kept.log_density, kept.gradient, course)
        return state, MAMSInfo(kept.log_density, went.acceptance_rate, step_size, length, n_steps, went.diverging)

    def learn(self, i, state: MAMSState, info: MAMSInfo) -> MAMSState:
        return state._replace(course=state.course.add(i, state, self.metric))
