"""Refill: the same target; particles that took the place of others walk away from the twins they were copied from.

```python
sequence(Resample(Killing()), Refill(Slice(), moves=5), Shrink(0.1))
```
Those that survived a resampling stay where they are: they are draws of the target already, and to move them too would cost
many times what it brings where few died. Metric and step size are learned as by `Move`, from all particles.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..population import Population
from .move import Choice, Move, covariance
from .step import Step, Stepped


class Refill(Step):
    """Take `moves` steps of `kernel` for each dimension of the target, with every particle that was copied since the last
    resampling.

    - `share`: how many to move side by side, as a share of all particles. If more were copied it goes on; if less, some
      that survived are moved as well.

    Statistics: those of `Move`, of those moved last.
    """

    kernel: Kernel
    moves: int = eqx.field(static=True, default=5)
    share: float = eqx.field(static=True, default=0.1)
    recorded: Choice | None = None  # of all stages, where they are not to be made anew

    def __check_init__(self):
        if not (isinstance(self.moves, int) and self.moves >= 1):
            raise ValueError(f"Refill: moves must be a whole number of at least 1, got {self.moves!r}.")
        self._move()

    def check(self, path) -> None:
        self._move().check(path)

    def init(self, population, path):
        return self._move().init(population, path)

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        move, size = self._move(), len(population.log_weights)
        batch = max(1, int(self.share * size))
        copied = population.ancestors != jnp.arange(size)
        first = jnp.argsort(~copied, stable=True)
        choice = move.chosen(population, memory)
        if self.recorded is None and choice.metric is not None:
            choice = choice._replace(metric=covariance(population))  # of all, as only some are moved
        choice = choice._replace(num=choice.num * path.target.dim) if self.recorded is None else choice

        def some(i, particles, choice):
            slots = first[(i * batch + jnp.arange(batch)) % size]
            part = Population.of(jax.tree.map(lambda x: x[slots], particles), level=population.level)
            part, choice, info = move.moved(jax.random.fold_in(key, i), part, path, choice)
            info = {name: x for name, x in info.items() if name != "correlation"}  # of a few particles it says little
            return jax.tree.map(lambda x, new: x.at[slots].set(new), particles, part.particles), choice, info

        info = jax.eval_shape(lambda: some(0, population.particles, choice)[2])
        info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)
        _, particles, choice, info = lax.while_loop(
            lambda carry: (carry[0] == 0) | (carry[0] * batch < jnp.sum(copied)),  # where none was copied, survivors move
            lambda carry: (carry[0] + 1, *some(*carry[:3])),
            (jnp.int32(0), population.particles, choice, info),
        )
        return Stepped(population._replace(particles=particles), move.remembered(memory, choice), info, choice)

    def frozen(self, choices) -> "Refill":
        return dataclasses.replace(self, recorded=choices)

    def _move(self) -> Move:
        return Move(self.kernel, self.moves, self.recorded)
