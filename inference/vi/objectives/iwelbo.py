"""IWELBO: the importance-weighted bound, E log (1/K) sum_k p(x_k, data) / q(x_k), that rises with K to the log evidence.

(Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, arXiv:1509.00519.)

```python
inf.maximize(iwelbo(10), program | data, guide(phi), key=key)
```
"""

from functools import cache

from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from .population import check_num, population


@cache  # one objective for a setting, so that what was compiled for it is found again
def iwelbo(num: int) -> Expectation:
    """The importance-weighted bound of `num` draws, an objective of (model, guide). With one draw it is the ELBO."""
    check_num("iwelbo", num)

    @expectation
    def iwelbo(model, guide):
        _, log_w = population(model, guide, num)
        return log_mean(log_w)

    return iwelbo
