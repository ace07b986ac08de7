"""Categories: which of `num` kinds, 0 to num - 1; raw numbers are the logits.

P(x = i) = softmax(raw)_i
"""

import equinox as eqx
import jax.numpy as jnp

from ppl import dist

from .head import Head, count


class Categories(Head):
    """See the file's docstring. Scalar events, whole numbers; `size` is `num`.

    Raises:
        ValueError: if `num` is no whole number of at least 2.

    Example:
        `Categories(3).law(jnp.zeros(3)).log_prob(2)`
    """

    num: int = eqx.field(static=True)

    def __check_init__(self):
        count("Categories", "num", self.num, least=2)

    @property
    def size(self):
        return self.num

    @property
    def event_shape(self):
        return ()

    def made(self, raw):
        return dist.Categorical(logits=raw)

    def start(self):
        return jnp.zeros(self.num)
