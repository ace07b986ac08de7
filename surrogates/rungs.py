"""Rungs: ways to make an approximation exact, each with a diagnostic that says whether it worked. `correct` climbs them.

| rung           | what it does                                      | used if                                    |
|----------------|---------------------------------------------------|--------------------------------------------|
| `ByImportance` | weighs independent draws                          | Pareto k at most 0.7, effective size       |
| `ByTempering`  | sequential Monte Carlo from the approximation     | effective sizes, particles moved, evidence |
| `ByMCMC`       | chains that begin where the rungs before came to  | R-hat, effective sizes, divergences        |

A rung of your own is a class with one method:

```python
class ByLaplace(sur.Rung):
    def attempt(self, key, task): return Attempt(posterior, refused=None, evaluations=0, numbers={})
```
(k: Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 25, 2024, arXiv:1507.02646. R-hat: Vehtari, Gelman, Simpson, Carpenter and
Bürkner, Bayesian Analysis 16, 2021, arXiv:1903.08008.)
"""

import abc
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning
from inference.findings import AFTER_A_RUN, OF_PARTICLES, Draws, findings, too_few
from inference.mcmc.initial import Initial
from inference.mcmc.metropolis import at
from inference.smc.move import UntilMoved
from inference.smc.reweight import ByESS, Rule
from ppl.choices import flatten, nest

ENOUGH = 500  # draws, below which k says too little
STARTS = 200  # draws among which chains begin, where no rung came before
WEIGHTS = "Consistent: importance weights by the true density"
PARTICLES = "Consistent: sequential Monte Carlo that ends at the true posterior"
CHAINS = "Exact in the limit: Markov chains that leave the true posterior invariant"


class Task(NamedTuple):
    """What a rung is asked.

    - `target`: what is to be answered for.
    - `reference`: what can be drawn and weighed and is thought to be near; a `Defensive` mixture if possible.
    - `before`: what the last rung that got so far made of it, though it was refused; else None.
    - `calls`: how many more densities of `target` may be asked for; None: any number.
    """

    target: ppl.Target
    reference: Any
    before: inf.Posterior | None
    calls: int | None = None


class Attempt(NamedTuple):
    """What came of it: the `posterior` (None where there is none), why it is `refused` (None: it is not), how many
    `evaluations` of the log density (or its gradient) it took, and the `numbers` that it was judged by."""

    posterior: inf.Posterior | None
    refused: str | None
    evaluations: int
    numbers: dict[str, float]


class Rung(eqx.Module):
    """The contract. `trusts`: whether its diagnostic believes q, and so is not to be asked where a gate says no. `purpose`, of
    its evaluations, and `guarantee`, of what it gives where it is not refused: for the ledger."""

    trusts: ClassVar[bool] = False
    purpose: ClassVar[str] = "correction"
    guarantee: ClassVar[str] = "What the rung's own diagnostic says"

    @abc.abstractmethod
    def attempt(self, key: jax.Array, task: Task) -> Attempt:
        """Try. What fails by bad luck, or by a bad q, is an `Attempt` that is refused; what is wrongly asked raises."""


class ByImportance(Rung):
    """Weigh `num` independent draws. Used if Pareto's k is at most `k`, and the effective sample size at least `ess`."""

    num: int = 4000
    ess: float = 400.0
    k: float = 0.7

    trusts: ClassVar[bool] = True
    purpose: ClassVar[str] = "weights"
    guarantee: ClassVar[str] = WEIGHTS

    def __check_init__(self):
        whole(self, "num", ENOUGH, "k of fewer draws says too little")

    def attempt(self, key, task):
        _drawable(self, task)

        def weigh():
            return inf.importance(task.target, task.reference, key=key, num=self.num)

        return weighed_or_not(weigh, self.num, self.ess, self.k)


