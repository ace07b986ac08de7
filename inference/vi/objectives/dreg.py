"""DReG: the importance-weighted bound with doubly reparameterised gradients, whose signal does not fade as K grows.

The score of q in the gradient of log w is itself traded for one along the draw. With shares s_k = w_k / sum_j w_j,

    gradient by the guide  =  sum_k s_k^2  d(log w_k)/d(x_k)  d(x_k)/d(phi) ,

that by the model stays sum_k s_k d(log p)/d(theta). (Tucker, Lawson, Gu and Maddison, "Doubly reparameterized gradient
estimators for Monte Carlo objectives", ICLR 2019, arXiv:1810.04152, equation 8.) One square comes of slowing every draw by its
share, the other of differentiating the bound.

```python
inf.maximize(dreg(10), program | data, guide(phi), key=key)
```
"""

from functools import cache

import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from ..strategies import Reparameterised
from ..strategies.strategy import zero
from .population import check_num, population, shares
from .stl import exact, stopped
from .watch import drew


@cache
def dreg(num: int) -> Expectation:
    """The importance-weighted bound of `num` draws, of (model, guide), for guides whose sites are all reparameterised.

    Raises:
        ValueError: when estimated, for a site with another strategy, or a density that is an estimate.
    """
    check_num("dreg", num)

    @expectation
    def dreg(model, guide):
        (choices, log_w), sites = drew(lambda: population(model, guide, num))
        _all_reparameterised(sites)

        def log_weight(choices, share):
            choices = slowed(choices, share)
            return exact("dreg", model, choices) - exact("dreg", stopped(guide), choices)

        return log_mean(ppl.vmap(log_weight)(choices, shares(log_w)))

    return dreg


def slowed(tree, rate):
    """A pytree of the same values, its gradient multiplied by `rate`, a scalar."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) + rate * zero(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree)


def _all_reparameterised(sites) -> None:
    for address, row in sites.items():
        if not isinstance(row.strategy.strategy, Reparameterised):
            raise ValueError(
                f"dreg: site '{address}' has the strategy {row.strategy.strategy}, but doubly reparameterised gradients need "
                "every site of the guide reparameterised. Use vimco or iwelbo."
            )
