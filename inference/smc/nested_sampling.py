"""Nested sampling: from the prior inwards through shells of equal likelihood; evidence with its error, and the posterior.

```python
posterior = inf.smc(program | data, inf.nested_sampling(), key=key, particles=500)
posterior.log_evidence, posterior.log_evidence_error
posterior.stages["threshold"]
```
The worst particles die, and others take their place: copies of survivors, moved within the contour that the dead leave behind.
A prior mass shrinks by known shares whatever the likelihood is, so evidence is found where tempering fails: past a phase
transition, where the likelihood's peak holds hardly any of the volume. (Skilling, Bayesian Analysis 1, 2006; as sequential
Monte Carlo: Salomone, South, Drovandi and Kroese, arXiv:1805.03924, 2018.)

`posterior.stages["log_evidence"]` is that of each level's own target: the log of the prior mass left.

What cannot work: an improper prior, which has no mass to take shares of; a likelihood without bound, whose end never comes;
and a peak so narrow that no particle is near when its turn comes: the run ends as if it were not there. More particles find
smaller modes; more moves make those that were copied forget their twins, which the error takes for granted.
"""

from ..kernel import Kernel
from ..mcmc.slice import Slice
from ..resampling import Killing
from .layers import Layers
from .loop import Method
from .refill import Refill
from .resample import Resample
from .shrink import Shrink
from .step import sequence
from .threshold import Thresholds


def nested_sampling(
    kernel: Kernel = Slice(),  # noqa: B008
    *,
    moves: int = 5,
    share: float = 0.1,
    tolerance: float = 0.01,
) -> Method:
    """Nested sampling; see the file's docstring.

    - `kernel`: moves copies within their contour; settings that it leaves open are learned from the particles. It need not
      know gradients, of which a contour has none.
    - `moves`: how many steps of it a copy makes, times the dimension.
    - `share`: of the particles, how many die at a time. Fewer are more efficient, and leave less to be done side by side.
    - `tolerance`: the path ends where what is left can change log Z by no more, were it all as likely as the best particle.
    """
    stage = sequence(Resample(Killing()), Refill(kernel, moves, share), Shrink(share, tolerance))
    return Method(Thresholds(), stage, Layers())
