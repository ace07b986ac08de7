"""Delayed acceptance: a cheap density proposes, the true one is asked once.

A kernel that is reversible for the surrogate's density s takes the chain from x to y; y is accepted with probability

    min(1, [p(y) / p(x)] / [s(y) / s(x)])

since the kernel, reversible, proposes y from x and x from y in the ratio s(y) : s(x). So the law is that of p, exactly,
however wrong the surrogate; a poor one, or one with tails thinner than p's, costs acceptance. Several steps of a reversible
kernel are reversible too, and take the proposal farther for the one true density. (Christen and Fox, J. Comput. Graph. Stat.
14, 2005; for trajectories on a surrogate: Rasmussen, Bayesian Statistics 7, 2003.)

```python
posterior = inf.mcmc(program, inf.delayed_acceptance(inf.NUTS(), cheap, num=5), key=key)
posterior.ledger                                        # true densities used; what NUTS alone would have used
```
*Several levels.* Delayed acceptance is itself reversible for the density that it answers to, so it may propose in its turn:
the coarsest surrogate to a finer one, that to the truth (multilevel delayed acceptance: Lykkegaard, Dodwell, Fox, Mingas and
Scheichl, SIAM/ASA J. Uncertainty Quantification 11, 2023).

```python
inf.delayed_acceptance(inf.delayed_acceptance(inf.NUTS(), coarse, num=5), fine, num=3)
```
*A power below one.* Where a surrogate is more sure of itself than the truth is, chains reach the truth's tails seldom, and
stay there long. Prior x surrogate likelihood^power is wider: bad surrogates do better at 0.5 or 0.25, good ones lose little.

*Values from the truth, gradients from the surrogate*: the program is asked for its density and nothing else, in warm-up too;
chains begin where they would on the surrogate, and settings are learned there.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

import ppl

from ..kernel import Kernel
from .adaptation.warmup import Adapted
from .barker import Barker
from .combine import Mixture, Repeat, repeat
from .elliptical_slice import EllipticalSlice
from .hmc import HMC
from .independence import Independence
from .members import Combination, begun, checked, info_type, innermost, placed
from .metropolis import State, accept, at
from .nuts import NUTS
from .random_walk import RandomWalk
from .slice import Slice
from .tempering import TemperedTarget

# In detailed balance with the density that they keep. Kernels of a user say so by a class attribute, `reversible = True`.
REVERSIBLE = (Barker, EllipticalSlice, HMC, Independence, NUTS, RandomWalk, Slice)


class DelayedState(NamedTuple):
    """Where the chain is, `log_density` the true one; and the surrogate's kernel where its last proposal left it. That is no
    wrapped state: its density and gradient are another target's."""

    position: jax.Array
    log_density: jax.Array
    proposing: Any
    info: Any


class Proposal(NamedTuple):
    """What several moves on a surrogate come to: the kernel's state and statistics, the new `position`, and the log of what of
    the move the surrogate has already answered for."""

    state: Any
    info: Any
    position: jax.Array
    answered: jax.Array


class DelayedAcceptance(Combination):
    """See `delayed_acceptance`."""

    kernels: tuple[Repeat]
    surrogate: ppl.Target | TemperedTarget

    reversible: ClassVar[bool] = True

    def check(self, target) -> None:
        self.kernels[0].check(self.surrogate)
        cheap, true = (list(zip(t.names, t.is_discrete, strict=True)) for t in (self.surrogate, target))
        if cheap != true:
            raise ValueError(
                "delayed_acceptance: the surrogate must have the same latent sites as the program, of the same shapes and in "
                f"the same order. The program has {_sites(target)}; the surrogate has {_sites(self.surrogate)}."
            )

    def init(self, key, target, position) -> DelayedState:
        (proposing,), (info,) = begun(self.kernels, key, [(self.surrogate, position)])
        point = at(target, position)
        return DelayedState(point.position, point.log_density, proposing, info)

    def assume(self, state: DelayedState, guess) -> DelayedState:
        return state._replace(proposing=self.kernels[0].assume(state.proposing, guess))

    def step(self, key, state: DelayedState, target):
        key_propose, key_accept = jax.random.split(key)
        proposal = proposed(key_propose, self.kernels[0], state.proposing, state.position, self.surrogate)
        new = at(target, proposal.position)
        log_ratio = new.log_density - state.log_density - proposal.answered
        point, rate = accept(key_accept, log_ratio, new, State(state.position, state.log_density))
        info = _report(point, rate, proposal.info, self.kernels[0].num)
        return DelayedState(point.position, point.log_density, proposal.state, proposal.info), info

    def learn(self, i, state: DelayedState, info) -> DelayedState:
        return state._replace(proposing=self.kernels[0].learn(i, state.proposing, state.info))


