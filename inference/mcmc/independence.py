"""Independence: Metropolis-Hastings whose proposals do not depend on where the chain is.

With weights w = p / q, target over proposal, a proposal is accepted with probability min(1, w(new) / w(old)). The kernel is as
good as its proposal: with the posterior itself every draw is accepted and independent; where the proposal's tails are thinner
than the posterior's, weights have no bound and a chain can get stuck. (Tierney, Ann. Statist. 22, 1994.)

```python
posterior = inf.mcmc(target, inf.Independence(dist.MultivariateNormal(mode, covariance)), key=key)
```
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..kernel import Kernel
from .metropolis import State, accept, at


class IndependenceInfo(NamedTuple):
    """Statistics of one transition; all scalars."""

    lp: jax.Array
    acceptance_rate: jax.Array


class Independence(Kernel):
    """`proposal`: a distribution over unconstrained positions (dim,): `sample(key)`, and a scalar `log_prob(position)`."""

    proposal: Any

    def init(self, key, target, position) -> State:
        shape = jax.eval_shape(self.proposal.sample, key).shape
        shape_of_density = jax.eval_shape(self.proposal.log_prob, position).shape
        if shape != position.shape or shape_of_density != ():
            raise ValueError(
                f"Independence: the proposal must draw positions of shape {position.shape}, with a scalar log density, but "
                f"its draws have shape {shape} and their log density has shape {shape_of_density}. Try proposal.to_event()."
            )
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, IndependenceInfo]:
        key_new, key_accept = jax.random.split(key)
        new = at(target, jnp.asarray(self.proposal.sample(key_new), state.position.dtype))
        log_ratio = log_weight(self.proposal, new) - log_weight(self.proposal, state)
        state, rate = accept(key_accept, log_ratio, new, state)
        return state, IndependenceInfo(state.log_density, rate)


def log_weight(proposal, state: State):
    """Log of target over proposal, a scalar."""
    return state.log_density - proposal.log_prob(state.position)
