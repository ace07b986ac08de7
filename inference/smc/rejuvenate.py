"""Rejuvenate: particles that hold parameters and a filter move by particle marginal Metropolis-Hastings.

```python
Rejuvenate(RandomWalk(), num=UntilMoved(0.5))
```
A proposal of parameters gets a new filter, over all steps so far; accepted or not by prior times evidence, they go together.
That leaves the law of parameters and filter as it is (Andrieu, Doucet and Holenstein, JRSSB 72, 2010; Chopin, Jacob and
Papaspiliopoulos, JRSSB 75, 2013, section 3.3).

The metric is the population's, each half of the particles learning from the other. The step size is not learned: it is 2.38 /
sqrt(dim), best for a density that is known, so that the acceptance rate tells how noisy the filters are (see `exchange.py`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from ..mcmc.independence import Independence
from ..mcmc.metropolis import State
from ..mcmc.random_walk import RandomWalk
from ..numerics import select
from .inner_filters import InnerPath
from .move import Choice, Move, UntilMoved
from .pmmh import BEYOND, Density


class Rejuvenate(Move):
    """Take `num` steps of `kernel` with every particle, a number or `UntilMoved(...)`, each with a new filter. `kernel`:
    `RandomWalk()` or `Independence(...)`. Statistics: as those of `Move`.

    Raises:
        ValueError: for another kernel.
    """

    kernel: Kernel
    num: int | UntilMoved = eqx.field(default=UntilMoved(0.5))
    recorded: Choice | None = None

    def __check_init__(self):
        if not isinstance(self.kernel, RandomWalk | Independence):
            raise ValueError(
                "smc2: the kernel must evaluate the density once in a step, and without gradients, for a filter has none that "
                f"serve; use RandomWalk() or Independence(...), got {type(self.kernel).__name__}."
            )

    def check(self, path) -> None:
        if not isinstance(path, InnerPath):
            raise ValueError(f"Rejuvenate: particles of a {type(path).__name__} have no filter; use Move(...).")
        self.kernel.check(path.target)

    def ended(self, path, states):
        return states

    def chains(self, key, population, path, choice: Choice):
        """As those of `Move`; a chain's state is the particle."""
        learners, level = population.particles, population.level
        dim = path.target.dim

        def move(i, states, log_step_size):
            key_move, key_filters = jax.random.split(jax.random.fold_in(key, i))
            here = State(states.position, states.log_density)

            def proposed(kernel, key, state):
                anywhere = Density(dim, lambda _: jnp.asarray(BEYOND, state.position.dtype))
                return kernel.step(key, state, anywhere)[0].position

            def decided(kernel, key, state, log_density):
                return kernel.step(key, state, Density(dim, lambda _: log_density))

            # One filter in all: see first where the kernel goes, and then tell it what was found there.
            where = self._all(key_move, 0, choice, proposed, here)
            new = path.by_size(states.size, lambda size: path.filtered(key_filters, where, size, level))
            there, info = self._all(key_move, 0, choice, decided, here, new.log_density)
            accepted = jnp.any(there.position != here.position, axis=1)
            states = jax.vmap(select)(accepted, new, states)
            return states, log_step_size, jnp.mean(info.acceptance_rate)

        return learners, move
