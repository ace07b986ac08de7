"""Rungs for a surrogate of the likelihood: a program with data, cheap where the true one is costly. `correct` climbs them.

| rung                  | what it does                                                       | true calls                   |
|-----------------------|--------------------------------------------------------------------|------------------------------|
| `Pilot`, always first | finds the power of the surrogate that the truth agrees with        | 32                           |
| `ByPower`             | weighs draws of prior x surrogate^power, and of lower powers       | 1.9 x ess / the pilot's share |
| `ByPowerTempering`    | goes from there to the truth; particles move by delayed acceptance | `moves` a stage and particle |
| `ByDelayedAcceptance` | chains on the surrogate; the truth answers for each proposal       | 1 a step                     |

Such a surrogate has a density known up to a constant, and cannot be drawn from: its powers can (see `powered.py`). The pilot
takes a few draws of every power, asks the truth there once, and judges each power by all of them, as draws of the mixture of
all powers (Owen and Zhou, JASA 95, 2000; Veach and Guibas, SIGGRAPH 1995): what importance weights to power b would leave of
the effective sample size,

    share(b) = (sum a w)^2 / (sum a  sum a w^2),    a = pi_b / mixture,  w = posterior / pi_b .

The truth is asked for values, and never for a gradient; the surrogate stays as it is; and `task.calls` is never exceeded.

```python
posterior = sur.correct(program, program.intervene({"voltage": emulator}), key=key, calls=1000)
```
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
from inference.compiled import compiled
from inference.mcmc.adaptation.warmup import open_to_learning
from inference.metrics import Dense
from inference.population import FEW
from inference.smc.delayed_move import DelayedMove
from inference.smc.importance import weighed
from inference.smc.loop import Method
from inference.smc.resample import Resample
from inference.smc.reweight import ByESS, Reweight, Rule
from inference.smc.step import sequence

from .powered import FromPowers, Powered, Powers, Tempered
from .rungs import (
    CHAINS,
    PARTICLES,
    WEIGHTS,
    Among,
    Attempt,
    Rung,
    chained_or_not,
    reached,
    tempered_or_not,
    weighed_or_not,
    whole,
)

FEWEST = 8  # true calls of a pilot: with fewer it says nothing
BLOCK = 64  # numbers of true calls are rounded to it, so that fewer programs are compiled
NEARLY = 0.6  # of the best share
WIDER = 0.2  # of the draws are of lower powers than the best
START = 2  # true calls that a chain begins with: where it is, and its first proposal


class Piloted(NamedTuple):
    """What the pilot found.

    - `cheap`: the surrogate. `powers`: its draws, by power. `shares` (powers,): of the effective sample size, that weights of
      each would leave.
    - `starts`: positions (num, dim) where the truth is known and likely, for chains to begin at.
    - `calls`: true calls that it took.
    """

    cheap: ppl.Target
    powers: tuple[Powered, ...]
    shares: np.ndarray
    starts: jax.Array
    calls: int
    least: float

    @property
    def best(self) -> int:
        """Which power to use: the least that leaves nearly the most. A lower one costs little, and is wider in the tails, of
        which so few calls say nothing."""
        return int(np.argmax(self.shares >= NEARLY * np.max(self.shares)))

    @property
    def power(self) -> float:
        """Its value."""
        return float(self.powers[self.best].power)

    @property
    def share(self) -> float:
        """What it leaves."""
        return float(self.shares[self.best])

    @property
    def refused(self) -> str | None:
        """Why weights are not worth their calls, or None."""
        if self.share >= self.least:
            return None
        return (
            f"of {self.calls} pilot calls no power of the surrogate would leave {self.least:g} of the effective sample size: "
            f"the most is {self.share:.2g}, at power {self.power:g}"
        )

    @property
    def way(self) -> FromPowers:
        """To the truth from draws of the best power, and some of all that are wider, down to the prior where the ladder begins
        there: where the surrogate sees nothing and the truth is, there are draws, and what they weigh is seen."""
        wider = self.best
        shares = [WIDER / wider] * wider + [1.0 - WIDER if wider else 1.0]
        shares += [0.0] * (len(self.powers) - len(shares))
        return FromPowers(self.powers, tuple(shares), self.cheap.program)


class Pilot(eqx.Module):
    """Finds the best power of a surrogate.

    - `num`: true calls. `ladder`: the powers that are tried; 0 is the prior, for where a surrogate is worse.
    - `powers`: how they are drawn, `Tempered()` or `Nested()`.
    - `least`: the share of the effective sample size below which weights are not tried.

    Raises:
        ValueError: for fewer than 8 calls, a ladder that does not end with 1.0.
    """

    num: int = 32
    ladder: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 1.0)
    powers: Powers = Tempered()
    least: float = 0.3

    def __check_init__(self):
        if isinstance(self.num, bool) or not isinstance(self.num, int) or self.num < FEWEST:
            raise ValueError(f"Pilot: num must be a whole number of at least {FEWEST}, got {self.num!r}.")
        if not self.ladder or self.ladder[-1] != 1.0:
            raise ValueError(f"Pilot: ladder must end with 1.0, the surrogate itself, got {self.ladder!r}.")

    def __call__(self, key, target: ppl.Target, cheap: ppl.Target, calls: int | None = None) -> Piloted:
        """Ask the truth at most `calls` times, and not at all where that is fewer than 8."""
        key_powers, key_draws, key_starts = jax.random.split(key, 3)
        powers = self.powers(key_powers, cheap, self.ladder)
        num = self.num if calls is None else min(self.num, calls)
        if num < FEWEST:
            return Piloted(cheap, powers, np.zeros(len(powers)), powers[-1].positions, 0, self.least)
        counts = np.bincount(np.arange(num) % len(powers), minlength=len(powers))
        keys = jax.random.split(key_draws, len(powers))
        parts = [
            x.positions[jax.random.choice(k, len(x.positions), (n,), replace=False)]
            for k, x, n in zip(keys, powers, counts, strict=True)
        ]
        positions = jnp.concatenate(parts)
        truth, prior, likelihood = _densities(target, cheap, positions)
        shares, log_weights = judged(truth, prior, likelihood, powers, counts)
        best = log_weights[int(np.argmax(shares))]
        starts = positions
        if np.isfinite(best).any():
            starts = positions[jax.random.categorical(key_starts, jnp.asarray(best), shape=(num,))]
        return Piloted(cheap, powers, shares, starts, num, self.least)


def judged(truth, prior, likelihood, powers: Sequence[Powered], counts) -> tuple[np.ndarray, np.ndarray]:
    """Shares (powers,), and log weights (powers, num) of the posterior at draws of the mixture, as each power has them.

    - `truth` (num,): log posterior density up to a constant. `prior`, `likelihood` (num,): those of the surrogate.
    - `counts` (powers,): how many of the draws are of each power.
    """
    truth, prior, likelihood = (_numbers(x) for x in (truth, prior, likelihood))
    b, log_z = (np.array([float(getattr(x, name)) for x in powers]) for name in ("power", "log_evidence"))
    power = b[:, None] * np.where(np.isfinite(likelihood), likelihood, 0.0)
    power = np.where(np.isfinite(likelihood) | (b[:, None] == 0.0), power, -np.inf)
    log_pi = prior + power - log_z[:, None]
    log_mixture = np.logaddexp.reduce(log_pi + np.log(np.asarray(counts) / len(truth))[:, None], axis=0)
    with np.errstate(invalid="ignore"):
        log_a, log_all = _numbers(log_pi - log_mixture), _numbers(truth - log_mixture)  # of a, and of a w up to a constant
        log_square = _numbers(2 * truth - log_pi - log_mixture)  # of a w^2
    log_weights = np.broadcast_to(log_all, log_pi.shape)
    shares = [2 * _total(log_all) - _total(a) - _total(square) for a, square in zip(log_a, log_square, strict=True)]
    return np.array([math.exp(min(x, 0.0)) if np.isfinite(x) else 0.0 for x in shares]), log_weights


def _numbers(x: Any) -> np.ndarray:
    """In double precision; what is no number is the log of zero."""
    x = np.asarray(x, np.float64)
    return np.where(np.isnan(x), -np.inf, x)


def _total(log_x: np.ndarray) -> float:
    """log of a sum, infinite where a part of it is, and NaN where there is nothing in it."""
    top = np.max(log_x)
    return float(np.log(np.sum(np.exp(log_x - top))) + top) if np.isfinite(top) else top if top > 0 else math.nan


def _densities(target: ppl.Target, cheap: ppl.Target, positions):
    """At each position the true log density, and prior and likelihood of the surrogate, (num,) each."""

    def both(target, cheap, positions):
        truth = jax.vmap(target.log_density)(positions)
        return truth, *jax.vmap(cheap.log_prior_and_likelihood)(positions)

    return compiled(both, ("correct", "pilot"), target, cheap, positions)(target, cheap, positions)


class AtLeast(Rule):
    """As `rule` has it, but by `step` at least: the number of stages has a bound."""

    step: float
    rule: Rule = ByESS(0.5)

    def __call__(self, population, path):
        level = jnp.maximum(self.rule(population, path), population.level + self.step)
        return jnp.minimum(level, getattr(path, "last", 1.0))


class ByPower(Rung):
    """Weighs draws by the truth, four in five of the best power and the rest of lower ones: 1.9 times as many as the pilot
    says it takes, at most `num`. Used if Pareto's k is at most `k`, and the effective sample size at least `ess`."""

    num: int = 2000
    ess: float = 400.0
    k: float = 0.7

    trusts: ClassVar[bool] = True
    purpose: ClassVar[str] = "weights"
    guarantee: ClassVar[str] = WEIGHTS

    def __check_init__(self):
        whole(self, "num", BLOCK, "k of fewer draws says too little")

    def attempt(self, key, task):
        piloted = _piloted(self, task)
        wanted = BLOCK * math.ceil(1.5 * self.ess / (1.0 - WIDER) / max(piloted.share, 1e-3) / BLOCK)
        num = min(self.num, wanted, len(piloted.powers[0].positions))
        num = num if task.calls is None else min(num, task.calls)
        if num < BLOCK:
            return Attempt(None, f"{num} true calls are left, and it takes {BLOCK} at least", 0, {})
        return weighed_or_not(lambda: weighed(task.target, piloted.way, key=key, num=num), num, self.ess, self.k)


