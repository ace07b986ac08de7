"""Tempered sequential Monte Carlo: from the prior to the posterior through powers of the likelihood.

```python
posterior = inf.smc(program | data, inf.tempering(), key=key, particles=2000)
posterior.log_evidence, posterior.stages["inverse_temperature"]
```
(Del Moral, Doucet and Jasra, JRSS B 68, 2006; schedule: Jasra, Stephens, Doucet and Tsagaris, Scand. J. Statist. 38, 2011.)
"""

import ppl

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..posterior import Posterior
from ..resampling import Resampler, Systematic
from .loop import Method
from .move import Move, UntilMoved
from .resample import Resample
from .reweight import ByESS, Reweight, Rule
from .step import sequence
from .tempering_path import Tempering


def tempering(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    moves: int | UntilMoved = UntilMoved(),  # noqa: B008
    to: Rule = ByESS(0.5),  # noqa: B008
    resample: Resampler = Systematic(),  # noqa: B008
    reference: ppl.Program | ppl.Generative | Posterior | None = None,
) -> Method:
    """Adaptive tempering.

    - `kernel`: moves the particles at every level; settings that it leaves open are learned from them.
    - `moves`: how many steps of it, or until when.
    - `to`: which level is next: `ByESS(share)`, `ByCESS(share)`, or given levels, `Ladder(levels)`.
    - `reference`: a program over the same latent sites to begin at in place of the prior, such as a guide; or the posterior of
      another conditioned program, whose evidence and error are then carried on. That may be wrong: it is put right.
    """
    stage = sequence(Reweight(to), Resample(resample), Move(kernel, moves))
    return Method(Tempering(reference), stage)