class ByTempering(Rung):
    """Sequential Monte Carlo from the reference to the posterior. Used if no effective sample size on the way collapsed,
    particles moved, are worth at least `ess` draws by their families, and the error of log evidence is at most `error`.

    - `kernel`: by default `RandomWalk()`; where sites are discrete `Redrawn`, which draws them anew from the reference.
    - `moves`, `to`: as of `inf.tempering`. `budget`: seconds, or text such as "60s", after which it is given up.
    """

    particles: int = 2000
    kernel: inf.Kernel | None = None
    moves: int | UntilMoved = UntilMoved()
    to: Rule = ByESS(0.5)
    ess: float = 100.0
    error: float = 0.3
    budget: float | str | None = None

    purpose: ClassVar[str] = "moves"
    guarantee: ClassVar[str] = PARTICLES

    def __check_init__(self):
        whole(self, "particles", 2, "each half learns from the other")
        if self.particles % 2:
            raise ValueError(f"ByTempering: particles must be even, each half learns from the other; got {self.particles}.")

    def attempt(self, key, task):
        _drawable(self, task)
        kernel = _kernel(task, inf.RandomWalk()) if self.kernel is None else self.kernel
        method = inf.tempering(kernel, moves=self.moves, to=self.to, reference=task.reference)
        method.stage.check(method.way.of(task.target))

        def temper():
            return inf.smc(
                task.target, method, key=key, particles=self.particles, progress=False, budget=self.budget, check=False
            )

        return tempered_or_not(temper, self.particles, self.ess, self.error)


class ByMCMC(Rung):
    """Markov chains, which begin at draws of the rung before, or at draws of the reference. Used if R-hat and effective sample
    sizes are as they should be, and few transitions diverged. There is no evidence.

    Chains that begin together where q put them do not see a mode that neither q nor the prior found.

    - `kernel`: by default `NUTS()`; where sites are discrete `Redrawn`.
    - `chains`, `draws`, `warmup`, `budget`: as of `inf.mcmc`.
    """

    kernel: inf.Kernel | None = None
    chains: int = 4
    draws: int = 1000
    warmup: int | inf.UntilStable = inf.UntilStable()
    budget: float | str | None = None

    purpose: ClassVar[str] = "chains"
    guarantee: ClassVar[str] = CHAINS

    def __check_init__(self):
        whole(self, "chains", 2, "R-hat compares chains")

    def attempt(self, key, task):
        _drawable(self, task)
        kernel = _kernel(task, inf.NUTS()) if self.kernel is None else self.kernel
        kernel.check(task.target)
        key_start, key_run = jax.random.split(key)
        init = Among(_drawn(key_start, task) if task.before is None else reached(task.target, task.before))
        try:
            posterior = inf.mcmc(
                task.target, kernel, key=key_run, chains=self.chains, draws=self.draws, warmup=self.warmup, init=init,
                progress=False, budget=self.budget, check=False,
            )  # fmt: skip
        except ValueError as error:  # no first position, or the budget was spent
            return Attempt(None, str(error), 0, {})
        made = posterior.provenance
        transitions = self.chains * (made["warmup"] + made["draws"])
        cost = (made["gradients"] or transitions) + int(np.sum(made["gradients_to_start"] or 0))
        return chained_or_not(posterior, cost)


# -- how they are judged -------------------------------------------------------------------------------------------------


