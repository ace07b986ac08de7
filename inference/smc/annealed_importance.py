"""Annealed importance sampling: every particle goes its own way from the prior to the posterior, and brings a weight.

```python
levels = jnp.linspace(0, 1, 101)[1:] ** 3
posterior = inf.smc(program | data, inf.annealed_importance(inf.HMC(num_steps=4), levels), key=key, particles=1000)
```
Particles are never resampled, and so their weights are independent (Neal, Statistics and Computing 11, 2001). Were they all to
move by what they teach together, the estimate would be off by more than its error: who has drifted from the rest would go on
by a metric that it made itself. So each half of them learns from the other. What is left of this (the error is some 20 % too
small where the effective sample size is a few hundred) is gone with recorded choices, `posterior.run.frozen()`.
"""

import jax

import ppl

from ..kernel import Kernel
from .loop import Method
from .move import Move
from .reweight import Ladder, Reweight
from .step import sequence
from .tempering_path import Tempering


def annealed_importance(
    kernel: Kernel, levels: jax.Array, *, moves: int = 1, reference: ppl.Program | ppl.Generative | None = None
) -> Method:
    """Annealed importance sampling.

    - `kernel`: moves the particles at every level, `moves` times; settings that it leaves open are learned from them.
    - `levels`: inverse temperatures (num,), increasing to exactly 1; the first ones small, as `linspace ** 3` has them.
    - `reference`: as for `tempering`.

    Raises:
        ValueError: for levels that do not increase, or do not end at 1.
    """
    return Method(Tempering(reference), sequence(Reweight(Ladder(levels)), Move(kernel, moves)))
