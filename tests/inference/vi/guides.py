"""The registry of families: a member a line, and every law of `test_guides.py` is tested of it."""

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from inference.vi import (
    Amortised,
    Autoregressive,
    Coupling,
    FullRank,
    LowRank,
    MaskedAutoregressive,
    MeanField,
    Mixture,
)
from ppl import dist, sample

FAMILIES = {
    "mean field": MeanField(),
    "full rank": FullRank(),
    "low rank": LowRank(2),
    "autoregressive": Autoregressive(),
    "coupling": Coupling(layers=3, bins=4, width=8),
    "masked autoregressive": MaskedAutoregressive(layers=2, width=8),
    "mixture": Mixture(3),
    "mixture of flows": Mixture(2, of=MaskedAutoregressive(layers=1, width=4)),
    "amortised": Amortised(eqx.nn.MLP(1, 6, 4, 1, key=jax.random.key(0))),  # six parameters: for `space`
}


@ppl.model
def space():
    """Three coordinates: a positive one, one that depends on it, and one that depends on both."""
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    x = sample("x", dist.Normal(0.0, scale))
    sample("z", dist.Normal(x, scale))
    sample("y", dist.Normal(x, 1.0))


@ppl.model
def plane():
    """Two coordinates, one positive, and a datum."""
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    x = sample("x", dist.Normal(0.0, scale))
    sample("y", dist.Normal(x, 1.0))


@ppl.model
def supports():
    """A site of every kind of support."""
    a = sample("positive", dist.Gamma(2.0, 1.0))
    b = sample("simplex", dist.Dirichlet(jnp.ones(3)))
    sample("cholesky", dist.LKJCholesky(3, 1.0))
    c = sample("interval", dist.Uniform(-a, 1.0))
    sample("y", dist.Normal(a + b[0] * c, 1.0))


@ppl.model
def pair(x):
    """Linear, with normal noise: theta (2,) given y is Normal."""
    theta = sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    sample("y", dist.Normal(x @ theta, 0.5).to_event(1))


def shaken(guide, key, size: float = 0.3):
    """The guide with random numbers added to its parameters, so that nothing is at its beginning."""
    parameters, rest = eqx.partition(guide.law, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(key, len(leaves))
    new = [x + size * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return eqx.tree_at(lambda g: g.law, guide, eqx.combine(jax.tree.unflatten(structure, new), rest))
