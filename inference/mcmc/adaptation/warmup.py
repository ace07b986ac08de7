"""`adapted(kernel)`: a kernel that learns its step size and metric while it warms up, and then keeps them.

The wrapped kernel's settings travel in the state, so warm-up and sampling are one and the same compiled transition: the
first `warmup` steps also update the settings, later ones do not.

Schedule (after nutpie): the metric follows every draw, from overlapping windows of 10 draws during the first 30% of
warm-up, of 80 draws afterwards; it is frozen for the last 15%, which only polish the step size. The search for the step
size starts afresh at both borders: its averages would otherwise remember a geometry that is gone.

```python
inf.mcmc(program, inf.NUTS(), ...)                                   # adapted by itself
inf.mcmc(program, inf.adapted(inf.NUTS(), target_acceptance=0.95), ...)
```
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ...kernel import Kernel
from ...numerics import select
from .dual_averaging import DualAveraging, DualAveragingState
from .fisher import FisherDiagonal


class Schedule(eqx.Module):
    """How the draws of a warm-up are shared out; fractions of its length, and window sizes in draws."""

    early: float = 0.3
    final: float = 0.15
    early_window: int = 10
    window: int = 80


class AdaptedState(NamedTuple):
    """The wrapped kernel's state and what has been learned so far."""

    inner: Any
    step_size: jax.Array
    averaging: DualAveragingState
    estimate: Any
    count: jax.Array

    @property
    def position(self):
        return self.inner.position


class Adapted(Kernel):
    """See the file's docstring. `warmup` is an array: changing it compiles nothing anew."""

    kernel: Kernel
    warmup: jax.Array | int = 1000
    averaging: DualAveraging = DualAveraging()
    estimator: Any = FisherDiagonal()
    schedule: Schedule = Schedule()
    first_step: float = 1.0

    def with_warmup(self, warmup: int) -> "Adapted":
        """The same with another length of warm-up."""
        return dataclasses.replace(self, warmup=jnp.int32(warmup))

    def init(self, key, target, position) -> AdaptedState:
        inner = self.kernel.init(key, target, position)
        step_size = jnp.asarray(self.first_step, position.dtype)
        return AdaptedState(
            inner,
            step_size,
            self.averaging.init(step_size),
            self.estimator.init(position),
            jnp.int32(-1),
        )

    def step(self, key, state: AdaptedState, target):
        learned = {"step_size": state.step_size, "metric": state.estimate.metric}
        learned = {name: value for name, value in learned.items() if getattr(self.kernel, name) is None}
        kernel = dataclasses.replace(self.kernel, **learned)
        inner, info = kernel.step(key, state.inner, target)
        moved = state._replace(inner=inner, count=state.count + 1)
        warming = (moved.count > 0) & (moved.count <= self.warmup)  # step 0 evaluates the first position
        return lax.cond(warming, lambda s: self._learn(s, info), lambda s: s, moved), info

    def _learn(self, state: AdaptedState, info) -> AdaptedState:
        inner, count = state.inner, state.count
        early = jnp.round(self.schedule.early * self.warmup).astype(jnp.int32)
        last = self.warmup - jnp.round(self.schedule.final * self.warmup).astype(jnp.int32)
        window = jnp.where(count < early, self.schedule.early_window, self.schedule.window)
        window = jnp.where(count + window > last, self.warmup + 1, window)  # too late to fill another window

        averaging = self.averaging.update(state.averaging, info.acceptance_rate)
        estimate = self.estimator.update(state.estimate, inner.position, inner.gradient, window)
        estimate = select(count <= last, estimate, state.estimate)
        afresh = self.averaging.init(self.averaging.average(averaging))
        averaging = select((count == early) | (count == last), afresh, averaging)
        done = count == self.warmup
        step_size = jnp.where(done, self.averaging.average(averaging), self.averaging.step_size(averaging))
        return AdaptedState(inner, step_size, averaging, estimate, count)


def adapted(kernel: Kernel, *, target_acceptance: float = 0.8, estimator=None, schedule=None) -> Adapted:
    """`kernel` with its step size and metric learned in warm-up; one that the kernel gives is kept.

    - `target_acceptance`: mean acceptance to reach; 0.9-0.99 cures most divergences, at a price.
    - `estimator`: how the metric is learned; `FisherDiagonal()` by default.
    - `schedule`: a `Schedule`.
    """
    if not 0 < target_acceptance < 1:
        raise ValueError(f"adapted: target_acceptance must lie between 0 and 1, got {target_acceptance}.")
    return Adapted(
        kernel,
        averaging=DualAveraging(target=target_acceptance),
        estimator=FisherDiagonal() if estimator is None else estimator,
        schedule=Schedule() if schedule is None else schedule,
    )
