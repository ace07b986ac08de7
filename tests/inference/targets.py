"""Targets with exact answers, which the tests of this folder share."""

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 100.0]])
MEAN = np.array([1.0, -2.0, 30.0])


def correlated():
    """A normal with correlated and unlike coordinates."""
    precision, mean = jnp.asarray(np.linalg.inv(COVARIANCE)), jnp.asarray(MEAN)

    def log_density(choices):
        x = choices["x"] - mean
        return -0.5 * x @ precision @ x

    return ppl.Target.from_log_density(log_density, {"x": jnp.zeros(3)})


def log_gamma():
    """The log of a Gamma(2, 1) variable: skewed, with exact draws `np.log(rng.gamma(2.0))`."""
    return ppl.Target.from_log_density(lambda c: 2.0 * c["x"] - jnp.exp(c["x"]), {"x": jnp.zeros(())})


@ppl.model
def conjugate():
    """mu given three data is Normal(1.5, 0.5): prior precision 1, data precision 3, data mean 2."""
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def seen(y):
        sample("y", dist.Normal(mu, 1.0), obs=y)

    ppl.vmap(seen)(jnp.array([1.0, 2.0, 3.0]))
    ppl.deterministic("twice", 2.0 * mu)


@ppl.model
def schools(sigma):
    """Eight schools, non-centred."""
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def school(s):
        z = sample("z", dist.Normal(0.0, 1.0))
        return sample("y", dist.Normal(mu + tau * z, s))

    return ppl.vmap(school)(sigma)


Y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
