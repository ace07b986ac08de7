"""Relax: the score function estimator with a control that sees the noise. Unbiased for every control, however bad.

A value b of Bernoulli or Categorical is a function of real numbers z (of a logistic variable its sign; of Gumbel variables
which one is largest). `control` is any differentiable function of z, and z~ is drawn anew given b:

    gradient of E f  =  E[ (f(b) - control(z~)) gradient of log p(b) + gradient of control(z) - gradient of control(z~) ] .

The nearer control(z) is to f(b), the smaller is the variance; a good beginning is the objective itself at a softened value,
`lambda z: f(sigmoid(z / 0.5))`.

*To train it*, let its parameters be arguments of the objective. They are none of its mean, so do not climb by them: what
they change is the variance of the gradient, whose own gradient is that of the gradient's square.

```python
def objective(theta, control):
    b = ppl.sample("b", dist.Bernoulli(logits=theta), strategy=inf.vi.Relax(control))
    ...

gradient = jax.grad(objective.estimate, argnums=1)
jax.grad(lambda control: jnp.sum(gradient(key, theta, control) ** 2))(control)      # descend by this one
```
(Grathwohl, Choi, Wu, Roeder and Duvenaud, "Backpropagation through the void", ICLR 2018, arXiv:1711.00123; REBAR, Tucker,
Mnih, Maddison, Lawson and Sohl-Dickstein, NeurIPS 2017, arXiv:1703.07370, has the objective itself for its control.)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ppl import distributions
from ppl.distributions import dist

from .strategy import Chosen, Strategy, refuse, zero


class Relax(Strategy):
    """See the file's docstring. `control(z)` returns one number; z has the shape of the site, of Categorical an axis more.

    Example:
        `ppl.sample("b", dist.Bernoulli(p), strategy=inf.vi.Relax(lambda z: a * jnp.sum(jax.nn.sigmoid(z))))`
    """

    control: Callable

    def check(self, address, d):
        if not isinstance(distributions.base(d), BERNOULLI | CATEGORICAL):
            raise refuse("Relax()", address, d, "is for Bernoulli and Categorical")

    def choose(self, d, key):
        logits = natural(d)
        coin = isinstance(distributions.base(d), BERNOULLI)
        value, z, again = (_coin if coin else _category)(logits, key)
        value = lax.stop_gradient(value).astype(distributions.value_dtype(d))
        score = distributions.log_prob_inside(d, value)
        with_z, with_again = self._control(z), self._control(again)
        return Chosen(value, score, zero(with_z) - zero(with_again) - with_again * jnp.sum(zero(score)))

    def _control(self, z):
        value = jnp.asarray(self.control(z))
        if value.shape != ():
            raise ValueError(f"Relax: the control must return one number, but returned an array of shape {value.shape}.")
        return value


BERNOULLI = dist.BernoulliProbs | dist.BernoulliLogits
CATEGORICAL = dist.CategoricalProbs | dist.CategoricalLogits


def natural(d):
    """Log odds of Bernoulli, of the shape of `d`; log probabilities of Categorical and Multinomial, the last axis (K,)."""
    shape, d = d.batch_shape, distributions.base(d)
    if isinstance(d, BERNOULLI):
        logits = d.logits if isinstance(d, dist.BernoulliLogits) else jnp.log(d.probs) - jnp.log1p(-jnp.asarray(d.probs))
        return jnp.broadcast_to(logits, shape)
    by_logits = isinstance(d, dist.CategoricalLogits | dist.MultinomialLogits)
    logits = jax.nn.log_softmax(jnp.asarray(d.logits)) if by_logits else jnp.log(d.probs)
    return jnp.broadcast_to(logits, (*shape, logits.shape[-1]))


def _coin(logits, key):
    """The coin, the logistic variable whose sign it is, and another one of that sign."""
    z = logits + jax.random.logistic(key, logits.shape, logits.dtype)
    v = _uniform(jax.random.fold_in(key, 1), z)
    sign = lax.stop_gradient(jnp.where(z > 0, 1.0, -1.0))
    return z > 0, z, sign * (jax.nn.softplus(sign * logits + jnp.log(v)) - jnp.log1p(-v))


def _category(logits, key):
    """The category, the Gumbel variables among which it is the largest, and others among which it is."""
    z = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    b = jnp.argmax(z, axis=-1)
    waits = -jnp.log(_uniform(jax.random.fold_in(key, 1), z))  # exponential variables
    largest = jnp.arange(z.shape[-1]) == b[..., None]
    first = jnp.sum(jnp.where(largest, waits, 0.0), axis=-1, keepdims=True)
    return b, z, -jnp.log(first + jnp.where(largest, 0.0, waits * jnp.exp(-logits)))


def _uniform(key, like):
    eps = jnp.finfo(like.dtype).eps
    return jax.random.uniform(key, like.shape, like.dtype, minval=eps, maxval=1.0 - eps)
