"""DisARM: for Bernoulli sites, the objective at the draw and at its antithetic twin: two evaluations for any size.

Along a `ppl.scan` a step depends on those before it, so there each step has a twin in its turn.

With u uniform, b = [u > 1 - p] and its twin b~ = [u < p], and phi the logit of p,

    gradient of E f by phi  =  E[ (f(b) - f(b~)) / 2 x (-1)^b~ [b != b~] sigmoid(|phi|) ] .

(Dong, Mnih and Tucker, "DisARM: an antithetic gradient estimator for binary latent variables", NeurIPS 2020, arXiv:2006.10680,
equation 6; also Yin, Ho, Yan, Qian and Zhou's U2G.)

Where p is exactly 0 or 1 draw and twin are never apart, and the gradient is zero. By phi that is right. By p it is not: as p
tends to 0 they are apart ever more seldom, and tell ever more. Who learns probabilities which may get there should give
their logits, or take `MeasureValued()` or `Enumerate()`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ppl import dist, distributions

from .relax import BERNOULLI, natural
from .strategy import Alternative, Chosen, Strategy, refuse, zero


class DisARM(Strategy):
    """See the file's docstring."""

    def check(self, address, d):
        if not isinstance(distributions.base(d), BERNOULLI):
            raise refuse("DisARM()", address, d, "is for Bernoulli sites")

    def choose(self, d, key):
        logits = lax.stop_gradient(natural(d))
        return Chosen((_uniform(d, key) > jax.nn.sigmoid(-logits)).astype(distributions.value_dtype(d)))

    def alternatives(self, d, key, chosen):
        logits = _between(d)
        at = lax.stop_gradient(natural(d))
        twin = (_uniform(d, key) < jax.nn.sigmoid(at)).astype(chosen.value.dtype)
        sign = jnp.where(twin == 1, -1.0, 1.0)
        slope = jnp.where(chosen.value != twin, 0.5 * sign * jax.nn.sigmoid(jnp.abs(at)), 0.0)
        return Alternative(twin[..., None], (-slope * zero(logits))[..., None], together=True)


def _between(d):
    """Log odds, with their gradient; where the probability is 0 or 1 in their place a number that has none."""
    base = distributions.base(d)
    if isinstance(base, dist.BernoulliLogits):
        logits = jnp.where(jnp.isinf(base.logits), 0.0, base.logits)
    else:
        at = jnp.asarray(base.probs, float)
        p = jnp.where((at < jnp.finfo(at.dtype).tiny) | (at >= 1.0), 0.5, at)
        logits = jnp.log(p) - jnp.log1p(-p)
    return jnp.broadcast_to(logits, d.batch_shape)


def _uniform(d, key):
    return jax.random.uniform(key, d.shape(), minval=jnp.finfo(float).tiny)
