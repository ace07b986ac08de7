"""SGLD: stochastic gradient Langevin dynamics, for data too large for exact gradients. Biased by its step size e.

    position <- position + e / 2 * estimate of the gradient + sqrt(e) * standard normal

Nothing is rejected. Both the size of the step and the noise of the gradient widen the law of the draws: in one dimension, for
a normal posterior of precision a and gradients of noise variance V, from 1 / a to (1 + e V / 4) / (a (1 - e a / 4)). So e must
be small beside 4 / a and 4 / V; control variates make V small (see `minibatches`). With a schedule that falls to zero the
bias goes too, slowly. (Welling and Teh, ICML 2011; Vollmer, Zygalakis and Teh, JMLR 17, 2016.)

```python
target = inf.minibatches(lambda x, y: regression(x) | {"y": y}, (x, y), size=100).around_mode()
posterior = inf.mcmc(target, inf.SGLD(step_size=1e-4), key=key)
posterior = inf.mcmc(target, inf.SGLD(optax.polynomial_schedule(1e-3, 1e-5, 0.5, 10_000)), key=key)
```
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from .stochastic_gradient import StochasticInfo, StochasticState, begin, begun, checked, estimate, moved, now, planned


class SGLD(Kernel):
    """Stochastic gradient Langevin dynamics. Biased; see the file's docstring. It does not know its density: `lp` is NaN.

    - `step_size`: e, about the square of the distance that one step goes by noise alone, on the unconstrained scale; a number,
      or a schedule from the number of the step, warm-up included, to one, as Optax has them. Nothing is learned: warm-up is
      only a time to forget the start.

    On a plain target or program its gradients are exact: the unadjusted Langevin algorithm.
    """

    step_size: jax.Array | float | Callable = eqx.field(converter=planned)

    exact: ClassVar[bool] = False

    def __check_init__(self):
        checked("SGLD", self.step_size)

    def init(self, key, target, position) -> StochasticState:
        return begin(target, position)

    def step(self, key, state: StochasticState, target) -> tuple[StochasticState, StochasticInfo]:
        key_rows, key_noise = jax.random.split(key)
        step_size = now(self.step_size, state)
        drift = 0.5 * step_size * estimate(key_rows, target, state.position)
        noise = jnp.sqrt(step_size) * jax.random.normal(key_noise, drift.shape, drift.dtype)
        return moved(state, state.position + drift + noise, state.velocity, step_size)

    def learn(self, i, state: StochasticState, info: StochasticInfo) -> StochasticState:
        return begun(state)
