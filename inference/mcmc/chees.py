"""ChEES: Hamiltonian Monte Carlo whose trajectories are as long as many chains together find best.

All chains take the same number of leapfrog steps, so that no chain waits for another: where chains run side by side, as on an
accelerator or a thousand at a time, that is worth more than trajectories that suit each chain.

How far trajectories go is learned in warm-up, by climbing the *change in the estimator of the expected square*,

    E[ (|x' - E x'|^2 - |x - E x|^2)^2 ] / 4

where x and x' are the begin and the end of a trajectory: it is large where the squared distance from the centre, which
trajectories of half a period bring back to what it was, is renewed. Its derivative by the length t is the mean of
(|x' - E x'|^2 - |x - E x|^2) (x' - E x') . v', where v' is the velocity at the end. Distances are measured where the metric is
the identity, lest the widest coordinate alone be heard. A trajectory has the length h t, where h is a quasi-random
number that all chains share: in (1/2, 3/2), not in (0, 2) as in the paper, for where the metric fits, few lengths are wasted
then. (Hoffman, Radul and Sountsov, AISTATS 2021, PMLR 130.)

```python
posterior = inf.mcmc(program, inf.ChEES(), chains=1024, warmup=200, draws=20, key=key)
```
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..integrators import Phase
from ..kernel import CHAINS, Kernel
from ..metrics import Metric
from ..numerics import finite_or
from .adaptation.pooled import shared
from .hmc import HMCInfo, trajectory
from .metropolis import GradientState, at_with_gradient

FIRST_LENGTH = 1.0  # where the metric is the identity; a standard normal is best explored by some 1.5 to 3
METRIC_FIRST = 0.3  # of the warm-up goes by before the length is learned
LONGEST = 1000  # leapfrog steps of a trajectory
ADAM = optax.adam(lambda n: 0.1 / jnp.sqrt(1.0 + n / 10), b1=0.0, b2=0.95)


class ChEESState(NamedTuple):
    """Where a chain is; and, the same for all chains: the moves made so far, the log of the trajectories' length, the slope of
    the criterion by it at the last move, and Adam's state."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    turn: jax.Array
    log_length: jax.Array
    slope: jax.Array
    adam: Any


class ChEES(Kernel):
    """Hamiltonian Monte Carlo for many chains, of a trajectory length that they learn together.

    - `step_size`, `metric`: learned in warm-up where None, by all chains together.
    - `length`: of a trajectory in the mean, in time: leapfrog steps times step size. Learned in warm-up where None.
    - `jitter` in (0, 1]: how far the length may lie from its mean, as a fraction of it.
    - `warmup`: its length, which `mcmc` fills in.
    - `target_acceptance`: what the mean acceptance of all chains is to reach. 0.8 gives about the step size at which the
      harmonic mean, which the paper takes, is 0.651.

    It looks at all chains, so it runs under `Vectorized()`, the default for it, or `Sharded()`. From some 32 chains on it
    learns well; below, `NUTS` is the better choice.
    """

    step_size: jax.Array | float | None = None
    metric: Metric | None = None
    length: jax.Array | float | None = None
    jitter: float = eqx.field(static=True, default=0.5)
    warmup: jax.Array | int = eqx.field(default=1000, kw_only=True)
    target_acceptance: float = eqx.field(static=True, default=0.8, kw_only=True)

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric", "length")
    learns_itself: ClassVar[tuple[str, ...]] = ("length",)

    @property
    def together(self) -> bool:
        return True

    def with_warmup(self, warmup: int) -> "ChEES":
        """The same with another length of warm-up."""
        return dataclasses.replace(self, warmup=jnp.int32(warmup))

    def init(self, key, target, position) -> ChEESState:
        dtype = position.dtype
        log_length = jnp.log(jnp.asarray(FIRST_LENGTH if self.length is None else self.length, dtype))
        return ChEESState(
            *at_with_gradient(target, position),
            turn=jnp.uint32(0),
            log_length=log_length,
            slope=jnp.zeros((), dtype),
            adam=ADAM.init(log_length),
        )

    def step(self, key, state: ChEESState, target) -> tuple[ChEESState, HMCInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("ChEES: step size and metric must be known to take a step; see inference.adapted.")
        metric, step_size = self.metric, jnp.asarray(self.step_size, state.position.dtype)
        length = jnp.exp(shared(state.log_length))
        part = 1.0 + self.jitter * (2.0 * evenly(shared(state.turn)).astype(length.dtype) - 1.0)
        n_steps = jnp.clip(jnp.ceil(part * length / step_size), 1, LONGEST).astype(jnp.int32)
        key_momentum, key_accept = jax.random.split(key)
        momentum = metric.momentum(jax.random.normal(key_momentum, state.position.shape, state.position.dtype))

        exponential = jax.random.exponential(key_accept, (), state.log_density.dtype)
        old = GradientState(state.position, state.log_density, state.gradient)
        kept, info, end = trajectory(exponential, old, momentum, target, metric, step_size, n_steps)
        slope = part * length * criterion_slope(old.position, end, info.acceptance_rate, metric)
        return state._replace(**kept._asdict(), turn=state.turn + 1, slope=slope), info

    def learn(self, i, state: ChEESState, info) -> ChEESState:
        """Climb, once there is a metric: under another one the same trajectory has another length."""
        if self.length is not None:
            return state
        due = (i > METRIC_FIRST * self.warmup) & (i <= self.warmup)
        return lax.cond(due, lambda s: climb(s, info.step_size), lambda s: s, state)


def climb(state: ChEESState, step_size) -> ChEESState:
    """A longer or a shorter trajectory; not longer where it has LONGEST steps."""
    update, adam = ADAM.update(-state.slope, state.adam)
    log_length = jnp.asarray(optax.apply_updates(state.log_length, update))
    longest = state.log_length > jnp.log(LONGEST * step_size)
    return state._replace(log_length=jnp.where(longest, jnp.minimum(log_length, state.log_length), log_length), adam=adam)


def evenly(turn):
    """Number `turn` of a sequence that fills (0, 1) evenly: multiples of the golden ratio, modulo one."""
    return ((turn + jnp.uint32(1)) * jnp.uint32(2654435769)) * 2.0**-32


def criterion_slope(start, end: Phase, rate, metric):
    """The derivative of the criterion by the time that trajectories take, in units of E |x - E x|^4, a scalar. Those of all
    chains are weighted by the probability that they are accepted; those that ended nowhere are left out."""
    ended = jnp.all(jnp.isfinite(end.position)) & jnp.all(jnp.isfinite(end.momentum)) & (rate > 0)
    weight = jnp.where(ended, rate, 0.0)
    position, momentum = (jnp.where(ended, x, 0.0) for x in (end.position, end.momentum))
    total = lax.psum(weight, CHAINS)
    before = metric.whiten(start - lax.pmean(start, CHAINS))
    after = metric.whiten(position - lax.psum(weight * position, CHAINS) / total)
    change = jnp.vdot(after, after) - jnp.vdot(before, before)
    slope = change * jnp.vdot(after, metric.whiten_gradient(momentum))
    return finite_or(lax.psum(weight * slope, CHAINS) / lax.psum(weight * jnp.vdot(before, before) ** 2, CHAINS), 0.0)
