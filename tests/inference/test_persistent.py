"""Persistent sampling against exact evidences; see `evidence.py` for the margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.smc import persistent as module
from inference.smc.loop import begin, finish
from inference.smc.persistent import persistent
from inference.smc.sample import smc
from ppl import dist, sample
from tests.inference.evidence import assert_calibrated, coin, regression, z_scores

SMALL = regression(2, 20)


@pytest.mark.slow
def test_the_error_of_the_evidence_is_right():
    assert_calibrated(z_scores(persistent(), SMALL, 200, 30))


@pytest.mark.slow
def test_few_populations_are_enough():
    """Of the last three alone: the oldest are overwritten, and what they did is not forgotten."""
    assert_calibrated(z_scores(persistent(most=3), SMALL, 200, 30))


@pytest.mark.slow
def test_the_error_of_the_evidence_is_right_in_eight_dimensions():
    z = z_scores(persistent(), regression(), 1000, 200)
    assert abs(z.mean()) < 0.3
    assert 0.85 < z.std() < 1.15


@pytest.mark.slow
def test_draws_are_of_all_populations_and_exact():
    """Beta(11, 5): 1,000 particles a level, so that the effective sample size is more."""
    posterior = smc(coin().program, persistent(), key=jax.random.key(0), particles=1000, progress=False)
    whole = posterior.run.population
    assert len(whole.log_weights) == 1000 * len(posterior.stages["ess"])
    assert whole.ess > 1000
    assert posterior.log_evidence == pytest.approx(posterior.stages["log_evidence"][-1], abs=1e-5)
    assert posterior.log_evidence_error == pytest.approx(posterior.stages["log_evidence_error"][-1], rel=1e-4)
    assert posterior["p"].mean() == pytest.approx(11 / 16, abs=0.012)
    assert posterior["p"].std() == pytest.approx(np.sqrt(11 * 5 / 16**2 / 17), abs=0.012)


@ppl.model
def mixture():
    sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-4.0, 4.0]), 0.5)))


@ppl.model
def wide():
    sample("x", dist.Normal(0.0, 5.0))


@pytest.mark.slow
def test_modes_keep_their_masses():
    """Two modes eight standard deviations apart; log Z is 0. 40 runs of 500: the mass of the left one within four errors."""
    method = persistent(reference=wide())
    path = method.way.of(mixture())

    @jax.jit
    def all_of(path, keys):
        def one(key):
            population = finish(method.stage, path, key, begin(method.stage, path, key, 500)).population
            left = jnp.mean(population.particles.position[:, 0] < 0)
            return left, population.log_evidence / population.log_evidence_error

        return jax.lax.map(one, keys)

    mass, z = (np.asarray(x) for x in all_of(path, jax.random.split(jax.random.key(0), 40)))
    assert abs(mass.mean() - 0.3) < 4 * mass.std() / np.sqrt(40)
    assert mass.std() < 0.06
    assert abs(z.mean()) < 4 / np.sqrt(40)


def test_levels_taken_to_be_normalised_would_be_seen(monkeypatch):
    """Planted: the mixture without its normalising constants."""
    kept = module.mixed
    monkeypatch.setattr(module, "mixed", lambda path, p, b, log_z, filled, b1: kept(path, p, b, 0 * log_z, filled, b1))
    assert np.abs(z_scores(persistent(), SMALL, 200, 4)).min() > 5


def test_errors_not_handed_on_would_be_seen(monkeypatch):
    """Planted: each evidence in the mixture is taken for exact."""
    kept = module.Populations.with_new
    monkeypatch.setattr(module.Populations, "with_new", lambda self, p, influence: kept(self, p, 0 * influence))
    with pytest.raises(AssertionError):
        assert_calibrated(z_scores(persistent(), SMALL, 200, 30))


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="most must be at least 2 populations"):
        persistent(most=1)
