"""Annealed importance sampling: every particle goes its own way from the prior to the posterior, and brings a weight.

```python
levels = jnp.linspace(0, 1, 101)[1:] ** 3
posterior = inf.smc(program | data, inf.annealed_importance(inf.HMC(num_steps=4), levels), key=key, particles=1000)
```
Particles are never resampled, and so their weights are independent (Neal, Statistics and Computing 11, 2001). Were they all to
move by what they teach together, the estimate would be off by more than its error: who has drifted from the rest would go on
by a metric that it made itself. So each half of them learns from the other. What is left of this (the error is some 20 % too
small where the effective sample size is a few hundred) is gone with recorded choices, `posterior.run.frozen()`.
"""

import jax

import ppl

from ..kernel import Kernel
from ..population import Population
from .loop import Method
from .move import Move
from .reweight import Ladder, Reweight
from .step import Step, Stepped, sequence
from .tempering_path import Tempering


class MoveHalves(Step):
    """Two halves of the particles (even and odd slots) take their moves, each with what the other half teaches. Statistics:
    those of the moves, the means of the two halves."""

    moves: tuple[Move, Move]

    def check(self, path) -> None:
        self.moves[0].check(path)

    def init(self, population, path):
        return tuple(move.init(population, path) for move in self.moves)

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        halves = [_half(population, i) for i in (0, 1)]
        news = []
        for i, move in enumerate(self.moves):
            choice = move.chosen(halves[1 - i], memory[i])
            news.append(move.moved(jax.random.fold_in(key, i), halves[i], path, choice))
        particles = jax.tree.map(
            lambda x, a, b: x.at[0::2].set(a).at[1::2].set(b), population.particles, *(n[0].particles for n in news)
        )
        choices = tuple(new[1] for new in news)
        memory = tuple(move.remembered(m, choice) for move, m, choice in zip(self.moves, memory, choices[::-1], strict=True))
        info = jax.tree.map(lambda a, b: ((a + b) / 2).astype(a.dtype), *(new[2] for new in news))
        return Stepped(population._replace(particles=particles), memory, info, choices)

    def frozen(self, choices) -> "MoveHalves":
        even, odd = (move.frozen(choice) for move, choice in zip(self.moves, choices, strict=True))
        return MoveHalves((even, odd))


def _half(population: Population, i: int) -> Population:
    particles, log_weights = jax.tree.map(lambda x: x[i::2], (population.particles, population.log_weights))
    return Population.of(particles, log_weights, population.level)


def annealed_importance(kernel: Kernel, levels: jax.Array, *, moves: int = 1, reference: ppl.Program | None = None) -> Method:
    """Annealed importance sampling.

    - `kernel`: moves the particles at every level, `moves` times; settings that it leaves open are learned from them.
    - `levels`: inverse temperatures (num,), increasing to exactly 1; the first ones small, as `linspace ** 3` has them.
    - `reference`: as for `tempering`.

    Raises:
        ValueError: for levels that do not increase, or do not end at 1.
    """
    move = Move(kernel, moves)
    return Method(Tempering(reference), sequence(Reweight(Ladder(levels)), MoveHalves((move, move))))
