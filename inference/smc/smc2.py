"""SMC^2: parameters and states of a program's loop are learned together, as the data come in.

```python
posterior = inf.smc(autoregression() | {"y": y}, inf.smc2(inner=(128, 256, 512)), key=key, particles=256)
posterior["rho"], posterior["z"]                          # parameters, and a path for each
posterior.stages["log_evidence"], posterior.stages["num_walkers"]
```
Each particle is a value of the parameters, with a particle filter of the states given these. When a datum comes, every filter
takes a step, and its evidence weighs the parameters. Where weights have become uneven, parameters are resampled with their
filters, and moved by particle marginal Metropolis-Hastings; where moves are hardly accepted, the filters have become too
noisy, and are exchanged for larger ones (Chopin, Jacob and Papaspiliopoulos, JRSSB 75, 2013, arXiv:1101.1528).
"""

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..resampling import Resampler, Systematic
from .exchange import ByPath, Exchange, How
from .extend import Extend
from .history import Last
from .ibis import WhereUneven
from .inner_filters import InnerFilters
from .loop import Method
from .move import UntilMoved
from .particle_filter import particle_filter
from .rejuvenate import Rejuvenate
from .resample import Resample
from .step import sequence


def smc2(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    inner: tuple[int, ...] = (128, 256, 512),
    method: Method = particle_filter(),  # noqa: B008
    moves: int | UntilMoved = UntilMoved(0.5),  # noqa: B008
    ess: float = 0.5,
    resample: Resampler = Systematic(),  # noqa: B008
    exchange: How = ByPath(),  # noqa: B008
    below: float = 0.1,
) -> Method:
    """SMC^2 with exchange, for a program with continuous sites before one `ppl.scan`.

    - `kernel`: moves the parameters: `RandomWalk()`, whose metric is the population's, or `Independence(...)`.
    - `inner`: numbers of walkers of a filter: at first the first, and the next after every exchange.
    - `method` of the filters, such as `particle_filter(proposal=guide)`.
    - `moves`: a number, or `UntilMoved(...)`. Each costs a filter over all steps so far for every particle.
    - `ess`, `resample`: parameters are resampled and moved where their effective sample size is at most this share of them.
    - `exchange`: `ByPath()`, or `ByWeight()`, where filters keep nothing, and the posterior has the last step alone.
    - `below`: filters are exchanged where fewer of the moves' proposals were accepted.

    Raises:
        ValueError: for sizes that do not increase, or a kernel with gradients. From `smc`: for a program without a loop, or
            without continuous sites before it.
    """
    step = WhereUneven(sequence(Resample(resample), Rejuvenate(kernel, moves)), ess)
    stage = sequence(Extend(), Exchange(step, below, exchange))
    return Method(InnerFilters(method, inner, exchange.history), stage, Last())
