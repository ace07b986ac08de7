"""Population: weighted particles, and the estimate of an integral that goes with them.

```python
population = Population.of(particles)                        # equal weights, evidence 1
population = population.reweighted(log_increments)           # another target: an exact ratio per particle
population = population.resampled(key, Systematic())         # the same target, equal weights
population.log_evidence, population.log_evidence_error, population.mean(f)
```

Law, *proper weighting*: with gamma the unnormalised target, for every function f,

    E[ exp(log_divided) * mean_i( exp(log_weights_i) f(particles_i) ) ]  =  integral of f d gamma .

Every step maps a properly weighted population to a properly weighted population. Steps of one kind keep the target (resample,
move), those of the other change it by an exact ratio (reweight, extend); so any sequence of steps is right.
(Liu, "Monte Carlo Strategies in Scientific Computing", 2001, section 2.5.4; Naesseth, Lindsten and Schon, ICML 2015.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .resampling import Resampler, ess, logmeanexp


class Population(NamedTuple):
    """N particles.

    - `particles`: a pytree whose leaves lead with (N,).
    - `log_weights`: (N,).
    - `log_divided`: (), what was taken out of all weights when they were made equal.
    - `ancestors`: (N,), the slot in the population before the last resampling.
    - `families`: (N,), the slot in the first population: who descends from whom tells the error of the evidence.
    - `num_resampled`: (), how often particles were replaced.
    """

    particles: Any
    log_weights: jax.Array
    log_divided: jax.Array
    ancestors: jax.Array
    families: jax.Array
    num_resampled: jax.Array

    @staticmethod
    def of(particles, log_weights=None) -> "Population":
        """Independent particles, by default of weight one each: properly weighted for the law they were drawn from."""
        size = jax.tree.leaves(particles)[0].shape[0]
        log_weights = jnp.zeros(size) if log_weights is None else log_weights
        slots = jnp.arange(size, dtype=jnp.int32)
        return Population(particles, log_weights, jnp.zeros((), log_weights.dtype), slots, slots, jnp.int32(0))

    @property
    def log_evidence(self) -> jax.Array:
        """log of the estimated integral of gamma; the estimate itself, not its log, is unbiased."""
        return self.log_divided + logmeanexp(self.log_weights)

    @property
    def log_evidence_error(self) -> jax.Array:
        """Standard error of `log_evidence`, from this one run.

        Two particles drawn by their weights belong to different families with a probability that falls with each
        resampling, and the faster the more the evidence varies (Lee and Whiteley, Biometrika 105, 2018, arXiv:1509.00394,
        equation 10). Derived for multinomial resampling. Where few families are left it says too little: see
        `num_families`.
        """
        size = len(self.families)
        shares = jnp.zeros(size, self.log_weights.dtype).at[self.families].add(self.weights)
        apart = 1 - jnp.sum(shares**2)
        correction = jnp.exp((self.num_resampled + 1) * jnp.log(size / max(size - 1, 1)))
        return jnp.sqrt(jnp.maximum(1 - correction * apart, 0.0))

    @property
    def num_families(self) -> jax.Array:
        """How many particles of the first population have descendants of positive weight."""
        alive = jnp.zeros(len(self.families), bool).at[self.families].max(self.log_weights > -jnp.inf)
        return jnp.sum(alive)

    @property
    def weights(self) -> jax.Array:
        """(N,), their sum is one."""
        return jax.nn.softmax(self.log_weights)

    @property
    def ess(self) -> jax.Array:
        """Effective sample size, 1 to N."""
        return ess(self.log_weights)

    def mean(self, f: Callable[[Any], Any] = lambda x: x) -> Any:
        """The estimated posterior mean of `f(particle)`, a pytree."""
        values = jax.vmap(f)(self.particles)
        return jax.tree.map(lambda x: jnp.tensordot(self.weights.astype(jnp.result_type(x, float)), x, 1), values)

    def reweighted(self, log_increments) -> "Population":
        """Another target: each particle's gamma, new over old, in logs (N,)."""
        return self._replace(log_weights=self.log_weights + log_increments)

    def resampled(self, key, resampler: Resampler) -> "Population":
        """The same target, with weights as `resampler` leaves them."""
        new = resampler(key, self.particles, self.log_weights)
        level = jax.lax.stop_gradient(logmeanexp(new.log_weights))
        return Population(
            new.particles,
            new.log_weights - level,
            self.log_divided + level,
            new.ancestors.astype(jnp.int32),
            self.families[new.ancestors],
            self.num_resampled + jnp.any(new.ancestors != jnp.arange(len(new.ancestors))),
        )
