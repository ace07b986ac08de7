"""Powered: draws of prior x surrogate likelihood^b, for a ladder of powers b at once, with the log evidence of each.

    pi_b = prior x s^b / Z_b,        0 <= b <= 1

What is drawn from a surrogate and weighed by the truth must be wider than the truth wherever the surrogate is wrong; a bare
surrogate often is not, and a power of it is. Nothing here asks the true program: the whole ladder costs the cheap one alone.

```python
powers = Tempered()(key, ppl.as_target(cheap), (0.25, 0.5, 1.0))      # a tuple of Powered, one for each
powers = Nested()(key, ppl.as_target(cheap), (0.25, 0.5, 1.0))
way = FromPowers(powers, (0.1, 0.1, 0.8), cheap)
posterior = weighed(program, way, key=key, num=400)                   # inference.smc.importance: 400 true calls
```
`Tempered` stops at the powers on its way from the prior. `Nested` has all of them from one run of nested sampling: a dead
particle stands for a prior mass, whatever the power its likelihood is raised to. (Geyer, "Markov chain Monte Carlo maximum
likelihood", 1991, for powers as proposals; Skilling, Bayesian Analysis 1, 2006, for the masses.)
"""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import inference as inf
import ppl
from inference.mcmc import tempering
from inference.smc.loop import Method
from inference.smc.move import UntilMoved
from inference.smc.other_posterior import OtherPosterior
from inference.smc.reweight import ByESS, Rule
from inference.smc.tempering_path import Tempering, TemperingPath
from ppl.choices import Choices
from ppl.interpreters import Assess


class Powered(NamedTuple):
    """Draws of one power, of equal weight.

    - `power`: b. `positions`: (num, dim), on the target. `log_likelihood`: (num,), of the surrogate there, to the first power.
    - `log_evidence`, `log_evidence_error`: of Z_b, scalars.
    - `evaluations`: of the surrogate, for the whole ladder; a move is counted once, whatever its kernel asks.
    """

    power: Any
    positions: Array
    log_likelihood: Array
    log_evidence: Any
    log_evidence_error: Any
    evaluations: int


class Powers(eqx.Module):
    """The contract: how draws of a ladder of powers are made."""

    @abc.abstractmethod
    def __call__(self, key: Array, cheap: ppl.Target, ladder: Sequence[float]) -> tuple[Powered, ...]:
        """One `Powered` for each of the powers, which must increase.

        Raises:
            ValueError: for powers that do not; where the prior cannot be drawn from.
        """


class Tempered(Powers):
    """Adaptive tempering from the prior, to each power in turn, and no further than the last.

    - `particles`: draws of each power. `kernel`, `moves`: as of `inf.tempering`.
    """

    particles: int = 2000
    kernel: inf.Kernel = inf.RandomWalk()
    moves: int | UntilMoved = UntilMoved(0.1, most=50)

    def __call__(self, key, cheap, ladder):
        stops = _increasing(ladder)
        method = inf.tempering(self.kernel, moves=self.moves, to=Stops(jnp.asarray(stops, jnp.result_type(float))))
        method = Method(Tempering(last=jnp.asarray(stops[-1], jnp.result_type(float))), method.stage)
        run = inf.smc(
            cheap, method, key=key, particles=self.particles, collect=_collected, progress=False, check=False,
        )  # fmt: skip
        seen = run.run.collected
        levels = np.asarray(seen.power)
        moves = np.nansum(run.stages["num_moves"])
        cost = int(self.particles * (1 + moves + len(levels) - 1))
        rows = [int(np.flatnonzero(levels >= np.asarray(stop, levels.dtype))[0]) for stop in stops]
        return tuple(jax.tree.map(lambda x, row=row: jnp.asarray(x[row]), seen)._replace(evaluations=cost) for row in rows)


class Nested(Powers):
    """Nested sampling on the surrogate: for evidence, and where tempering meets a phase transition.

    - `particles`, `kernel`, `moves`: as of `inf.nested_sampling`. `draws`: of each power.

    The error of log evidence is that of the whole likelihood, which no power exceeds.
    """

    particles: int = 500
    kernel: inf.Kernel = inf.Slice()
    moves: int = 5
    draws: int = 2000

    def __call__(self, key, cheap, ladder):
        stops = _increasing(ladder)
        run = inf.smc(
            cheap, inf.nested_sampling(self.kernel, moves=self.moves), key=key, particles=self.particles, progress=False,
            check=False,
        )  # fmt: skip
        whole = run.run.population
        height = np.asarray(whole.particles.log_likelihood, np.float64)
        alive = np.asarray(whole.log_weights) > -np.inf
        log_mass = np.where(alive, np.asarray(whole.log_weights, np.float64) - np.where(alive, height, 0.0), -np.inf)
        log_mass += float(whole.log_divided) - np.log(len(height))  # log of the prior mass that each stands for
        cost = evaluations_of(run)
        found = []
        for i, stop in enumerate(stops):
            log_weights = log_mass + np.where(alive, stop * height, 0.0)
            log_evidence = np.logaddexp.reduce(log_weights)
            shares = jnp.asarray(log_weights - log_evidence, whole.log_weights.dtype)
            slots = np.asarray(inf.Systematic().ancestors(jax.random.fold_in(key, i), shares, self.draws))
            positions = whole.particles.position[slots]
            power, heights, log_z, error = (
                jnp.asarray(x, positions.dtype) for x in (stop, height[slots], log_evidence, run.log_evidence_error)
            )
            found.append(Powered(power, positions, heights, log_z, error, cost))
        return tuple(found)


