"""Answer questions about programs: MCMC and one `Posterior` type.

```python
import inference as inf

posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

from .diagnostics import SamplingWarning
from .kernel import Kernel
from .mcmc.adaptation.dual_averaging import DualAveraging
from .mcmc.adaptation.fisher import FisherDiagonal
from .mcmc.adaptation.warmup import adapted
from .mcmc.initial import At, Uniform
from .mcmc.nuts import NUTS
from .mcmc.sample import mcmc
from .metrics import Diagonal, Metric
from .placement import Threads, Vectorized
from .posterior import Posterior

__all__ = [
    "NUTS",
    "At",
    "Diagonal",
    "DualAveraging",
    "FisherDiagonal",
    "Kernel",
    "Metric",
    "Posterior",
    "SamplingWarning",
    "Threads",
    "Uniform",
    "Vectorized",
    "adapted",
    "mcmc",
]
