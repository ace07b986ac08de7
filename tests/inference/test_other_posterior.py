"""From the posterior of one conditioned program to that of another: a wrong surrogate is put right, and so is its evidence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ppl
from inference.mcmc.random_walk import RandomWalk
from inference.mcmc.sample import mcmc
from inference.smc.history import Last
from inference.smc.particle_filter import particle_filter
from inference.smc.sample import smc
from inference.smc.tempering import tempering
from inference.smc.tempering_path import TemperingPath
from ppl import dist, sample
from tests.inference.evidence import assert_calibrated

QUIET = {"progress": False, "check": False}
X = np.linspace(-1, 1, 12)
Y = 1.5 * X + 0.3 + 0.4 * np.cos(9 * X)


def costly(a, b):
    return a * jnp.asarray(X) + b


def surrogate(a, b):
    """Too steep, too low, and bent."""
    return 1.15 * a * jnp.asarray(X) + b - 0.3 + 1.2 * jnp.asarray(X) ** 2


@ppl.model
def line():
    a = sample("a", dist.Normal(0.0, 2.0))
    b = sample("b", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(ppl.call("predict", costly, a, b), 0.4))


TRUE = line() | {"y": Y}
WRONG = line().intervene({"predict": surrogate}) | {"y": Y}


def exact(slope: float, shift):
    """Mean of the posterior of a and b, and log evidence."""
    design = np.stack([slope * X, np.ones_like(X)], axis=1)
    law = multivariate_normal(shift, 4 * design @ design.T + 0.16 * np.eye(len(X)))
    return 4 * design.T @ np.linalg.solve(law.cov, Y - shift), float(law.logpdf(Y))


(MEAN, TRUTH), (WRONG_MEAN, UNTRUTH) = exact(1.0, 0 * X), exact(1.15, 1.2 * X**2 - 0.3)
METHOD = tempering(moves=8)


def chain(seed: int, particles: int = 300):
    """The surrogate's posterior, and that which begins there."""
    rough = smc(WRONG, METHOD, key=jax.random.key(seed), particles=particles, **QUIET)
    return rough, smc(TRUE, tempering(moves=8, reference=rough), key=jax.random.key(seed + 1000), particles=particles, **QUIET)


@pytest.mark.slow
def test_a_wrong_surrogate_is_put_right():
    """Defect D7: a surrogate taken for the truth, and nothing that corrects the evidence at the end."""
    rough, right = chain(0)
    assert abs(rough.log_evidence - UNTRUTH) < 4 * rough.log_evidence_error
    assert abs(rough.log_evidence - TRUTH) > 10 * rough.log_evidence_error
    assert abs(right.log_evidence - TRUTH) < 4 * right.log_evidence_error < 1
    assert right.log_evidence_error > rough.log_evidence_error
    found = [float(np.mean(right[name])) for name in "ab"]
    np.testing.assert_allclose(found, MEAN, atol=0.1)  # five errors of 300 draws
    assert np.abs(WRONG_MEAN - MEAN).min() > 0.15
    assert right.stages["inverse_temperature"][0] == 0 and right.stages["log_evidence"][0] == pytest.approx(rough.log_evidence)


@pytest.mark.slow
def test_the_error_of_the_evidence_is_that_of_both():
    runs = [chain(seed)[1] for seed in range(25)]
    assert_calibrated(np.array([(run.log_evidence - TRUTH) / run.log_evidence_error for run in runs]))


@pytest.mark.slow
def test_other_numbers_of_particles():
    rough = smc(WRONG, METHOD, key=jax.random.key(3), particles=1000, **QUIET)
    for particles in (400, 2000):
        method = tempering(moves=8, reference=rough)
        right = smc(TRUE, method, key=jax.random.key(4), particles=particles, **QUIET)
        assert abs(right.log_evidence - TRUTH) < 4 * right.log_evidence_error < 0.8


@pytest.fixture(scope="module")
def draws():
    kernel = RandomWalk()
    return mcmc(WRONG, kernel, key=jax.random.key(0), chains=4, draws=1000, warmup=300, **QUIET)


def with_evidence_one(draws):
    return dataclasses.replace(draws, log_evidence=0.0, log_evidence_error=0.0)


