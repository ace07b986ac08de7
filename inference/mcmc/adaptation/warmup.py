"""`adapted(kernel)`: a kernel that learns its step size and metric while it warms up, and then keeps them.

The wrapped kernel's settings travel in the state, so warm-up and sampling are one and the same compiled transition; after
the first `warmup` steps nothing more is learned.

Schedule (after nutpie): the metric is made anew every few draws, from overlapping windows of 10 draws during the first
tenth of warm-up, of 80 draws and then ever more afterwards; it is frozen for the last 15%, which only polish the step size.
The search for the step size starts afresh at both borders: its averages would otherwise remember a geometry that is gone.
Where a warm-up is cut short (see `stable.py`) behind its last border, the search starts afresh there.

```python
inf.mcmc(program, inf.NUTS(), ...)                                   # adapted by itself
inf.mcmc(program, inf.adapted(inf.NUTS(), target_acceptance=0.95), ...)
inf.mcmc(program, inf.adapted(inf.NUTS(), estimator=inf.adaptation.FisherDiagonal()), ...)
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
from .covariance import Covariance
from .dual_averaging import DualAveraging, DualAveragingState
from .estimator import Estimator, all_finite
from .fisher import FisherDense, FisherDiagonal
from .low_rank import FisherLowRank
from .pooled import Pooled, pooled_mean, shared

DENSE_LIMIT = 100  # in more dimensions a dense metric costs more per step than it is worth
MOST_SPARED = 0.75  # share of the rejections that curvature may spare: from a target of 0.8 to one of 0.95


class Schedule(eqx.Module):
    """How the draws of a warm-up are shared out: fractions of its length, and window sizes in draws."""

    early: float = 0.1
    final: float = 0.15
    early_window: int = 10
    window: int = 80
    growth: float = 1.5
    final_rate: float = 0.25

    def borders(self, warmup):
        """The step that ends the early phase, and the last one whose draw counts for the metric."""
        early = jnp.round(self.early * warmup).astype(jnp.int32)
        return early, warmup - jnp.round(self.final * warmup).astype(jnp.int32)


class AdaptedState(NamedTuple):
    """The wrapped kernel's state, and what has been learned so far."""

    inner: Any
    step_size: jax.Array
    averaging: DualAveragingState
    estimate: Any
    window: jax.Array  # size of the next window
    polishing: jax.Array  # whether the metric is frozen, and only the step size is still sought

    @property
    def position(self):
        return self.inner.position


