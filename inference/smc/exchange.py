"""Exchange: where filters have become too noisy for their parameters to move, they are exchanged for larger ones.

```python
Exchange(WhereUneven(sequence(Resample(Systematic()), Rejuvenate(RandomWalk()))), below=0.1, how=ByPath())
```
The acceptance rate of the moves tells (Chopin, Jacob and Papaspiliopoulos, JRSSB 75, 2013, section 3.6). Parameters come by
a filter with more walkers in one of two ways:

- `ByPath()`: a path is drawn from the old filter, and the new one is that of conditional SMC given this path. Parameters and
  path have their exact law before and after, so weights stay as they are.
- `ByWeight()`: a new filter, and the particle is weighted by new evidence over old. Filters keep nothing, but with noise that
  calls for an exchange few weights stay of any size.
"""

import abc
import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..population import Population
from .history import History, Last, Paths
from .inner_filters import InnerPath
from .room import Learner
from .step import Step, Stepped


class How(eqx.Module):
    """The contract: `history` is what filters must keep for it."""

    history: ClassVar[History]

    @abc.abstractmethod
    def __call__(self, key, population: Population, path: InnerPath) -> Population:
        """The population, properly weighted, with filters of the next size."""


class ByPath(How):
    """By conditional SMC, given a path of the old filter: `ByPath()`."""

    history: ClassVar[History] = Paths()

    def __call__(self, key, population, path):
        old = population.particles
        return population._replace(particles=larger(key, population, path, jax.vmap(path.drawn)(old)))


class ByWeight(How):
    """By a new filter, and a weight: `ByWeight()`."""

    history: ClassVar[History] = Last()

    def __call__(self, key, population, path):
        old = population.particles
        new = larger(key, population, path)
        return population._replace(particles=new).reweighted(new.log_density - old.log_density)


def larger(key, population: Population, path: InnerPath, references=None) -> Learner:
    """The particles with new filters of the next size; see `InnerPath.filtered`."""
    old = population.particles

    def of(size):
        return path.filtered(key, old.position, size + 1, population.level, references)

    return path.by_size(old.size, of, len(path.way.sizes) - 1)


class Exchange(Step):
    """Take the step `after`, and where fewer than `below` of its proposals were accepted, exchange filters for larger ones.
    Statistics: those of the step; `num_walkers` of each filter; `exchanged`, whether they are new.

    Raises:
        ValueError: for a rate that is not between 0 and 1.
    """

    after: Step
    below: float = 0.1
    how: How = ByPath()
    recorded: jax.Array | None = None  # (stage,): whether filters were exchanged, where that is not to be found out anew

    def __check_init__(self):
        if not 0 <= self.below <= 1:
            raise ValueError(f"smc2: below must be an acceptance rate between 0 and 1, got {self.below!r}.")

    def check(self, path) -> None:
        self.after.check(path)

    def init(self, population, path):
        return jnp.int32(0), self.after.init(population, path)

    def __call__(self, key, population, memory, path) -> Stepped:
        key_after, key_exchange = jax.random.split(key)
        stage, remembered = memory
        population, remembered, info, choice = self.after(key_after, population, remembered, path)
        size = population.particles.size[0]
        noisy = (info["acceptance_rate"] < self.below) & (size < len(path.way.sizes) - 1) & ~path.ended(population.level)
        if self.recorded is not None:
            noisy = self.recorded[jnp.minimum(stage, len(self.recorded) - 1)]
        new = population
        if len(path.way.sizes) > 1:
            new = lax.cond(noisy, lambda: self.how(key_exchange, population, path), lambda: population)
        info = info | {
            "num_walkers": jnp.asarray(path.way.sizes)[new.particles.size[0]],
            "exchanged": noisy.astype(jnp.int32),
        }
        return Stepped(new, (stage + 1, remembered), info, (noisy, choice))

    def frozen(self, choices) -> "Exchange":
        noisy, choice = choices
        return dataclasses.replace(self, after=self.after.frozen(choice), recorded=jnp.asarray(np.asarray(noisy)))
