"""IBIS, iterated batch importance sampling: the data come one after the other, and particles learn from each.

```python
posterior = inf.smc(regression(x) | {"y": y}, inf.ibis(), key=key, particles=1000)
posterior.stages["num_data"], posterior.stages["log_evidence"]      # the evidence of the first 0, 1, 2, ... data
```
Particles are weighted by p(next datum | data so far, particle), which they know; where weights have become uneven, they are
resampled and moved (Chopin, Biometrika 89, 2002). Differences of `log_evidence` are log predictive densities of each datum.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..population import Population
from ..resampling import Resampler, Systematic
from .data_order import DataOrder
from .loop import Method
from .move import Move, UntilMoved
from .resample import Resample
from .reweight import Reweight, Rule
from .step import Step, Stepped, sequence


class Next(Rule):
    """The next level there is."""

    def __call__(self, population, path):
        return path.furthest(population, lambda alive: lambda log_ratio: jnp.zeros((), bool))


class WhereUneven(Step):
    """Take `step` where the effective sample size is at most `ess` of the particles. Statistics: those of the step, zero or
    NaN where it was not taken.

    Raises:
        ValueError: for a share that is not between 0 and 1.
    """

    step: Step
    ess: float = 0.5
    recorded: jax.Array | None = None  # (stage,): whether it was taken, where that is not to be found out anew

    def __check_init__(self):
        if not 0 <= self.ess <= 1:
            raise ValueError(f"WhereUneven: ess must be a share of the particles between 0 and 1, got {self.ess!r}.")

    def check(self, path) -> None:
        self.step.check(path)

    def init(self, population, path):
        return jnp.int32(0), self.step.init(population, path)

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        stage, remembered = memory
        uneven = population.ess <= self.ess * len(population.log_weights)
        if self.recorded is not None:
            uneven = self.recorded[jnp.minimum(stage, len(self.recorded) - 1)]

        def take():
            return self.step(key, population, remembered, path)

        def leave():
            like = jax.eval_shape(take)
            info = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan if x.dtype.kind == "f" else 0, x.dtype), like.info)
            choice = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like.choice)
            return Stepped(population, remembered, info, choice)

        new = lax.cond(uneven, take, leave)
        return new._replace(memory=(stage + 1, new.memory), choice=(uneven, new.choice))

    def frozen(self, choices) -> "WhereUneven":
        taken, inner = choices
        taken = np.asarray(taken)
        return WhereUneven(
            self.step.frozen(jax.tree.map(lambda x: x[taken], inner)) if taken.any() else self.step,
            self.ess,
            jnp.asarray(taken),
        )


def ibis(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    moves: int | UntilMoved = UntilMoved(),  # noqa: B008
    ess: float = 0.5,
    to: Rule = Next(),  # noqa: B008
    resample: Resampler = Systematic(),  # noqa: B008
) -> Method:
    """Iterated batch importance sampling.

    - `kernel`, `moves`, `resample`: as for `tempering`.
    - `ess`: particles are resampled and moved where their effective sample size is at most this share of them.
    - `to`: by default one datum a stage; `ByESS(0.5)` takes as many at once as leave half of the effective sample size.
    """
    return Method(DataOrder(), sequence(Reweight(to), WhereUneven(sequence(Resample(resample), Move(kernel, moves)), ess)))
