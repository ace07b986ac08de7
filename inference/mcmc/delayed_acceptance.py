"""Delayed acceptance: a cheap density proposes, the true one is asked once.

A kernel that is reversible for the surrogate's density s takes the chain from x to y; y is accepted with probability

    min(1, [p(y) / p(x)] / [s(y) / s(x)])

since the kernel, reversible, proposes y from x and x from y in the ratio s(y) : s(x). So the law is that of p, exactly,
however wrong the surrogate; a poor one, or one with tails thinner than p's, costs acceptance. Several steps of a reversible
kernel are reversible too, and take the proposal farther for the one true density. (Christen and Fox, J. Comput. Graph. Stat.
14, 2005; for trajectories on a surrogate: Rasmussen, Bayesian Statistics 7, 2003.)

```python
posterior = inf.mcmc(program, inf.delayed_acceptance(inf.NUTS(), cheap_program, num=5), key=key)
```
"""

from typing import Any, NamedTuple

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

# In detailed balance with the density that they keep. Kernels of a user say so by a class attribute, `reversible = True`.
REVERSIBLE = (Barker, EllipticalSlice, HMC, Independence, NUTS, RandomWalk, Slice)


class DelayedState(NamedTuple):
    """Where the chain is, `log_density` the true one; and the surrogate's kernel where its last proposal left it."""

    position: jax.Array
    log_density: jax.Array
    inner: Any
    info: Any


class DelayedAcceptance(Combination):
    """See `delayed_acceptance`."""

    kernels: tuple[Kernel]
    surrogate: ppl.Target

    def check(self, target) -> None:
        self.kernels[0].check(self.surrogate)
        cheap, true = (list(zip(t.names, t.is_discrete, strict=True)) for t in (self.surrogate, target))
        if cheap != true:
            raise ValueError(
                "delayed_acceptance: the surrogate must have the same latent sites as the program, of the same shapes and in "
                f"the same order. The program has {_sites(target)}; the surrogate has {_sites(self.surrogate)}."
            )

    def init(self, key, target, position) -> DelayedState:
        (inner,), (info,) = begun(self.kernels, key, [(self.surrogate, position)])
        point = at(target, position)
        return DelayedState(point.position, point.log_density, inner, info)

    def step(self, key, state: DelayedState, target):
        key_propose, key_accept = jax.random.split(key)
        here = at(self.surrogate, state.position)
        inner, info = self.kernels[0].step(key_propose, placed(state.inner, here, self.surrogate), self.surrogate)
        there = innermost(inner)
        new = at(target, there.position)
        log_ratio = new.log_density - state.log_density - correction(there, here)
        point, rate = accept(key_accept, log_ratio, new, State(state.position, state.log_density))
        return DelayedState(point.position, point.log_density, inner, info), _report(point, rate, info)

    def learn(self, i, state: DelayedState, info) -> DelayedState:
        return state._replace(inner=self.kernels[0].learn(i, state.inner, state.info))


def delayed_acceptance(kernel: Kernel, surrogate: Any, num: int = 1) -> DelayedAcceptance:
    """`num` steps of `kernel` on `surrogate` propose, and the true density, evaluated once, accepts or rejects.

    - `kernel`: reversible: any of the plain kernels (not a cycle), repetitions and mixtures of such. Step size and metric that
      it leaves open are learned on the surrogate.
    - `surrogate`: a conditioned program or a `ppl.Target` with the same latent sites, cheaper, and about right.

    Statistics: `acceptance_rate` of the true density; `num_evaluations` of it, always one; and what the kernel reports of
    the surrogate under names that end in `_surrogate`.

    Raises:
        ValueError: for a kernel that is not known to be reversible. From `mcmc`: for a surrogate with other sites.

    Example:
        `inf.delayed_acceptance(inf.NUTS(), program.intervene({"voltage": emulator}), num=5)`
    """
    checked("delayed_acceptance", (kernel,))
    culprit = _irreversible(kernel)
    if culprit is not None:
        name = type(culprit).__name__
        raise ValueError(
            f"delayed_acceptance: the proposing kernel must be reversible, and {name} is not known to be. Give one such as "
            "NUTS() or RandomWalk(), or a mixture of them; your own kernel can say so: reversible = True in its class."
        )
    return DelayedAcceptance((repeat(kernel, num),), ppl.as_target(surrogate))


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


def _report(point, rate, info):
    """The statistics of a step; see `delayed_acceptance`."""
    named = {"lp": point.log_density, "acceptance_rate": rate, "num_evaluations": jnp.int32(1)}
    named |= {f"{name}_surrogate": x for name, x in info._asdict().items()}
    return info_type("DelayedAcceptance", tuple(named))(**named)
