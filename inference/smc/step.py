"""Step: what a stage of sequential Monte Carlo does, from a properly weighted population to a properly weighted one.

```python
stage = sequence(Reweight(ByESS(0.5)), Resample(Systematic()), Move(RandomWalk(), num=10))
memory = stage.init(population, path)
population, memory, info, choice = stage(key, population, memory, path)
```

Law: where the population is properly weighted for the target of its level on the path, so it is afterwards, for that of its
new level. Steps either keep the target (resample, move) or change it by an exact ratio (reweight, extend); a sequence of steps
is a step.

A step may look at the population before it decides something: how far to go, how to move. Such choices make estimates
consistent, not unbiased; `frozen` gives the step that makes the recorded choices again whatever it sees, and is unbiased
(Beskos, Jasra, Kantas and Thiery, Ann. Appl. Probab. 26, 2016, arXiv:1306.6462).
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..population import Population


class Stepped(NamedTuple):
    """After a step: the population; what the step remembers for the next stage; statistics, a dict of scalars; and what it
    chose, a pytree of arrays."""

    population: Population
    memory: Any = ()
    info: dict[str, jax.Array] = {}
    choice: Any = ()


class Step(eqx.Module):
    """The contract; see the file's docstring."""

    def check(self, path) -> None:
        """Raise ValueError, with a sentence, for a path that this step cannot go. Called once, at the door."""
        return None

    def init(self, population: Population, path) -> Any:
        """What the step remembers before the first stage."""
        return ()

    @abc.abstractmethod
    def __call__(self, key, population: Population, memory, path) -> Stepped:
        """Take the step. Pure, and traceable."""

    def frozen(self, choices) -> "Step":
        """The step that chooses as recorded: `choices` has the stages on the leading axis of every leaf."""
        return self


class Sequence(Step):
    """See `sequence`."""

    steps: tuple[Step, ...]

    def check(self, path) -> None:
        for step in self.steps:
            step.check(path)

    def init(self, population, path):
        return tuple(step.init(population, path) for step in self.steps)

    def __call__(self, key, population, memory, path) -> Stepped:
        memories, info, choices = [], {}, []
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(self.steps)))  # of one call: less to compile
        for i, (step, remembered) in enumerate(zip(self.steps, memory, strict=True)):
            population, remembered, more, choice = step(keys[i], population, remembered, path)
            memories.append(remembered)
            choices.append(choice)
            info |= {(f"{name}_{i}" if name in info else name): x for name, x in more.items()}
        return Stepped(population, tuple(memories), info, tuple(choices))

    def frozen(self, choices) -> "Sequence":
        return Sequence(tuple(step.frozen(choice) for step, choice in zip(self.steps, choices, strict=True)))


def sequence(*steps: Step) -> Sequence:
    """The steps one after the other, as one step. Statistics of one name are numbered from the second on."""
    return Sequence(steps)
