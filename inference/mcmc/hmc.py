"""HMC: Hamiltonian Monte Carlo with trajectories of given length; and MALA, its shortest form.

A momentum is drawn, the leapfrog takes some steps, and the end is accepted with probability min(1, exp(-energy error)): the
leapfrog is reversible and keeps volume, so no other factor enters. The number of steps is uniform within `jitter` of its
mean, lest a trajectory be in tune with a period of the posterior and come back to where it began.
(Duane et al., Phys. Lett. B 195, 1987; Neal, Handbook of MCMC, 2011, arXiv:1206.1901.)

```python
posterior = inf.mcmc(program, inf.HMC(num_steps=16), key=key)
posterior = inf.mcmc(program, inf.mala(), key=key)      # one step: the Metropolis-adjusted Langevin algorithm
```
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ppl._keys import fold

from .. import noise
from ..integrators import Phase, velocity_verlet
from ..kernel import Kernel
from ..metrics import Metric
from ..numerics import finite_or
from .metropolis import GradientState, at_with_gradient, decided
from .nuts import DIVERGENCE


class HMCInfo(NamedTuple):
    """Statistics of one transition, under the names that ArviZ uses; all scalars."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    n_steps: jax.Array
    energy: jax.Array
    diverging: jax.Array


class HMC(Kernel):
    """Hamiltonian Monte Carlo.

    - `num_steps`: mean number of leapfrog steps of a trajectory, one gradient each.
    - `step_size`, `metric`: learned in warm-up where None.
    - `jitter` in [0, 1): how far the number of steps may lie from its mean, as a fraction of it.
    - `target_acceptance`: what warm-up aims at; 0.8, as longer trajectories lose more by a rejection than one step does.
    """

    num_steps: int = eqx.field(static=True, default=16)
    step_size: jax.Array | float | None = None
    metric: Metric | None = None
    jitter: float = eqx.field(static=True, default=0.5)
    target_acceptance: float = eqx.field(static=True, default=0.8, kw_only=True)

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric")
    shares: ClassVar[bool] = True

    def __check_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"HMC: num_steps must be at least 1, got {self.num_steps}.")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"HMC: jitter must lie in [0, 1), got {self.jitter}.")

    def init(self, key, target, position) -> GradientState:
        return at_with_gradient(target, position)

    def step(self, key, state: GradientState, target) -> tuple[GradientState, HMCInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("HMC: step size and metric must be known to take a step; see inference.adapted.")
        position, spread, n_steps = state.position, int(self.jitter * self.num_steps), jnp.int32(self.num_steps)
        normal, exponential = noise.normal_and_exponential(fold(key, 0), position.size, position.dtype)
        if spread:
            n_steps += jax.random.randint(noise.common(fold(key, 1)), (), -spread, spread + 1, jnp.int32)
        momentum, step_size = self.metric.momentum(normal), jnp.asarray(self.step_size, position.dtype)
        state, info, _ = trajectory(exponential, state, momentum, target, self.metric, step_size, n_steps)
        return state, info


def trajectory(exponential, state: GradientState, momentum, target, metric, step_size, n_steps):
    """`n_steps` leapfrog steps from `momentum`, accepted or not by an exponential of rate 1: the state, the statistics, and
    where the trajectory ended (a `Phase`)."""

    def leapfrog(_, carry):
        phase, _ = carry
        return velocity_verlet(phase, target, metric, step_size)

    start = Phase(state.position, momentum, state.gradient)
    end, log_density = lax.fori_loop(0, n_steps, leapfrog, (start, state.log_density))
    new = GradientState(end.position, finite_or(log_density, -jnp.inf), end.gradient)
    energy_0 = metric.kinetic_energy(momentum) - state.log_density
    energy = metric.kinetic_energy(end.momentum) - new.log_density
    (state, kept), rate = decided(exponential, energy_0 - energy, (new, energy), (state, energy_0))
    info = HMCInfo(
        lp=state.log_density,
        acceptance_rate=rate,
        step_size=step_size,
        n_steps=n_steps,
        energy=kept,
        diverging=~(energy - energy_0 < DIVERGENCE),  # NaN diverges
    )
    return state, info, end


def mala(step_size: jax.Array | float | None = None, metric: Metric | None = None) -> HMC:
    """The Metropolis-adjusted Langevin algorithm: HMC of one leapfrog step (Roberts and Tweedie, Bernoulli 2, 1996).

    Warm-up aims at an acceptance of 0.574 (Roberts and Rosenthal, JRSS B 60, 1998).
    """
    return HMC(num_steps=1, step_size=step_size, metric=metric, jitter=0.0, target_acceptance=0.574)