class Stops(Rule):
    """As `rule` has it, but not past any of `levels` (num,) without a stop there."""

    levels: Array
    rule: Rule = ByESS(0.5)

    def __call__(self, population, path):
        place = jnp.searchsorted(self.levels, population.level, side="right")
        following = self.levels[jnp.minimum(place, len(self.levels) - 1)]
        return jnp.minimum(self.rule(population, path), following)


class MixtureOfPowers(eqx.Module):
    """sum_b share_b prior x likelihood^b / Z_b of a program: a density to be weighed against, not one to draw from.

    - `powers`, `log_evidence`, `log_shares`: (m,) each.
    """

    program: ppl.Program
    powers: Array
    log_evidence: Array
    log_shares: Array

    def log_density(self, choices: Choices) -> Array:
        """+log of it, a scalar."""
        run, _ = self.program.interpret(Assess, given=self.program.complete(choices))
        heights = tempering.power(run.total("log_likelihood"), self.powers)
        return run.total("log_prior") + jax.scipy.special.logsumexp(self.log_shares + heights - self.log_evidence)


class FromPowers(eqx.Module):
    """The way from draws of powers to the posterior of the true program: `inf.smc` methods go it, by their `way`.

    What is between is q^(1 - t) x posterior^t, with q the mixture of the powers by `shares`, which sum to one. The evidences
    of the powers are carried on, and their errors.
    """

    powers: tuple[Powered, ...]
    shares: tuple[float, ...] = eqx.field(static=True)
    cheap: ppl.Program

    def of(self, program) -> TemperingPath:
        """The path to the posterior of a conditioned program, or of a `ppl.Target`."""
        b, log_z, error = (
            jnp.stack([jnp.asarray(getattr(x, name), float) for x in self.powers])
            for name in ("power", "log_evidence", "log_evidence_error")
        )
        shares = jnp.asarray(self.shares, b.dtype)
        parts = zip(self.powers, self._counts(), strict=True)
        positions = jnp.concatenate([x.positions[_evenly(len(x.positions), n)] for x, n in parts])
        families = jnp.arange(len(positions), dtype=jnp.int32)
        known = OtherPosterior(positions, families, jnp.zeros((), b.dtype), jnp.sum(shares * error))
        return TemperingPath(ppl.as_target(program), MixtureOfPowers(self.cheap, b, log_z, jnp.log(shares)), known)

    def _counts(self) -> list[int]:
        """How many draws of each, as many in all as each has."""
        ends = np.round(np.cumsum(self.shares) * len(self.powers[0].positions)).astype(int)
        return [int(n) for n in np.diff(ends, prepend=0)]


def _evenly(num: int, few: int) -> np.ndarray:
    """Slots of `few` of `num` draws. Those of nested sampling are in the order of their heights, so not the first ones."""
    return np.floor((np.arange(few) + 0.5) * num / max(few, 1)).astype(int)


def _collected(population) -> Powered:
    """Of a stage, for the ladder."""
    points = population.particles
    return Powered(
        population.level, points.position, points.log_ratio, population.log_evidence, population.log_evidence_error, 0
    )


def evaluations_of(run: Any) -> int:
    """Of a run of nested sampling, the first particles counted; of each of its moves by slices, what they asked."""
    stages, num = run.stages, run.provenance["particles"]
    dead, moves = (np.nan_to_num(np.asarray(stages.get(name, 0), float)) for name in ("num_dead", "num_moves"))
    return int(num + np.sum(dead * moves))


def _increasing(ladder: Sequence[float]) -> tuple[float, ...]:
    stops = tuple(float(b) for b in ladder)
    if not stops or not all(0.0 <= b <= 1.0 for b in stops) or any(b >= c for b, c in zip(stops, stops[1:], strict=False)):
        raise ValueError(f"powers must increase from at least 0 to at most 1, such as (0.25, 0.5, 1.0), got {stops}.")
    return stops
