"""Several draws from a guide, weighted: what the bounds of many samples have in common.

With x_k from the guide and w_k = p(x_k, data) / q(x_k), E[w_k f(x_k)] is the integral of p(x, data) f(x): the mean of the w_k
estimates the evidence, and weights that are divided by their sum estimate posterior means.
"""

import jax
import jax.numpy as jnp

import ppl

from .match import same_sites
from .minibatch import Scaled


def weighted(model, guide):
    """A draw from the guide, and its log weight, a scalar."""
    choices, log_q = ppl.draw(guide)
    return choices, model.log_density(choices) - log_q


def population(model, guide, num: int):
    """`num` draws (num, ...) from the guide, and their log weights (num,)."""
    same_sites(model, guide)
    not_in_part(model, guide)
    return ppl.vmap(lambda: weighted(model, guide), axis_size=num)()


def shares(log_weights) -> jax.Array:
    """Weights (K,) that sum to one, and that no gradient goes through."""
    return jax.lax.stop_gradient(jax.nn.softmax(log_weights))


def posterior_mean(log_weights, values) -> jax.Array:
    """The self-normalised estimate, from log weights (K,) and values (K,); what has no weight counts nothing."""
    share = shares(log_weights)
    return jnp.sum(share * jnp.where(share > 0, values, 0.0))


def not_in_part(*programs) -> None:
    """Refuse the density of a minibatch: its logarithm is unbiased, and a function of that is not."""
    if any(isinstance(program, Scaled) for program in programs):
        raise ValueError(
            "this objective is no sum of log densities, so from a minibatch its mean would be another. Use elbo or stl; or, "
            "where all latent sites are those of some row, by_row(objective, size=...)."
        )


def check_num(who: str, num: int, least: int = 1) -> None:
    """Raise ValueError unless `num` is a whole number of at least `least`."""
    if isinstance(num, bool) or not isinstance(num, int) or num < least:
        raise ValueError(f"{who}: the number of draws must be a whole number of at least {least}, got {num!r}.")
