"""Waste-free sequential Monte Carlo: few particles are resampled, and all states that their chains go through are kept.

At every stage M = N / length ancestors are resampled from N particles, each is moved length - 1 times, and all M x length
states are the new population. Where ordinary SMC throws away all states but the last, so that one never knows how many moves
are enough, here more moves are more particles (Dau and Chopin, JRSS B 84, 2022, arXiv:2011.02328).

```python
posterior = inf.smc(program | data, inf.waste_free(), key=key, particles=5000)        # 100 chains a stage
```
States of one chain are of one family, so the error of the evidence counts chains, not states.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..population import Population
from ..resampling import Systematic
from ..resampling.resampler import ByIndex
from .loop import Method
from .move import Move, correlation
from .reweight import ByESS, Reweight, Rule
from .step import Step, Stepped, sequence
from .tempering_path import Tempering


class Copies(ByIndex):
    """Fewer ancestors, `num` copies of each side by side: `Copies(Systematic(), num=20)`.

    Raises:
        ValueError: for particles that cannot be shared out evenly.
    """

    resampler: ByIndex
    num: int = eqx.field(static=True)

    def ancestors(self, key, log_weights, num: int):
        return jnp.repeat(self.resampler.ancestors(key, log_weights, self._chains(num)), self.num)

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        return jnp.repeat(self.resampler.ancestors_pinned(key, log_weights, self._chains(num), pin), self.num)

    def _chains(self, num: int) -> int:
        if num % self.num or num < 2 * self.num:
            good = max(2, round(num / self.num)) * self.num
            raise ValueError(
                f"waste_free: {num} particles cannot be shared out among two or more chains of {self.num} states. Take "
                f"particles={good}, or another length."
            )
        return num // self.num


class WasteFree(Step):
    """Resample the first states of chains, move them, and keep all states. Statistics: `acceptance_rate`, mean over all moves;
    `step_size`, the last, where it is learned; `num_moves`; `correlation`, the largest over coordinates, between the first and
    the last states: well above 0 the chains are too short, and the error of the evidence may be too small."""

    copies: Copies
    move: Move

    def check(self, path) -> None:
        self.move.check(path)

    def init(self, population, path):
        return self.move.init(population, path)

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        key_resample, key_move = jax.random.split(key)
        choice = self.move.chosen(population, memory)
        population = population.resampled(key_resample, self.copies)
        first = jax.tree.map(lambda x: x[:: self.copies.num], population.particles)
        states, move = self.move.chains(key_move, population._replace(particles=first), path, choice)

        def body(carry, i):
            states, log_step_size, rate = move(i, *carry)
            return (states, log_step_size), (jax.vmap(path.at)(states.position), rate)

        (states, log_step_size), (later, rates) = lax.scan(
            body, (states, choice.log_step_size), jnp.arange(self.copies.num - 1)
        )
        choice = choice._replace(log_step_size=log_step_size)
        info = {"acceptance_rate": jnp.mean(rates), "num_moves": choice.num}
        info["correlation"] = correlation(Population.of(first), first.position, states.position)
        if log_step_size is not None:
            info["step_size"] = jnp.exp(log_step_size)
        population = population._replace(particles=jax.tree.map(side_by_side, first, later))
        return Stepped(population, self.move.remembered(memory, choice), info, choice)

    def frozen(self, choices) -> "WasteFree":
        return dataclasses.replace(self, move=self.move.frozen(choices))


def side_by_side(first, later):
    """The states of all chains, (M x length, ...), a chain after the other: from the first (M, ...) and all later ones
    (length - 1, M, ...)."""
    states = jnp.concatenate([first[None], later])
    return jnp.moveaxis(states, 0, 1).reshape(-1, *first.shape[1:])


def waste_free(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    length: int = 50,
    to: Rule = ByESS(0.5),  # noqa: B008
    resample: ByIndex = Systematic(),  # noqa: B008
    reference: ppl.Program | None = None,
) -> Method:
    """Waste-free tempering.

    - `kernel`: moves the particles; settings that it leaves open are learned from them.
    - `length`: states of a chain; the number of particles must be a multiple. Long enough that
      a chain forgets where it began: `posterior.stages["correlation"]` tells.
    - `to`, `resample`, `reference`: as for `tempering`.

    Raises:
        ValueError: for a length below 2; for particles that cannot be shared out evenly.
    """
    if length < 2:
        raise ValueError(f"waste_free: length must be at least 2, the first state of a chain counted, got {length}.")
    stage = sequence(Reweight(to), WasteFree(Copies(resample, length), Move(kernel, length - 1)))
    return Method(Tempering(reference), stage)
