"""MeasureValued: the derivative of a distribution is a difference of two; the objective is compared between them.

- Of finite support (Bernoulli, Categorical, ...): gradient of E f = sum_k f(k) x gradient of p(k). All values that were not
  drawn are tried; one without probability counts nothing where f is not finite there, as under `Enumerate`.
- Poisson: the derivative by the rate is E[f(x + 1) - f(x)].
- Exponential: by the rate, E[f(x) - f(x + another such x)] / rate.
- Normal: by the location, E[f(loc + scale w) - f(loc - scale w)] / (scale sqrt(2 pi)), w ~ Weibull(2, sqrt 2); by the scale,
  E[f(loc + scale m) - f(x)] / scale, m double-sided Maxwell. f need not be differentiable.

Each alternative of each element is another evaluation of the objective, without its derivatives. (Pflug, 1996; Mohamed, Rosca,
Figurnov and Mnih, "Monte Carlo gradient estimation in machine learning", JMLR 21, 2020, section 6.)
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ppl import distributions
from ppl.distributions import dist
from ppl.log_sums import NOTHING

from .strategy import Alternative, Chosen, Strategy, refuse, zero


class MeasureValued(Strategy):
    """See the file's docstring."""

    def check(self, address, d):
        if _form(d) is None:
            raise refuse(
                "MeasureValued()", address, d, "is for Normal, Exponential, Poisson and distributions of known, finite support"
            )

    def choose(self, d, key):
        return Chosen(lax.stop_gradient(distributions.draw(d, key)))

    def alternatives(self, d, key, chosen):
        form = _form(d)
        assert form is not None, "check() came first"
        return form(distributions.base(d), jax.random.fold_in(key, 1), chosen.value)


def _form(d):
    """How the derivative of `d` is a difference."""
    if distributions.num_values(d) is not None:
        return _finite
    return {dist.Normal: _normal, dist.Poisson: _poisson, dist.Exponential: _exponential}.get(type(distributions.base(d)))


def _finite(d, key, value):
    """All other values. Of value x + j the coefficient is the gradient of its probability."""
    num = distributions.num_values(d)
    assert num is not None
    others = jax.vmap(lambda j: distributions.value_after(d, value, j))(jnp.arange(1, num))
    probabilities = jax.vmap(lambda x: _probability(d, x))(others)
    probabilities = jnp.moveaxis(probabilities, 0, -1)
    return Alternative(jnp.moveaxis(others, 0, -1), zero(probabilities), probabilities > NOTHING)


def _probability(d, value):
    return jnp.exp(distributions.log_prob_inside(d, value))


def _poisson(d, key, value):
    return Alternative((value + 1)[..., None], jnp.broadcast_to(zero(d.rate), value.shape)[..., None])


def _exponential(d, key, value):
    rate = jnp.broadcast_to(d.rate, value.shape)
    at = lax.stop_gradient(rate)
    later = value + jax.random.exponential(key, value.shape, at.dtype) / at
    return Alternative(later[..., None], (-zero(rate) / at)[..., None])


def _normal(d, key, value):
    loc, scale = jnp.broadcast_to(d.loc, value.shape), jnp.broadcast_to(d.scale, value.shape)
    at, width = lax.stop_gradient(loc), lax.stop_gradient(scale)
    key_loc, key_sign, key_scale = jax.random.split(key, 3)
    weibull = jnp.sqrt(2.0 * jax.random.exponential(key_loc, value.shape, at.dtype))
    maxwell = jnp.linalg.norm(jax.random.normal(key_scale, (3, *value.shape), at.dtype), axis=0)
    maxwell = maxwell * jax.random.rademacher(key_sign, value.shape, at.dtype)
    by_loc, by_scale = zero(loc) / (width * math.sqrt(2.0 * math.pi)), zero(scale) / width
    values = at + width * weibull, at - width * weibull, at + width * maxwell
    return Alternative(jnp.stack(values, axis=-1), jnp.stack((by_loc, -by_loc, by_scale), axis=-1))
