"""Resample: the same target, with weights as a resampler leaves them.

```python
Resample(Systematic())                # at every stage
Resample(When(Systematic(), ess=0.5)) # where weights are uneven
```
"""

import jax.numpy as jnp

from ..population import Population
from ..resampling import Resampler
from .step import Step, Stepped


class Resample(Step):
    """Resample by `resampler`. Statistics: `resampled`, whether particles were replaced."""

    resampler: Resampler

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        population = population.resampled(key, self.resampler)
        replaced = jnp.any(population.ancestors != jnp.arange(len(population.ancestors)))
        return Stepped(population, (), {"resampled": replaced.astype(jnp.int32)})