class ByPowerTempering(Rung):
    """Sequential Monte Carlo from the best power to the truth. Used if no effective sample size on the way collapsed,
    particles moved, are worth at least `ess` draws by their families, and the error of log evidence is at most `error`.

    - `particles`: at most; fewer where calls are few. `moves` a stage, each a true call a particle; `steps` of `kernel` on the
      surrogate to a move.
    - `stages`: at most. `to`: how far one goes.

    Not among the rungs that are tried by default: where neither draws of powers nor proposals on the surrogate come, no
    particle tells that the truth is there; from a bad surrogate it has said yes to means five Monte Carlo errors off.
    """

    particles: int = 400
    moves: int = 3
    steps: int = 20
    stages: int = 8
    kernel: inf.Kernel = inf.RandomWalk()
    to: Rule = ByESS(0.5)
    ess: float = 50.0
    error: float = 0.3

    purpose: ClassVar[str] = "moves"
    guarantee: ClassVar[str] = PARTICLES

    def __check_init__(self):
        for name in ("moves", "steps", "stages"):
            whole(self, name, 1, "without it nothing moves")
        whole(self, "particles", BLOCK, "fewer have no spread to learn from")

    def attempt(self, key, task):
        piloted = _piloted(self, task)
        each = 1 + self.stages * self.moves  # true calls that a particle may take
        particles = self.particles if task.calls is None else min(self.particles, task.calls // each)
        particles -= particles % 2
        if particles < BLOCK:
            return Attempt(None, f"{task.calls} true calls are left, and {BLOCK} particles may take {each * BLOCK}", 0, {})
        move = DelayedMove(piloted.cheap, piloted.powers[piloted.best].power, self.moves, self.steps, self.kernel)
        rule = AtLeast(1.001 / self.stages, self.to)
        method = Method(piloted.way, sequence(Reweight(rule), Resample(inf.Systematic()), move))

        def temper():
            return inf.smc(task.target, method, key=key, particles=particles, progress=False, check=False)

        attempt = tempered_or_not(temper, particles, self.ess, self.error, lost=particles * each)
        if attempt.posterior is None or not _died_out(attempt.posterior.run):
            return attempt
        few = f"fewer than {FEW} of the {particles} particles that it began with have descendants"
        return attempt._replace(refused=few if attempt.refused is None else f"{attempt.refused}; {few}")


class ByDelayedAcceptance(Rung):
    """Chains by delayed acceptance, which begin where the rung before came to, or at the pilot's draws. Used if R-hat and
    effective sample sizes are as they should be. There is no evidence.

    - `kernel`: reversible; what it leaves open is learned on the surrogate alone, before. `num` steps of it on the pilot's
      best power propose.
    - `chains`, `draws`, `warmup`: each step of a chain is a true call. Fewer draws where calls are few.
    """

    kernel: inf.Kernel = inf.NUTS()
    num: int = 5
    chains: int = 4
    draws: int = 1000
    warmup: int = 25

    purpose: ClassVar[str] = "chains"
    guarantee: ClassVar[str] = CHAINS

    def __check_init__(self):
        whole(self, "chains", 2, "R-hat compares chains")
        whole(self, "draws", 10, "chains are compared")
        whole(self, "warmup", 0, "steps that are not kept")

    def attempt(self, key, task):
        piloted = _piloted(self, task)
        key_learn, key_run = jax.random.split(key)
        draws = self.draws if task.calls is None else min(self.draws, task.calls // self.chains - START - self.warmup)
        if draws < 10:
            least = self.chains * (START + self.warmup + 10)
            return Attempt(None, f"{task.calls} true calls are left, and {self.chains} chains take {least} at least", 0, {})
        kernel = learned(key_learn, self.kernel, piloted)
        kernel = inf.delayed_acceptance(kernel, piloted.cheap, self.num, power=piloted.power)
        init = Among(piloted.starts if task.before is None else reached(task.target, task.before))
        try:
            posterior = inf.mcmc(
                task.target, kernel, key=key_run, chains=self.chains, draws=draws, warmup=self.warmup, init=init,
                progress=False, check=False,
            )  # fmt: skip
        except ValueError as error:  # no first position where the truth is known: it was sought again and again
            return Attempt(None, str(error), self.chains * START, {})
        ledger = posterior.ledger
        attempt = chained_or_not(posterior, ledger.total - ledger.calls.get("design", 0))  # which `correct` counts itself
        acceptance = float(np.mean(posterior.stats["acceptance_rate"]))
        return attempt._replace(numbers=attempt.numbers | {"acceptance": acceptance})


def _died_out(run: Any) -> bool:
    """Whether families were counted anew on the way: then what lies before is in no error that they tell."""
    begun = run.path.draws.log_evidence_error**2
    return bool(run.population.settled > begun * (1 + 1e-3))


def learned(key, kernel: inf.Kernel, piloted: Piloted) -> inf.Kernel:
    """The kernel with the metric of the surrogate's own draws, and a step size that a run on its best power has found."""
    names = open_to_learning(kernel)
    if not set(names) <= {"step_size", "metric"}:
        return kernel
    draws = piloted.powers[piloted.best].positions
    if "metric" in names:
        spread = jnp.atleast_2d(jnp.cov(draws.T))
        about = jnp.finfo(spread.dtype)
        jitter = 10 * about.eps * jnp.diag(spread) + about.tiny**0.5
        kernel = dataclasses.replace(kernel, metric=Dense.from_covariance(spread + jnp.diag(jitter)))
    if "step_size" in names:
        run = inf.mcmc(
            piloted.cheap, inf.tempered(kernel, piloted.power), key=key, chains=2, draws=2, warmup=150, init=Among(draws),
            progress=False, check=False,
        )  # fmt: skip
        kernel = dataclasses.replace(kernel, step_size=float(np.median(np.asarray(run.stats["step_size"])[:, -1])))
    return kernel


def _piloted(rung: Rung, task) -> Piloted:
    if not isinstance(task.reference, Piloted):
        raise ValueError(
            f"{type(rung).__name__}: it corrects a surrogate of the likelihood, a program with data, but q is "
            f"{type(task.reference).__name__}, which can be drawn. Give rungs such as ByImportance(), ByTempering(), ByMCMC()."
        )
    return task.reference
