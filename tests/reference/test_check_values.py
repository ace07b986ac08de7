"""Every program has the published log density at a given point, and its better form is the same posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl

from .models import BENCHMARK, REFERENCES, program, published

BETTER = ["eight_schools-eight_schools_centered"]


@pytest.mark.parametrize("name", REFERENCES)
def test_log_density_is_the_published_one(x64, name):
    known = published(name)
    found = float(jax.jit(program(name).log_density)(known.point)) - REFERENCES[name].constant
    # the published value is printed with five decimals
    np.testing.assert_allclose(found, known.log_density, rtol=1e-6, atol=6e-6)


@pytest.mark.parametrize("name", BETTER)
def test_the_better_form_is_the_same_posterior(x64, name):
    plain, better = ppl.Target(program(name)), ppl.Target(program(name, better=True))
    latent = plain.constrain(jnp.zeros(plain.dim)).keys()

    def across(u):
        values = better.record(u)
        return plain.unconstrain({site: values[site] for site in latent})

    @jax.jit
    def both(u):
        change = jnp.linalg.slogdet(jax.jacobian(across)(u))[1]
        return better.log_density(u), plain.log_density(across(u)) + change

    for key in jax.random.split(jax.random.key(0), 3):
        # rates and scales well below 1, where no concentration falls to zero
        found, expected = both(0.3 * jax.random.normal(key, (better.dim,)) - 2.0)
        np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_there_is_enough_to_compare_speed_on():
    assert len(BENCHMARK) >= 12 and set(BENCHMARK) <= set(REFERENCES)
