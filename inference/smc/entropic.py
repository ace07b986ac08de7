"""Entropic particle filter: early on, flattened weights say who is resampled, so that it is not settled too soon who lives.

```python
posterior = inf.smc(program, entropic_filter(), key=key, particles=1000)
```
Early weights may say little of how a path will end, and resampling makes their verdict final. So particles are drawn by
w^(1/T) with a temperature T >= 1 that falls to one on the way (Giannone et al., "Entropic particle filtering", 2025,
arXiv:2510.05825).

Law: what is drawn by w^(1/T) keeps w / w^(1/T) as its weight, so the population stays properly weighted and the estimate of
the evidence unbiased. (The published method leaves that weight out; its limit is another law.) In words of this package:
reweight, resample, reweight back.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from ..population import Population
from ..resampling import Resampler, Systematic, ess
from .extend import Extend
from .loop import Method
from .program_path import ByStep
from .step import Step, Stepped, sequence


def early(ess_share, progress, until: float = 0.5):
    """The temperature of the paper: (1 - progress) / ess_share, at least 1; and 1 from `until` of the way on.

    - `ess_share`: effective sample size over the number of particles. `progress`: the share of the path that lies behind.
    """
    return jnp.where(progress < until, jnp.maximum(1.0, (1 - progress) / ess_share), 1.0)


class Entropic(Step):
    """Resample by flattened weights, where the effective sample size is at most `ess` of the particles.

    - `resampler`: how. `temperature`: `temperature(ess_share, progress)` returns T >= 1; by default `early`.

    Statistics: `resampled`, whether particles were replaced; `temperature`, one where weights were not flattened.
    """

    resampler: Resampler
    temperature: Callable = eqx.field(static=True, default=early)
    ess: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 <= self.ess <= 1:
            raise ValueError(f"Entropic: ess must be a share of the particles between 0 and 1, got {self.ess!r}.")
        if not callable(self.temperature):
            raise ValueError(
                f"Entropic: temperature must be a function of (ess_share, progress), such as early, got {self.temperature!r}."
            )

    def check(self, path) -> None:
        if path.length is None:
            raise ValueError(
                f"Entropic: the temperature falls along the way, but the length of {type(path).__name__} is not known before "
                "the run. It is for paths of known length, such as a program's loop; else take Resample(...)."
            )

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        size = len(population.log_weights)
        share = ess(population.log_weights) / size
        temperature = self.temperature(share, population.level / path.length)

        def flat():
            """Drawn by flattened weights; what was taken off them is given back to who was drawn."""
            log_kept = flattened_off(population.log_weights, temperature)
            drawn = population.reweighted(-log_kept).resampled(key, self.resampler)
            return drawn.reweighted(log_kept[drawn.ancestors])

        def kept():
            return population._replace(ancestors=jnp.arange(size, dtype=jnp.int32))

        population = lax.cond(share <= self.ess, flat, kept)
        replaced = jnp.any(population.ancestors != jnp.arange(size))
        info: dict[str, Any] = {
            "resampled": replaced.astype(jnp.int32),
            "temperature": jnp.where(share <= self.ess, temperature, 1.0),
        }
        return Stepped(population, (), info)


def flattened_off(log_weights, temperature):
    """log of w / w^(1/T), (N,), as a ratio to the largest; zero where w is."""
    log_kept = (1 - 1 / temperature) * (log_weights - jnp.max(log_weights))
    return jnp.where(log_weights > -jnp.inf, log_kept, 0.0)


def entropic_filter(
    *,
    resampler: Resampler = Systematic(),  # noqa: B008
    temperature: Callable = early,
    ess: float = 0.5,
    proposal: Callable | None = None,
    twist: Any = None,
) -> Method:
    """A particle filter that is slow to decide; see the file's docstring.

    - `resampler`, `temperature`, `ess`: see `Entropic`. `proposal`, `twist`: see `particle_filter`.

    Example:
        `inf.smc(program, entropic_filter(), key=key, particles=1000)`
    """
    return Method(ByStep(proposal, twist), sequence(Entropic(resampler, temperature, ess), Extend()))
