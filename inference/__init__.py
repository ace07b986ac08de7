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
from .mcmc.initial import At, Uniform
from .mcmc.nuts import NUTS
from .mcmc.sample import mcmc
from .metrics import Dense, Diagonal, LowRank, Metric
from .placement import Threads, Vectorized
from .posterior import Posterior

__all__ = [
    "NUTS",
    "At",
    "Covariance",
    "Dense",
    "Diagonal",
    "DualAveraging",
    "FisherDense",
    "FisherDiagonal",
    "FisherLowRank",
    "Kernel",
    "LowRank",
    "Metric",
    "Posterior",
    "SamplingWarning",
    "Schedule",
    "Threads",
    "Uniform",
    "Vectorized",
    "adapted",
    "mcmc",
]