class Adapted(Kernel):
    """See the file's docstring. `warmup` is an array: changing it compiles nothing anew."""

    kernel: Kernel
    warmup: jax.Array | int = 1000
    averaging: DualAveraging = DualAveraging()
    estimator: Estimator | None = None
    schedule: Schedule = Schedule()
    first_step: float = 1.0

    @property
    def together(self) -> bool:
        return self.kernel.together

    @property
    def flies(self) -> bool:
        return self.kernel.flies  # when nothing more is to be learned: see `settled`

    def check(self, target) -> None:
        self.kernel.check(target)

    def with_warmup(self, warmup: int) -> "Adapted":
        """The same with another length of warm-up."""
        kernel = getattr(self.kernel, "with_warmup", lambda _: self.kernel)(warmup)
        return dataclasses.replace(self, kernel=kernel, warmup=jnp.int32(warmup))

    def init(self, key, target, position) -> AdaptedState:
        inner = self.kernel.init(key, target, position)
        step_size = jnp.asarray(self.first_step, position.dtype)
        averaging = self.averaging.init(step_size)
        return AdaptedState(
            inner,
            step_size,
            averaging,
            self._estimator(inner).init(position),
            window=jnp.int32(self.schedule.window),
            polishing=jnp.asarray(False),
        )

    def assume(self, state: AdaptedState, guess) -> AdaptedState:
        """Its metric, where it is usable, is the one to begin with."""
        metric = state.estimate.metric.like(guess)
        metric = select(all_finite(metric), metric, state.estimate.metric)
        return state._replace(estimate=state.estimate._replace(metric=metric))

    def step(self, key, state: AdaptedState, target):
        inner, info = self.settled(state).step(key, state.inner, target)
        return state._replace(inner=inner), info

    def settled(self, state: AdaptedState) -> Kernel:
        """The kernel, with what has been learned for it so far."""
        learned = {"step_size": state.step_size, "metric": state.estimate.metric}
        learned = shared(learned) if self.together else learned
        return dataclasses.replace(self.kernel, **{name: learned[name] for name in self._open()})

    def _open(self) -> list[str]:
        """The settings to be learned here: not by the kernel itself."""
        return [name for name in open_to_learning(self.kernel) if name not in self.kernel.learns_itself]

    def learn(self, i, state: AdaptedState, info) -> AdaptedState:
        learning = (i > 0) & (i <= self.warmup)  # step 0 only evaluates the first position
        return lax.cond(learning, lambda s: self._learn(i, s, info), lambda s: s, state)

    def _learn(self, i, state: AdaptedState, info) -> AdaptedState:
        early, last = self.schedule.borders(self.warmup)
        state = state._replace(inner=self.settled(state).learn(i, state.inner, info))
        if "metric" in self._open():
            state = self._learn_metric(i, state, early, last)
        if "step_size" in self._open():
            rate = self.kernel.acceptance(info)
            rate = pooled_mean(rate) if self.together else rate
            averaging = self._averaging(state).update(state.averaging, rate)
            found = self.averaging.average(averaging)
            averaging = select(i == early, self.averaging.init(found), averaging)
            frozen = (i >= last) & ~state.polishing
            averaging = select(frozen, self.averaging.init(found, reach=1.0), averaging)
            done = i == self.warmup
            step_size = jnp.where(done, self.averaging.average(averaging), self.averaging.step_size(averaging))
            state = state._replace(step_size=step_size, averaging=averaging)
        return state._replace(polishing=i >= last)

    def _averaging(self, state: AdaptedState) -> DualAveraging:
        """The search for the step size: with a gentle hand at last, and for more acceptance the more curved the posterior."""
        curvature = self._estimator(state.inner).curvature(state.estimate)
        spared = jnp.minimum(1.5 * curvature, MOST_SPARED)
        target = self.averaging.target + (1.0 - self.averaging.target) * spared
        rate = jnp.where(state.polishing, self.schedule.final_rate, self.averaging.rate)
        return dataclasses.replace(self.averaging, target=target, rate=rate)

    def _learn_metric(self, i, state: AdaptedState, early, last) -> AdaptedState:
        schedule, estimator = self.schedule, self._estimator(state.inner)
        estimate = estimator.add(state.estimate, state.inner)
        grown = jnp.ceil(state.window * schedule.growth).astype(jnp.int32)
        window, next_window = jnp.where(i < early, schedule.early_window, jnp.stack([state.window, grown]))
        full = (estimator.fresh(estimate) >= window) & (i + next_window <= last)  # later, no other window would fill
        estimate = lax.cond(full, lambda e: estimator.switch(e), lambda e: e, estimate)
        due = (i <= last) & (i % estimator.every == 0)
        estimate = lax.cond(due, lambda e: estimator.refit(e), lambda e: e, estimate)
        return state._replace(estimate=estimate, window=jnp.where(full & (i >= early), grown, state.window))

    def _estimator(self, inner) -> Estimator:
        """The estimator given, or the best for such states."""
        if self.estimator is not None:
            return self.estimator
        if not hasattr(inner, "gradient"):
            return Covariance()
        dense = inner.position.size <= DENSE_LIMIT
        if self.together:
            return Pooled(estimator=FisherDense() if dense else FisherDiagonal())
        return FisherDense() if dense else FisherLowRank()


def open_to_learning(kernel: Kernel) -> tuple[str, ...]:
    """The settings that a warm-up has to learn: those that the kernel can learn and was not given."""
    return tuple(name for name in kernel.learns if getattr(kernel, name) is None)


def adapted(
    kernel: Kernel,
    *,
    target_acceptance: float | None = None,
    estimator: Estimator | None = None,
    schedule: Schedule | None = None,
) -> Adapted:
    """`kernel` with its step size and metric learned in warm-up; one that the kernel gives is kept.

    - `target_acceptance`: mean acceptance to reach, by default the kernel's own (0.8 for NUTS); 0.9-0.99 cures most
      divergences, at a price.
    - `estimator`: how the metric is learned. By default `FisherDense()`, above 100 dimensions `FisherLowRank()`, and for
      kernels without gradients `Covariance()`. Kernels that move all chains together learn from all of them, by
      `Pooled(FisherDense())`, above 100 dimensions `Pooled(FisherDiagonal())`.
    - `schedule`: a `Schedule`.
    """
    if not kernel.learns:
        raise ValueError(
            f"adapted: {type(kernel).__name__} has nothing to learn. Of a combination, the members are adapted by themselves."
        )
    target = kernel.target_acceptance if target_acceptance is None else target_acceptance
    if not 0 < target < 1:
        raise ValueError(f"adapted: target_acceptance must lie between 0 and 1, got {target}.")
    return Adapted(
        kernel,
        averaging=DualAveraging(target=target),
        estimator=estimator,
        schedule=Schedule() if schedule is None else schedule,
        first_step=0.1 if kernel.together else 1.0,  # what one chain does wrong at first, all would have to undo
    )
