"""Pseudo-marginal: Metropolis with an unbiased estimate of the likelihood in place of the likelihood.

The estimate is a function of the parameters and of a vector u of standard normals, written into the model like anything else:

```python
@ppl.model
def random_effects(y):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    u = ppl.sample("u", dist.Normal(0.0, 1.0).expand([200]).to_event(1))
    ppl.factor("y", log_of_an_unbiased_estimate(mu, u, y))

posterior = inf.mcmc(random_effects(y), inf.pseudo_marginal(inf.RandomWalk(), "u"), key=key)
```
If the mean of exp(estimate) over u is the likelihood, then the parameters' marginal is the exact posterior, however noisy the
estimate (Andrieu and Roberts, Ann. Statist. 37, 2009). Every proposal of parameters comes with a new u; the u of the state,
and so its estimate, is kept until a proposal is accepted: to refresh it is to lose the law.

*Correlated*: u may move by an autoregression, u' = c u + sqrt(1 - c^2) e, for which the normal law is reversible. Then the two
estimates that are compared err alike, and far fewer terms will do (Deligiannidis, Doucet and Pitt, JRSS B 80, 2018). The
ratio is of the densities with the normal law of u divided out, which is right whatever law u has in the program.

How noisy: a standard deviation of 1 to 1.7 of the log estimate serves best (Doucet, Pitt, Deligiannidis and Kohn, Biometrika
102, 2015); random walks then accept 0.07 to 0.15 of the proposals (Sherlock, Thiery, Roberts and Rosenthal, Ann. Statist. 43,
2015). Warm-up aims at 0.12. If even short steps accept less, the estimate is too noisy: give it more terms, or correlate.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..numerics import select
from .adaptation.warmup import Adapted, adapted, open_to_learning
from .barker import Barker
from .block import Block
from .hmc import HMC
from .independence import Independence
from .members import Combination, begun, checked, innermost, placed
from .metropolis import State, at
from .random_walk import RandomWalk

TARGET_ACCEPTANCE = 0.12


class Renewed(eqx.Module):
    """The density of the parameters with noise as the block has it, the law of the noise divided out: what the wrapped kernel
    sees."""

    block: Block
    log_noise: jax.Array

    @property
    def dim(self) -> int:
        return self.block.dim

    def log_density(self, position):
        return self.block.log_density(position) - self.log_noise


class PseudoMarginalState(NamedTuple):
    """`inner`: where the chain is, parameters and noise; `kernel`: the wrapped kernel's state, of the parameters alone."""

    inner: State
    kernel: Any
    info: Any

    @property
    def position(self):
        return self.inner.position


class PseudoMarginal(Combination):
    """See `pseudo_marginal`."""

    kernels: tuple[Kernel]
    noise: tuple[str, ...] = eqx.field(static=True)
    correlation: jax.Array | float

    def check(self, target) -> None:
        target.refuse_discrete("pseudo_marginal")
        known = [slot.address for slot in target.slots]
        for address in self.noise:
            if address not in known:
                raise ValueError(f"pseudo_marginal: the program has no latent site '{address}'; it has {', '.join(known)}.")
        if set(known) == set(self.noise):
            raise ValueError("pseudo_marginal: all latent sites are noise, so there is no parameter to move.")

    def init(self, key, target, position) -> PseudoMarginalState:
        parameters, noise = self._apart(target, position)
        view = Renewed(parameters, log_normal(noise.take(position)))
        (own,), (info,) = begun(self.kernels, key, [(view, parameters.take(position))])
        return PseudoMarginalState(at(target, position), own, info)

    def step(self, key, state: PseudoMarginalState, target):
        key_noise, key_move = jax.random.split(key)
        point = state.inner
        parameters, noise = self._apart(target, point.position)
        here, old = parameters.take(point.position), noise.take(point.position)
        c, fresh = jnp.asarray(self.correlation, old.dtype), jax.random.normal(key_noise, old.shape, old.dtype)
        new = c * old + jnp.sqrt(1 - c**2) * fresh

        # The state's density is that of the noise it has kept: with other noise it would be another estimate.
        kept = Renewed(parameters, log_normal(old))
        renewed = Renewed(dataclasses.replace(parameters, whole=noise.put(new)), log_normal(new))
        own = placed(state.kernel, State(here, point.log_density - kept.log_noise), kept)
        own, info = self.kernels[0].step(key_move, own, renewed)
        there = innermost(own)
        moved = State(renewed.block.put(there.position), there.log_density + renewed.log_noise)
        point = select(jnp.any(there.position != here), moved, point)
        return PseudoMarginalState(point, own, info), info._replace(lp=point.log_density)

    def learn(self, i, state: PseudoMarginalState, info) -> PseudoMarginalState:
        return state._replace(kernel=self.kernels[0].learn(i, state.kernel, state.info))

    def _apart(self, target, position) -> tuple[Block, Block]:
        """The parameters, and the noise, as blocks of the target."""
        is_noise = [slot.address in self.noise for slot in target.slots]
        members = (tuple(k for k, noise in enumerate(is_noise) if noise == wanted) for wanted in (False, True))
        parameters, noise = (Block(target, position, own) for own in members)
        return parameters, noise


def pseudo_marginal(kernel: Kernel, noise: str | Sequence[str], *, correlation: float = 0.0) -> PseudoMarginal:
    """`kernel` moves the parameters, with new noise at every proposal; for a model whose likelihood is an estimate.

    - `kernel`: one that evaluates the density once in a step: `RandomWalk()`, `mala()`, `Barker()` or `Independence(...)`.
    - `noise`: address, or addresses, of the sites of standard normals that the estimate is a function of. Any shape.
    - `correlation` in [0, 1): of the noise proposed with the noise that is.

    Statistics: those of `kernel`; `lp` is the estimate's, with the noise.

    Raises:
        ValueError: for another kernel, or a correlation outside [0, 1). From `mcmc`: when the program has no such site.

    Example:
        `inf.pseudo_marginal(inf.RandomWalk(), "u", correlation=0.99)`
    """
    kernel = evaluates_once("pseudo_marginal", kernel)
    if not 0 <= correlation < 1:
        raise ValueError(f"pseudo_marginal: correlation must lie in [0, 1), got {correlation}.")
    return PseudoMarginal((kernel,), (noise,) if isinstance(noise, str) else tuple(noise), correlation)


def evaluates_once(who: str, kernel: Kernel) -> Kernel:
    """The kernel, which learns its step size as suits noisy densities; ValueError unless it evaluates one in a step."""
    checked(who, (kernel,))
    plain = kernel.kernel if isinstance(kernel, Adapted) else kernel
    once = isinstance(plain, RandomWalk | Barker | Independence) or (isinstance(plain, HMC) and plain.num_steps == 1)
    if not once:
        raise ValueError(
            f"{who}: the kernel must evaluate the density once in a step, as RandomWalk(), mala(), Barker() and "
            f"Independence(...) do, got {type(plain).__name__}."
        )
    return adapted(kernel, target_acceptance=TARGET_ACCEPTANCE) if "step_size" in open_to_learning(kernel) else kernel


def log_normal(noise):
    """log density of standard normals (num,), up to a constant."""
    return -0.5 * jnp.vdot(noise, noise)
