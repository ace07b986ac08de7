"""LookAhead: particles are weighted by how a few successors of theirs fare, which are then forgotten.

```python
posterior = inf.smc(program, inf.particle_filter(twist=LookAhead(4)), key=key, particles=1000)
```
Where a good beginning comes to a bad end, weights so far mislead. Before particles are resampled, each draws `num` successors
as the filter would, and is twisted by the mean of their weights over the next `steps`: an estimate of

    psi_t(carry) = E[ weight of the next steps given the carry ],

with which weights become as even as looking that far ahead can make them (Lin, Chen and Liu, "Lookahead strategies for
sequential Monte Carlo", Statistical Science 28, 2013; the "look-ahead modulation" of Giannone et al., 2025,
arXiv:2510.05825).

Law: exact whatever the successors were. The estimate is a random number that goes with the particle, and is taken back a step
later, that very number; so it matters to which particles live, and to nothing else.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ppl._keys import Shared, fold

from ..population import is_weight
from ..smc.path import PARTICLES
from ..smc.program_path import ProgramPath, Twist, Walker


class LookAhead(Twist):
    """A random twist for `particle_filter` and the like, of programs with a loop.

    - `num`: successors drawn of each particle. What a step computes of the carry alone (a language model's next log
      probabilities) is computed once for all of them.
    - `steps`: how far they go.
    - `least`: no particle is held to fare worse than this share of the best: that all its successors failed, out of so few,
      does not show that it must.

    For `smc` alone: the least estimate depends on all particles, so in conditional SMC it would need a law of its own.

    Raises:
        ValueError: for numbers below one, a share that is not between 0 and 1, and in conditional SMC.
    """

    num: int = eqx.field(static=True, default=4)
    steps: int = eqx.field(static=True, default=1)
    least: float = eqx.field(static=True, default=0.01)

    def __check_init__(self):
        for name, value in (("num", self.num), ("steps", self.steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"LookAhead: {name} must be a whole number of at least 1, got {value!r}.")
        if not 0 < self.least < 1:
            raise ValueError(
                f"LookAhead: least must lie between 0 and 1, got {self.least!r}. With 0, particles would die of bad luck, and "
                "the answer would be wrong."
            )

    def __call__(self, key, path: ProgramPath, t, walker: Walker) -> jax.Array:
        if not isinstance(key, Shared):
            raise ValueError(
                "LookAhead: it serves smc alone; conditional SMC and particle Gibbs take a twist that is a function, "
                "particle_filter(twist=lambda carry, x, data: ...), or none."
            )
        plain = ProgramPath(path.opened, path.proposal, None)

        def one(number):
            return fares(plain, fold(key, number), t, walker, self.steps)

        found = jax.vmap(one)(jnp.arange(self.num))
        log_mean = jax.nn.logsumexp(found) - jnp.log(self.num)
        best = jax.lax.pmax(log_mean, PARTICLES)
        return jnp.where(jnp.isfinite(best), jnp.maximum(log_mean, best + jnp.log(self.least)), 0.0)


def fares(path: ProgramPath, key, t, walker: Walker, steps: int) -> jax.Array:
    """Log weight of the next `steps` of one successor; those beyond the end of the loop weigh nothing."""
    total = jnp.zeros(())
    for later in range(steps):
        walker, log_weight = path.step(key, jnp.minimum(t + later, path.length - 1), walker)
        total = total + jnp.where(t + later < path.length, log_weight, 0.0)
    return jnp.where(is_weight(total), total, -jnp.inf)