def delayed_acceptance(kernel: Kernel, surrogate: Any, num: int = 1, *, power: float = 1.0) -> DelayedAcceptance:
    """`num` steps of `kernel` on `surrogate` propose, and the true density, evaluated once, accepts or rejects.

    - `kernel`: reversible: any of the plain kernels (not a cycle), repetitions and mixtures of such, or a delayed acceptance
      on a surrogate that is cheaper still. Step size and metric that it leaves open are learned on the surrogate.
    - `surrogate`: a conditioned program or a `ppl.Target` with the same latent sites, cheaper, and about right.
    - `power`: of the surrogate's likelihood, from 0, the prior alone, to 1.

    Statistics: `acceptance_rate` of the true density; `num_evaluations` of it, always one; and what the kernel reports of
    the surrogate under names that end in `_surrogate`, of which `n_steps` or `num_evaluations` count how often that was asked.

    Raises:
        ValueError: for a kernel that is not known to be reversible, a power that is none. From `mcmc`: for a surrogate with
            other sites.

    Example:
        `inf.delayed_acceptance(inf.NUTS(), program.intervene({"voltage": emulator}), num=5)`

    Reference:
        Christen and Fox, "Markov chain Monte Carlo using an approximation", J. Comput. Graph. Stat. 14, 2005.
    """
    checked("delayed_acceptance", (kernel,))
    culprit = _irreversible(kernel)
    if culprit is not None:
        name = type(culprit).__name__
        raise ValueError(
            f"delayed_acceptance: the proposing kernel must be reversible, and {name} is not known to be. Give one such as "
            "NUTS() or RandomWalk(), or a mixture of them; your own kernel can say so: reversible = True in its class."
        )
    if not 0.0 <= power <= 1.0:
        raise ValueError(f"delayed_acceptance: power must be a number from 0 to 1, got {power!r}.")
    cheap = ppl.as_target(surrogate)
    return DelayedAcceptance((repeat(kernel, num),), cheap if power == 1.0 else TemperedTarget(cheap, power))


def proposed(key, kernel: Kernel, state, position, surrogate) -> Proposal:
    """What `kernel`, reversible for `surrogate`, proposes from `position`, whatever its `state` was made for."""
    here = at(surrogate, position)
    state, info = kernel.step(key, placed(state, here, surrogate), surrogate)
    there = innermost(state)
    return Proposal(state, info, there.position, correction(there, here))


def correction(there, here):
    """log s(there) - log s(here): what of the move the surrogate has already answered for; a scalar."""
    return there.log_density - here.log_density


def _irreversible(kernel) -> Kernel | None:
    """The first kernel inside that is not known to be reversible."""
    if isinstance(kernel, Adapted):
        return _irreversible(kernel.kernel)
    if isinstance(kernel, Mixture | Repeat):
        return next((culprit for culprit in map(_irreversible, kernel.kernels) if culprit is not None), None)
    return None if isinstance(kernel, REVERSIBLE) or getattr(kernel, "reversible", False) else kernel


def _sites(target) -> str:
    return ", ".join(f"'{slot.address}' {slot.shape}" for slot in target.slots)


def _report(point, rate, info, num: int):
    """The statistics of a step; see `delayed_acceptance`. A kernel that does not count asks once in each of `num` moves."""
    named = {"lp": point.log_density, "acceptance_rate": rate, "num_evaluations": jnp.int32(1)}
    told = info._asdict()
    told |= {} if told.keys() & {"n_steps", "num_evaluations"} else {"num_evaluations": jnp.int32(num)}
    named |= {f"{name}_surrogate": x for name, x in told.items()}
    return info_type("DelayedAcceptance", tuple(named))(**named)
