"""Resample-move over the sites of any program: particles are weighed at each observed site, copied, and moved.

```python
posterior = inf.smc(program | data, inf.resample_move(inf.HMC()), key=key, particles=1000)
posterior.stages["num_sites"], posterior.stages["log_evidence"]      # the evidence of the first 0, 1, 2, ... sites
```
The program runs until it comes to data or to a factor; there particles are weighted, and where weights have become uneven,
resampled. Copies differ again by moves on what they have done so far, and by a future of their own (Gilks and Berzuini, JRSS B
63, 2001; for programs: Scibior, Ghahramani and Gordon, POPL 2018).
"""

from ..kernel import Kernel
from ..mcmc.random_walk import RandomWalk
from ..resampling import Resampler, Systematic
from .ibis import Next, WhereUneven
from .loop import Method
from .move import Move, UntilMoved
from .resample import Resample
from .reweight import Reweight, Rule
from .site_order import Renew, SiteOrder
from .step import sequence


def resample_move(
    kernel: Kernel = RandomWalk(),  # noqa: B008
    *,
    moves: int | UntilMoved = UntilMoved(),  # noqa: B008
    ess: float = 0.5,
    to: Rule = Next(),  # noqa: B008
    resample: Resampler = Systematic(),  # noqa: B008
) -> Method:
    """Resample-move sequential Monte Carlo, site by site.

    - `kernel`: moves particles on the program up to the last site passed; for discrete sites
      `gibbs({"z": DiscreteGibbs(), ...})` and the like. Settings that it leaves open are learned from the particles.
    - `moves`: how many steps of it, or until when.
    - `ess`: particles are resampled and moved where their effective sample size is at most this share of them.
    - `to`: by default one site a stage; `ByESS(0.5)` takes as many at once as leave half of the effective sample size.
    """
    copied = sequence(Resample(resample), Move(kernel, moves), Renew())
    return Method(SiteOrder(), sequence(Reweight(to), WhereUneven(copied, ess)))
