"""Score: the score function estimator (REINFORCE), for every distribution that has a density.

    gradient of E f(x)  =  E[ (f(x) - b) gradient of log p(x) ] + E[ gradient of f ] .

b is a baseline: anything that does not depend on x. The nearer to f it is, the smaller is the variance; the mean is the same.

- By default, where an estimate takes several samples (`estimate(..., samples=8)`), it is the mean of f over the others (Kool,
  van Hoof and Welling, 2019).
- A number or an array: a constant, or what you computed of things that are known before the site.
- `Learned(b)`: b is trained, by gradients, to be what f comes to on average. A single parameter makes it a running mean, a
  network one that looks at the data (Mnih and Gregor, ICML 2014, arXiv:1402.0030).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from ppl import distributions

from .strategy import Chosen, Strategy, zero


class Learned(eqx.Module):
    """A baseline that is trained: `value`, a scalar or one number a batch element of the site, computed of parameters that
    are arguments of the objective and of what is known before the site.

    Its parameters' gradient is that of -(f - value)^2 / 2, so that climbing fits it to the objective f.
    """

    value: Any


class Score(Strategy):
    """See the file's docstring.

    Example:
        `ppl.sample("z", dist.Bernoulli(p), strategy=inf.vi.Score(inf.vi.Learned(net(x))))`
    """

    baseline: Any = None

    def __check_init__(self):
        if isinstance(self.baseline, str):
            raise ValueError(f"Score: a baseline is a number, an array or Learned(...), got {self.baseline!r}.")

    def choose(self, d, key):
        value = lax.stop_gradient(distributions.draw(d, key))
        score = distributions.log_prob_inside(d, value)
        if self.baseline is None:
            return Chosen(value, score, open=True)
        learned = isinstance(self.baseline, Learned)
        guess = jnp.asarray(self.baseline.value if learned else self.baseline)
        return Chosen(value, score, -lax.stop_gradient(guess) * jnp.expm1(zero(score)), guess=guess if learned else None)
