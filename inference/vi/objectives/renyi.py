"""Renyi: the variational Renyi bound of order alpha, E 1/(1 - alpha) log (1/K) sum_k w_k^(1 - alpha).

Alpha = 0 is the importance-weighted bound; towards 1 it goes to the ELBO; larger alphas seek one mode, negative ones cover
all, and bound the evidence from above as K grows. (Li and Turner, "Renyi divergence variational inference", NeurIPS 2016,
arXiv:1602.02311, equation 14.)

```python
inf.maximize(renyi(0.5, 10), program | data, guide(phi), key=key)
```
"""

import math
from functools import cache

from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from .population import check_num, population


@cache
def renyi(alpha: float, num: int) -> Expectation:
    """The Renyi bound of order `alpha` by `num` draws, an objective of (model, guide).

    Raises:
        ValueError: for alpha = 1, where it is the ELBO.
    """
    check_num("renyi", num)
    if not math.isfinite(alpha) or alpha == 1:
        raise ValueError(f"renyi: alpha must be a number other than 1 (in the limit of 1 it is elbo), got {alpha!r}.")

    @expectation
    def renyi(model, guide):
        _, log_w = population(model, guide, num)
        return log_mean((1 - alpha) * log_w) / (1 - alpha)

    return renyi