def weighed_or_not(weigh: Callable[[], inf.Posterior], num: int, least: float, most: float) -> Attempt:
    """Weights of `num` draws, judged by their effective size and Pareto k."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)  # what it warns of is judged here
            posterior = weigh()
    except ValueError as error:  # the door has checked all but the weights
        return Attempt(None, str(error), num, {})
    k, ess = float(posterior.stages["pareto_k"][-1]), float(posterior.run.population.ess)
    refused = []
    if not k <= most:
        refused.append(f"Pareto k {k:.2f} is above {most:g}")
    if ess < least:
        refused.append(f"effective sample size {ess:.0f} of {num} is below {least:g}")
    return Attempt(posterior, _joined(refused), num, {"pareto_k": k, "ess": ess})


def tempered_or_not(
    temper: Callable[[], inf.Posterior], particles: int, least: float, most: float, lost: int | None = None
) -> Attempt:
    """Particles, judged by what `inf.smc` warns of, by how many draws they are worth, at `least`, and by the error of the
    evidence, at `most`. `lost`: evaluations, where it fails."""
    try:
        posterior = temper()
    except ValueError as why:  # the weights died, or the budget was spent
        return Attempt(None, str(why), particles if lost is None else lost, {})
    stages, known = posterior.stages, posterior.log_evidence_error
    error = math.nan if known is None else known
    moves = int(np.nansum(stages["num_moves"]))
    ess = float(posterior.run.population.ess_of(lambda particle: particle.position))
    refused = [finding.what for finding in findings(posterior, OF_PARTICLES)]
    if ess < least:
        refused.append(f"by their families {particles} particles are worth {ess:.0f} draws, not {least:g}")
    if not error <= most:
        refused.append(f"the error of log evidence is {error:.2g}, not at most {most:g}")
    numbers = {
        "stages": len(stages["ess"]),
        "ess": ess,
        "correlation": float(np.nanmax(stages["correlation"][1:], initial=0.0)),
        "log_evidence_error": float(error),
    }
    return Attempt(posterior, _joined(refused), particles * (1 + moves), numbers)


def chained_or_not(posterior: inf.Posterior, cost: int) -> Attempt:
    """Chains, judged by what `inf.mcmc` warns of, and by their effective sizes."""
    seen = Draws(posterior)
    still = not seen.names or not np.isfinite(seen.rhat).all()
    refused = ["chains did not move at all"] if still else []
    refused += [finding.what for finding in findings(posterior, (*AFTER_A_RUN, too_few))]
    numbers = {} if still else {"rhat": float(seen.rhat.max()), "ess": float(np.min(seen.ess("bulk")))}
    return Attempt(posterior, _joined(refused), cost, numbers)


# -- where they begin ----------------------------------------------------------------------------------------------------


class Among(Initial):
    """A chain begins at one of `positions` (num, dim), by chance."""

    positions: jax.Array

    def position(self, key, target):
        return self.positions[jax.random.randint(key, (), 0, len(self.positions))]


class Positions(eqx.Module):
    """A reference over a target's sites, drawn and weighed as flat positions: a proposal of `inf.Independence`."""

    target: ppl.Target
    reference: Any

    def sample(self, key):
        """A position (dim,)."""
        return self.target.unconstrain(self.reference.simulate(key).choices)

    def log_prob(self, position):
        """Its log density, a scalar."""
        return self.reference.log_density(self.target.constrain(position)) + self.target.log_jacobian(position)


class Redrawn(inf.Kernel):
    """Independence Metropolis whose proposals are draws of a reference, at all sites at once, the discrete ones too."""

    inner: inf.Independence

    @staticmethod
    def of(task: Task) -> "Redrawn":
        """Proposals from the task's reference."""
        return Redrawn(inf.Independence(Positions(task.target, task.reference)))

    def check(self, target):
        """Every site is drawn by the reference, whatever its type."""

    def init(self, key, target, position):
        return at(target, position)

    def step(self, key, state, target):
        return self.inner.step(key, state, target)


def _drawable(rung: Rung, task: Task) -> None:
    if not isinstance(task.reference, ppl.Program | ppl.Generative):
        raise ValueError(
            f"{type(rung).__name__}: q must be one that can be drawn, and this one is a likelihood, known up to a constant. "
            "Give rungs such as ByPower(), ByPowerTempering(), ByDelayedAcceptance()."
        )


def _kernel(task: Task, continuous: inf.Kernel) -> inf.Kernel:
    return Redrawn.of(task) if task.target.is_discrete.any() else continuous


def reached(target: ppl.Target, before: inf.Posterior) -> jax.Array:
    """The positions of its draws, (num, dim)."""
    flat = flatten(before.draws)
    choices = nest(
        {slot.address: np.asarray(flat[slot.address]).reshape(-1, *flat[slot.address].shape[2:]) for slot in target.slots}
    )
    return jax.jit(jax.vmap(lambda target, x: target.unconstrain(x), (None, 0)))(target, choices)


def _drawn(key, task: Task) -> jax.Array:
    """Draws of the reference, (num, dim), those where the density is finite if there are any."""

    def one(key):
        position = task.target.unconstrain(task.reference.simulate(key).choices)
        return position, task.target.log_density(position)

    positions, log_densities = jax.jit(jax.vmap(one))(jax.random.split(key, STARTS))
    finite = np.isfinite(log_densities)
    return positions[finite] if finite.any() else positions


def _joined(refused: list[str]) -> str | None:
    return "; ".join(x.rstrip(".") for x in refused) or None


def whole(rung: Rung, name: str, least: int, why: str) -> None:
    """Raise ValueError, with a sentence, unless the rung's setting `name` is a whole number of at least `least`."""
    value = getattr(rung, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{type(rung).__name__}: {name} must be a whole number of at least {least} ({why}), got {value!r}.")
