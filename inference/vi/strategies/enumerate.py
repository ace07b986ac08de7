"""Enumerate: every value that the site can take, each weighted by its probability. No variance, where there is no other noise.

What depends on the site is computed for all its values side by side, what does not only once. Several sites, or a site of
several elements, are tried jointly: the number of values multiplies. Where lanes of a `ppl.vmap` are summed make each an
expectation of its own, and each is enumerated by itself:

    jnp.sum(ppl.vmap(elbo, in_axes=(None, None, 0))(...))

A value without probability counts nothing where the objective, or its derivative, is not finite there.
"""

from ppl import distributions

from .strategy import Strategy, refuse


class Enumerate(Strategy):
    """See the file's docstring."""

    def enumerates(self, address, d):
        num = distributions.num_values(d)
        if num is None:
            raise refuse("Enumerate()", address, d, "needs a known, finite number of values")
        return num

    def choose(self, d, key):
        raise AssertionError("an enumerated site is forced")
