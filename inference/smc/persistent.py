"""Persistent sampling: no population is thrown away; all of them together are weighted for the next level.

The populations of levels b_0 < ... < b_t are draws from their mixture, so a particle x of any of them is weighted by

    w(x) = gamma_next(x) / mean_s( gamma_s(x) / Z_s )

and the mean of the weights estimates Z_next. From all of them N particles are resampled and moved; they are the population of
the next level (Karamanis and Seljak, arXiv:2407.20722; the weights: Veach and Guibas, SIGGRAPH 1995).

```python
posterior = inf.smc(program | data, inf.persistent(), key=key, particles=1000)
```
The Z_s in the weights are estimates: so the evidence is consistent, also with recorded choices, but not unbiased, and the law
of proper weighting holds in the limit of many particles. Its error is that of a smooth function of independent draws at every
level, with what each Z_s hands on to the next; moves that forget where they began make draws nearly independent.
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..population import Population
from ..resampling import Systematic
from ..resampling.resampler import ByIndex
from .history import History, Last
from .loop import Method
from .move import Move, UntilMoved
from .path import Bridge
from .reweight import ByESS, Reweight, Rule
from .step import Step, Stepped
from .tempering_path import Tempering


class Populations(NamedTuple):
    """Those so far, in K blocks of N particles, of which `num` have been filled (the oldest is overwritten).

    - `particles` (K, N, ...), `levels` (K,), `log_z` (K,): a population, its level, and the evidence there.
    - `influences` (K, K, N): how much each particle (block, slot) has moved the log evidence of each block's level.
    - `forgotten`: the part of the variance that is due to blocks overwritten.
    """

    particles: Any
    levels: jax.Array
    log_z: jax.Array
    influences: jax.Array
    num: jax.Array
    forgotten: jax.Array

    @staticmethod
    def of(population: Population, most: int) -> "Populations":
        """One population, at a level of evidence one, and room for more."""
        zeros = jnp.zeros(most, population.log_weights.dtype)
        return Populations(
            jax.tree.map(lambda x: jnp.broadcast_to(x, (most, *x.shape)), population.particles),
            jnp.full(most, population.level),
            zeros,
            jnp.zeros((most, most, len(population.log_weights)), zeros.dtype),
            jnp.int32(1),
            zeros[0],
        )

    @property
    def filled(self):
        return jnp.arange(len(self.levels)) < self.num

    def with_new(self, population: Population, influence) -> "Populations":
        """With one more, whose evidence is the population's."""
        i = self.num % len(self.levels)
        return Populations(
            jax.tree.map(lambda xs, x: xs.at[i].set(x), self.particles, population.particles),
            self.levels.at[i].set(population.level),
            self.log_z.at[i].set(population.log_evidence),
            self.influences.at[:, i].set(0.0).at[i].set(influence.at[i].set(0.0)),
            self.num + 1,
            self.forgotten + variance(influence[i]),
        )


def mixed(path: Bridge, particles, levels, log_z, filled, level) -> tuple[Population, jax.Array]:
    """All particles (K, N, ...) as one population (K x N,) of a level; and the shares (K, K x N) that each level's density has
    in the mixture, at every particle."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), particles)

    def at(level):
        return jax.vmap(path.log_density, in_axes=(0, None))(flat, level)

    parts = jnp.where(filled[:, None], jax.vmap(at)(levels) - log_z[:, None], -jnp.inf)
    mixture = jax.nn.logsumexp(parts, axis=0)
    known = mixture > -jnp.inf
    mixture = jnp.where(known, mixture, 0.0)
    alive = known & jnp.repeat(filled, parts.shape[1] // len(filled))
    log_weights = jnp.where(alive, at(level) - mixture, -jnp.inf)  # less log num, and a mean over all blocks: both cancel
    whole = Population.of(flat, log_weights, level)
    return whole._replace(log_divided=jnp.log(len(filled)).astype(log_weights.dtype)), jnp.exp(parts - mixture)


def variance(influence):
    """Of a log evidence, from influences (..., N) of independent draws."""
    return jnp.sum((influence - influence.mean(axis=-1, keepdims=True)) ** 2)


class Persist(Step):
    """Weight all populations for the next level, resample from them, and move. Statistics: those of `reweight` and `move`;
    `ess` is of all populations together, and may exceed the number of particles."""

    reweight: Reweight
    resampler: ByIndex
    move: Move
    most: int = eqx.field(static=True)

    def check(self, path) -> None:
        self.reweight.check(path)
        self.move.check(path)

    def init(self, population, path):
        return Populations.of(population, self.most), self.move.init(population, path)

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        kept, moving = memory
        key_resample, key_move = jax.random.split(key)
        size = len(population.log_weights)
        whole, shares = mixed(path, kept.particles, kept.levels, kept.log_z, kept.filled, population.level)
        whole, _, info, level = self.reweight(key, whole, (), path)
        weights = whole.weights
        influence = weights.reshape(-1, size) + jnp.tensordot(shares @ weights, kept.influences, 1)
        new = self.resampler(key_resample, whole.particles, whole.log_weights, size)
        new = Population.of(new.particles, level=whole.level)
        moved, moving, more, choice = self.move(key_move, new, moving, path)
        moved = moved._replace(log_divided=whole.log_evidence, settled=kept.forgotten + variance(influence))
        return Stepped(moved, (kept.with_new(moved, influence), moving), info | more, (level, choice))

    def frozen(self, choices) -> "Persist":
        level, choice = choices
        return dataclasses.replace(self, reweight=self.reweight.frozen(level), move=self.move.frozen(choice))


class Together(History):
    """Keep all populations: the posterior is made of them together."""

    def keep(self, population):
        return population.particles, population.level, population.log_evidence

    def whole(self, path, population, kept):
        particles, levels, log_z = jax.tree.map(jnp.asarray, kept)
        found, _ = jax.jit(mixed)(path, particles, levels, log_z, jnp.ones(len(levels), bool), population.level)
        level = found.log_divided + population.log_evidence - found.log_evidence
        return found.as_founders()._replace(log_divided=level, settled=population.log_evidence_error**2)

    def draws(self, path, population, kept, slots):
        return Last().draws(path, population, kept, slots)


def persistent(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    moves: int | UntilMoved = UntilMoved(),  # noqa: B008
    to: Rule = ByESS(0.5),  # noqa: B008
    resample: ByIndex = Systematic(),  # noqa: B008
    reference: ppl.Program | None = None,
    most: int = 32,
) -> Method:
    """Persistent sampling.

    - `kernel`, `moves`, `resample`, `reference`: as for `tempering`.
    - `to`: which level is next, by the effective sample size of all populations together.
    - `most`: how many populations are weighted; of more, the last. It takes most^2 x particles numbers.

    Raises:
        ValueError: for a `most` below 2.
    """
    if most < 2:
        raise ValueError(f"persistent: most must be at least 2 populations, got {most}.")
    return Method(Tempering(reference), Persist(Reweight(to), resample, Move(kernel, moves), most), Together())
