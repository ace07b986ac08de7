"""Learned centring: it finds what the theory says, entry by entry, and what NUTS then needs no gradients for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from ppl import dist, sample


@ppl.model
def groups(sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def group(s):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, s))

    ppl.vmap(group)(sigma)


def mixed():
    """Ten groups of which the data say all, and forty of which they say little."""
    rng = np.random.default_rng(0)
    sigma = np.repeat([0.3, 15.0], [10, 40])
    return groups(jnp.asarray(sigma)) | {"y": rng.normal(0.0, 5.0, 50) + rng.normal(0.0, sigma)}


def schools():
    sigma = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return groups(sigma) | {"y": jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])}


def test_each_entry_as_far_as_its_data_say():
    centring = inf.learn_centering(mixed(), key=jax.random.key(0))["theta"].centring
    assert centring.shape == (50,)
    assert (centring[:10] > 0.8).all() and (centring[10:] < 0.2).all()


def test_the_share_of_what_the_data_say(x64):
    """Of normal effects with known scale: tau^2 / (tau^2 + sigma^2), whatever the location."""

    @ppl.model
    def known_scale(tau, sigma):
        mu = sample("mu", dist.Normal(0.0, 5.0))
        theta = sample("theta", dist.Normal(mu, tau).expand(sigma.shape))
        sample("y", dist.Normal(theta, sigma))

    tau, sigma = 2.0, jnp.array([0.2, 1.0, 2.0, 4.0, 20.0])
    program = known_scale(tau, sigma) | {"y": jnp.array([1.0, -2.0, 3.0, 0.0, 30.0])}
    centring = inf.learn_centering(program, key=jax.random.key(0))["theta"].centring
    assert centring.dtype == "float64"
    np.testing.assert_allclose(centring, tau**2 / (tau**2 + sigma**2), atol=0.12)  # Adam's noise: up to 0.06 in ten keys


def test_schools_are_not_centred():
    assert (inf.learn_centering(schools(), key=jax.random.key(0))["theta"].centring < 0.25).all()


@pytest.mark.slow
@pytest.mark.slow
def test_the_effective_size_is_many_times_that_of_either_form(x64):
    """Measured: 105 per 1000 gradients, against 7 centred and at most 5 non-centred, of data of the same kind."""

    def per_gradient(program):
        posterior = inf.mcmc(program, inf.NUTS(), key=jax.random.key(1), progress=False, check=False)
        least = posterior.summary("mu", "tau", "theta").table["ess_bulk"].min()
        return least / (posterior.stats["n_steps"].sum() + posterior.warmup_stats["n_steps"].sum())

    program = mixed()
    learned = per_gradient(program.reparam(inf.learn_centering(program, key=jax.random.key(0))))
    assert learned > 4 * per_gradient(program) and learned > 4 * per_gradient(program.reparam())


def test_nothing_to_centre():
    @ppl.model
    def one():
        sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"^learn_centering: no latent location-scale site of this program depends on"):
        inf.learn_centering(one(), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"^site 'tau' cannot be non-centred: HalfCauchy is not a location-scale family"):
        inf.learn_centering(schools(), "tau", key=jax.random.key(0))
