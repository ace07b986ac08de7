"""Every program has the published log density at a given point, and its better form is the same posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl

from .models import BENCHMARK, REFERENCES, program, published


@pytest.mark.parametrize("name", REFERENCES)
def test_log_density_is_the_published_one(x64, name):
    known = published(name)
    found = float(jax.jit(program(name).log_density)(known.point)) - REFERENCES[name].constant
    # the published value is printed with five decimals
    np.testing.assert_allclose(found, known.log_density, rtol=1e-6, atol=6e-6)


@pytest.mark.parametrize("name", ["diamonds-diamonds", "eight_schools-eight_schools_centered"])
def test_the_better_form_is_the_same_posterior(x64, name):
    plain, better = ppl.Target(program(name)), ppl.Target(program(name, better=True))
    latent = plain.constrain(jnp.zeros(plain.dim)).keys()

    def across(u):
        values = better.record(u)
        return plain.unconstrain({site: values[site] for site in latent})

    for key in jax.random.split(jax.random.key(0), 3):
        u = jax.random.normal(key, (better.dim,))
        change = jnp.linalg.slogdet(jax.jacobian(across)(u))[1]
        np.testing.assert_allclose(better.log_density(u), plain.log_density(across(u)) + change, rtol=1e-10)


def test_there_is_enough_to_compare_speed_on():
    assert len(BENCHMARK) >= 12 and set(BENCHMARK) <= set(REFERENCES)