def test_draws_of_markov_chains_have_no_evidence_and_neighbours_are_one_family(draws):
    with pytest.raises(
        ValueError, match=r"has no log evidence .* for the ratio of the evidences of the two programs, give it"
    ):
        smc(TRUE, tempering(reference=draws), key=jax.random.key(0), **QUIET)
    path = tempering(reference=with_evidence_one(draws)).way.of(TRUE)
    families = np.asarray(path.draws.families).reshape(4, 1000)
    assert len(np.unique(families)) == 64 and (np.diff(families, axis=1) >= 0).all()
    np.testing.assert_allclose(path.draws.positions[:, 0], np.ravel(draws["a"]), rtol=1e-6)


@pytest.mark.slow
def test_draws_of_markov_chains_tell_the_ratio(draws):
    method = tempering(moves=8, reference=with_evidence_one(draws))
    right = smc(TRUE, method, key=jax.random.key(0), particles=2000, **QUIET)
    assert abs(right.log_evidence - (TRUTH - UNTRUTH)) < 4 * right.log_evidence_error < 1.2


@ppl.model
def series(noise):
    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, noise))
        return z, None

    ppl.scan(step, 0.0, length=4)


@pytest.mark.slow
def test_from_a_filter_to_another_noise():
    """A loop's paths are draws of all its sites."""
    y = np.array([0.3, 1.0, 1.4, 0.2])
    rough = smc(series(1.5) | {"y": y}, particle_filter(), key=jax.random.key(0), particles=1000, **QUIET)
    method = tempering(moves=10, reference=rough)
    right = smc(series(0.8) | {"y": y}, method, key=jax.random.key(1), particles=1000, **QUIET)
    steps = np.minimum.outer(np.arange(1, 5), np.arange(1, 5)) + 0.64 * np.eye(4)
    assert abs(right.log_evidence - multivariate_normal(np.zeros(4), steps).logpdf(y)) < 4 * right.log_evidence_error < 0.6

    short = smc(series(1.5) | {"y": y}, particle_filter(), key=jax.random.key(0), history=Last(), **QUIET)
    with pytest.raises(ValueError, match=r"does not know its program.* history=Paths\(\)"):
        smc(series(0.8) | {"y": y}, tempering(reference=short), key=jax.random.key(1), **QUIET)


@pytest.mark.slow
def test_a_reference_weighed_without_its_data_is_found(monkeypatch):
    """Planted: draws of the surrogate's posterior, taken for draws of its prior."""
    plain = TemperingPath.at

    def of_the_prior(self, position):
        return plain(self, position)._replace(log_ratio=self.target.log_prior_and_likelihood(position)[1])

    rough = smc(WRONG, METHOD, key=jax.random.key(0), particles=300, **QUIET)
    particles = 310  # another number, so that the program is not the one compiled before
    monkeypatch.setattr(TemperingPath, "at", of_the_prior)
    right = smc(TRUE, tempering(moves=8, reference=rough), key=jax.random.key(1), particles=particles, **QUIET)
    assert abs(right.log_evidence - TRUTH) > 10 * right.log_evidence_error


@ppl.model
def other():
    sample("a", dist.Normal(0.0, 2.0))


def test_wrong_use_is_told(draws):
    key = jax.random.key(0)
    rough = with_evidence_one(draws)
    with pytest.raises(ValueError, match=r"2 islands would begin at the same draws of the reference, and so err together"):
        smc(TRUE, tempering(reference=rough), key=key, islands=2, **QUIET)
    with pytest.raises(ValueError, match=r"does not know its program.* dataclasses\.replace\(posterior, program=program\)"):
        smc(TRUE, tempering(reference=dataclasses.replace(rough, program=None)), key=key, **QUIET)
    with pytest.raises(ValueError, match=r"reference's program has the latent sites a, b, but the program has a\. They must"):
        smc(other(), tempering(reference=rough), key=key, **QUIET)
    with pytest.raises(ValueError, match=r"reference must be a program or a posterior of one, got int"):
        smc(TRUE, tempering(reference=3), key=key, **QUIET)
    with pytest.raises(ValueError, match=r"reference has data or factors at y.* or a posterior of this one"):
        smc(TRUE, tempering(reference=WRONG), key=key, **QUIET)
