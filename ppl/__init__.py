"""Write models: random choices, programs, traces, targets.

```python
import jax, ppl
from ppl import dist, sample

@ppl.model
def coin(n):
    p = sample("p", dist.Beta(1.0, 1.0))
    return sample("heads", dist.Binomial(n, p))

program = coin(10) | {"heads": 7}
```
"""

from .choices import Choices
from .combinators import cond, fori_loop, remat, scan, switch, vmap
from .distributions import dist
from .from_numpyro import from_numpyro
from .generative import Generative, draw
from .graph import parents
from .importance import Importance
from .predictive import predict
from .primitives import call, deterministic, factor, observe, sample
from .program import Model, Program, model
from .random_module import random_module
from .random_weight import normalize
from .reparam import NonCentered, PartlyCentered
from .stepwise import Stepwise
from .target import Target, as_target
from .trace import Trace

__all__ = [
    "Choices",
    "Generative",
    "Importance",
    "Model",
    "NonCentered",
    "PartlyCentered",
    "Program",
    "Stepwise",
    "Target",
    "Trace",
    "as_target",
    "call",
    "cond",
    "deterministic",
    "dist",
    "draw",
    "factor",
    "fori_loop",
    "from_numpyro",
    "model",
    "normalize",
    "observe",
    "parents",
    "predict",
    "random_module",
    "remat",
    "sample",
    "scan",
    "switch",
    "vmap",
]
