"""Concrete and StraightThrough: a discrete value softened until it can be differentiated. Openly biased, of small variance.

A coin is the sign of a logistic variable z, a one-hot vector the argmax of Gumbel variables. `Concrete(T)` puts
sigmoid(z / T), or softmax(z / T), in its place: numbers between the whole ones, whose mean objective is another one, nearer to
the true one the smaller the temperature T is; while the variance grows. `StraightThrough(T)` keeps the whole numbers, so that
the value of the objective is unbiased, and takes the derivative of the soft ones for theirs.

For Bernoulli, and for a category as a one-hot vector, `dist.Multinomial(1, probs)`: a whole number of Categorical has nothing
between. The objective sees floats, so compute with the value (`x * a + (1 - x) * b`), do not branch on it. In the objective,
densities of soft values are those of the formula, linear between the whole numbers, x log p + (1 - x) log(1 - p): of the site
itself, and of every `program.log_density(choices)`; not -inf, which they are elsewhere. (Maddison, Mnih and Teh, ICLR 2017,
arXiv:1611.00712; Jang, Gu and Poole, ICLR 2017, arXiv:1611.01144; Bengio, Leonard and Courville, arXiv:1308.3432.)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from ppl import distributions
from ppl.distributions import dist

from .relax import BERNOULLI, natural
from .strategy import Chosen, Strategy, refuse


class Concrete(Strategy):
    """See the file's docstring. `temperature`: positive, a number or an array that broadcasts with the site.

    Example:
        `ppl.sample("b", dist.Bernoulli(p), strategy=inf.vi.Concrete(0.5))`
    """

    temperature: Any
    biased: ClassVar[bool] = True

    def check(self, address, d):
        _check("Concrete()", address, d)

    def choose(self, d, key):
        return Chosen(_soft(d, key, self.temperature))


class StraightThrough(Strategy):
    """See the file's docstring. `temperature`: positive, of the soft values whose derivative is taken.

    Example:
        `ppl.sample("h", dist.Multinomial(1, probs), strategy=inf.vi.StraightThrough(1.0))`
    """

    temperature: Any
    biased: ClassVar[bool] = True

    def check(self, address, d):
        _check("StraightThrough()", address, d)

    def choose(self, d, key):
        soft = _soft(d, key, self.temperature)
        if isinstance(distributions.base(d), BERNOULLI):
            hard = (soft > 0.5).astype(soft.dtype)
        else:
            hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), soft.shape[-1], dtype=soft.dtype)
        return Chosen(lax.stop_gradient(hard - soft) + soft)


ONE_HOT = dist.MultinomialProbs | dist.MultinomialLogits


def _check(who, address, d):
    base = distributions.base(d)
    if isinstance(base, BERNOULLI) or (
        isinstance(base, ONE_HOT) and isinstance(base.total_count, int) and base.total_count == 1
    ):
        return
    what = "is for Bernoulli, and for a category as a one-hot vector, dist.Multinomial(1, probs)"
    raise refuse(who, address, d, what)


def _soft(d, key, temperature):
    logits = natural(d)
    if isinstance(distributions.base(d), BERNOULLI):
        return jax.nn.sigmoid((logits + jax.random.logistic(key, logits.shape, logits.dtype)) / temperature)
    return jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape, logits.dtype)) / temperature, axis=-1)
