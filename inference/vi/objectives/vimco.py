"""VIMCO: the importance-weighted bound for discrete sites, each draw with a baseline made of the others.

    L = log (1/K) sum_j w_j ,      b_k = the same, with the geometric mean of the others in place of w_k .

A draw's score is multiplied by L - b_k: by what this draw brought. (Mnih and Rezende, "Variational inference for Monte Carlo
objectives", ICML 2016, arXiv:1602.06725, equation 10.) The value is that of `iwelbo`, and so is the mean of the gradient.

```python
inf.maximize(vimco(10), program | data, guide(phi), key=key)
```
"""

from functools import cache

import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from .match import same_sites
from .population import check_num, not_in_part, weighted
from .watch import scored


@cache
def vimco(num: int) -> Expectation:
    """The importance-weighted bound of `num` draws, two at least, with leave-one-out baselines; of (model, guide)."""
    check_num("vimco", num, least=2)

    @expectation
    def vimco(model, guide):
        same_sites(model, guide)
        not_in_part(model, guide)
        log_w, score = ppl.vmap(lambda: scored(lambda: weighted(model, guide)[1]), axis_size=num)()
        return log_mean(log_w) - jnp.sum(score * without_one(log_w))

    return vimco


def without_one(log_w):
    """For each of log weights (K,), the log mean of all with the mean of the other logs in its place: (K,)."""
    own = jnp.eye(len(log_w), dtype=bool)
    others = jnp.sum(jnp.where(own, 0.0, log_w), axis=1) / (len(log_w) - 1)
    baseline = jax.vmap(log_mean)(jnp.where(own, others[:, None], log_w))
    return lax.stop_gradient(jnp.where(jnp.isfinite(baseline), baseline, 0.0))
