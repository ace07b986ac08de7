"""Small programs that several tests train networks on."""

import jax.numpy as jnp

import ppl
from ppl import dist, sample


@ppl.model
def normal_rows(num, sd=1.0):
    mu = sample("mu", dist.Normal(1.0, sd))
    ppl.vmap(lambda _: sample("y", dist.Normal(mu, 2.0)))(jnp.arange(num))


@ppl.model
def rates(num):
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    ppl.vmap(lambda _: sample("y", dist.Poisson(rate)))(jnp.arange(num))


@ppl.model
def scales():
    return sample("alpha", dist.InverseGamma(8.0, 16.0)), sample("beta", dist.InverseGamma(8.0, 16.0))


@ppl.model
def variance(prior):
    v = sample("v", dist.InverseGamma(*prior))
    sample("z", dist.Normal(0.0, jnp.sqrt(v)))
