"""Answer questions about programs: MCMC and one `Posterior` type.

```python
import inference as inf

posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

from .diagnostics import SamplingWarning
from .kernel import Kernel
from .mcmc.adaptation.covariance import Covariance
from .mcmc.adaptation.dual_averaging import DualAveraging
from .mcmc.adaptation.fisher import FisherDense, FisherDiagonal
from .mcmc.adaptation.low_rank import FisherLowRank
from .mcmc.adaptation.warmup import Schedule, adapted
from .mcmc.barker import Barker
from .mcmc.combine import cycle, mixture, repeat
from .mcmc.elliptical_slice import EllipticalSlice
from .mcmc.hmc import HMC, mala
from .mcmc.independence import Independence
from .mcmc.initial import At, Uniform
from .mcmc.nuts import NUTS
from .mcmc.random_walk import RandomWalk
from .mcmc.sample import mcmc
from .mcmc.slice import Slice
from .metrics import Dense, Diagonal, LowRank, Metric
from .placement import Threads, Vectorized
from .posterior import Posterior
from .store import Store

__all__ = [
    "HMC",
    "NUTS",
    "At",
    "Barker",
    "Covariance",
    "Dense",
    "Diagonal",
    "DualAveraging",
    "EllipticalSlice",
    "FisherDense",
    "FisherDiagonal",
    "FisherLowRank",
    "Independence",
    "Kernel",
    "LowRank",
    "Metric",
    "Posterior",
    "RandomWalk",
    "SamplingWarning",
    "Schedule",
    "Slice",
    "Store",
    "Threads",
    "Uniform",
    "Vectorized",
    "adapted",
    "cycle",
    "mala",
    "mcmc",
    "mixture",
    "repeat",
]
