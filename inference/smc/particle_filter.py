"""Particle filters: particles follow a program's loop, are weighted by the data of every step, and resampled.

```python
posterior = inf.smc(walk(100, 1.0, 2.0) | {"y": y}, inf.particle_filter(), key=key, particles=10_000)
posterior["z"]                           # smoothing paths (1, particles, 100)
posterior.run.filtered("z")              # filtering quantiles (100, 3)
```

- bootstrap: `particle_filter()` (Gordon, Salmond and Smith, IEE Proc. F 140, 1993)
- guided: `particle_filter(proposal=guide)` (Doucet, Godsill and Andrieu, Statistics and Computing 10, 2000)
- auxiliary: `particle_filter(twist=look_ahead)` (Pitt and Shephard, JASA 94, 1999)
- Rao-Blackwellised: a program whose loop carries the moments of what is integrated out (Doucet, de Freitas, Murphy and
  Russell, UAI 2000; see `inf.exact.predict`)
"""

from collections.abc import Callable

from ..resampling import Resampler, Systematic, When
from .extend import Extend
from .loop import Method
from .program_path import ByStep
from .resample import Resample
from .step import sequence


def particle_filter(
    *,
    resample: Resampler = When(Systematic(), ess=0.5),  # noqa: B008
    proposal: Callable | None = None,
    twist: Callable | None = None,
) -> Method:
    """A particle filter for a program with one `ppl.scan`.

    - `resample`: how, and when, particles are resampled before a step.
    - `proposal`: `proposal(carry, x, data)`, a program that proposes latent sites of a step; see `ByStep`.
    - `twist`: `twist(carry, x, data)`, the log of a weight for how well a particle will fit the next step's data.

    Data that are missing (masked arrays) are drawn, and weigh nothing.
    """
    return Method(ByStep(proposal, twist), sequence(Resample(resample), Extend()))
