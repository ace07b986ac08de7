"""SGHMC: stochastic gradient Hamiltonian Monte Carlo, for data too large for exact gradients. Biased by its step size e.

    velocity <- (1 - friction) velocity + e * estimate of the gradient + sqrt(2 friction e) * standard normal
    position <- position + velocity

Hamiltonian dynamics whose friction eats up the noise of the gradient: a velocity that lasts for 1 / friction steps explores
faster than `SGLD`'s random walk. Nothing is rejected. The law of the draws is right as e goes to zero; noise of variance V in
the gradient heats it by the factor 1 + e V / (2 friction), which control variates make small (see `minibatches`).
(Chen, Fox and Guestrin, ICML 2014, arXiv:1402.4102, equation 15, without an estimate of the noise.)

```python
target = inf.minibatches(lambda x, y: regression(x) | {"y": y}, (x, y), size=100).around_mode()
posterior = inf.mcmc(target, inf.SGHMC(step_size=1e-4), key=key)
```
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from .stochastic_gradient import StochasticInfo, StochasticState, begin, begun, checked, estimate, moved, now, planned


class SGHMC(Kernel):
    """Stochastic gradient Hamiltonian Monte Carlo. Biased; see the file's docstring. `lp` is NaN.

    - `step_size`: e, the square of a leapfrog's, on the unconstrained scale; a number, or an Optax schedule over all steps.
    - `friction` in (0, 1]: the share of the velocity that a step loses.
    """

    step_size: jax.Array | float | Callable = eqx.field(converter=planned)
    friction: float = 0.1

    exact: ClassVar[bool] = False

    def __check_init__(self):
        checked("SGHMC", self.step_size)
        if isinstance(self.friction, float | int) and not 0 < self.friction <= 1:
            raise ValueError(f"SGHMC: friction must lie in (0, 1], got {self.friction}.")

    def init(self, key, target, position) -> StochasticState:
        return begin(target, position)

    def step(self, key, state: StochasticState, target) -> tuple[StochasticState, StochasticInfo]:
        key_rows, key_noise = jax.random.split(key)
        step_size, friction = now(self.step_size, state), jnp.asarray(self.friction, state.position.dtype)
        noise = jnp.sqrt(2.0 * friction * step_size) * jax.random.normal(key_noise, state.position.shape, step_size.dtype)
        push = step_size * estimate(key_rows, target, state.position)
        velocity = (1.0 - friction) * state.velocity + push + noise
        return moved(state, state.position + velocity, velocity, step_size)

    def learn(self, i, state: StochasticState, info: StochasticInfo) -> StochasticState:
        return begun(state)
