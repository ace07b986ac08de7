"""Waste-free sequential Monte Carlo against exact evidences; see `evidence.py` for the margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.mcmc.hmc import HMC
from inference.mcmc.random_walk import RandomWalk
from inference.population import Population
from inference.resampling import Systematic
from inference.smc.loop import Method
from inference.smc.move import Move
from inference.smc.reweight import ByESS, Reweight
from inference.smc.sample import smc
from inference.smc.step import sequence
from inference.smc.tempering_path import Tempering
from inference.smc.waste_free import Copies, WasteFree, waste_free
from tests.inference.evidence import assert_calibrated, assert_unbiased, coin, regression, z_scores


def test_the_error_of_the_evidence_is_right():
    assert_calibrated(z_scores(waste_free(length=10), regression(2, 20), 500, 30))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [RandomWalk(), HMC(num_steps=4)])
def test_the_error_of_the_evidence_is_right_in_eight_dimensions(kernel):
    length, particles = (100, 16_000) if isinstance(kernel, RandomWalk) else (20, 4000)  # so 160 and 200 chains
    z = z_scores(waste_free(kernel, length=length), regression(), particles, 200)
    assert abs(z.mean()) < 0.35  # it is -0.2 by Jensen's inequality alone
    assert 0.85 < z.std() < 1.15


@pytest.mark.slow
def test_recorded_choices_are_unbiased():
    case = regression(2, 20)
    posterior = smc(case.program, waste_free(length=10), key=jax.random.key(0), particles=100, progress=False)
    assert_unbiased(posterior.run.frozen(), case, 100, 400)


def method_with(copies) -> Method:
    return Method(Tempering(), sequence(Reweight(ByESS(0.5)), WasteFree(copies, Move(RandomWalk(), 9))))


class Undivided(Copies):
    """Planted: the weight of an ancestor goes to each of its copies in full."""

    def __call__(self, key, particles, log_weights, num=None):
        new = super().__call__(key, particles, log_weights, num)
        return new._replace(log_weights=new.log_weights + jnp.log(self.num))


def test_weights_that_are_not_shared_out_would_be_seen():
    z = z_scores(method_with(Undivided(Systematic(), 10)), regression(2, 20), 500, 8)
    assert z.mean() > 10


@pytest.mark.slow
def test_states_taken_for_independent_would_be_seen(monkeypatch):
    """Planted: every state is a family of its own."""
    kept = Population.resampled
    monkeypatch.setattr(Population, "resampled", lambda self, key, r: kept(self, key, r).as_founders())
    with pytest.raises(AssertionError):
        assert_calibrated(z_scores(waste_free(length=10), regression(2, 20), 500, 30))


@pytest.mark.slow
def test_copies_are_unbiased_and_side_by_side():
    log_weights = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.5]))
    keys = jax.random.split(jax.random.key(0), 4000)
    copies = Copies(Systematic(), 2)
    ancestors = np.asarray(jax.vmap(lambda key: copies.ancestors(key, log_weights, 6))(keys))
    np.testing.assert_array_equal(ancestors[:, ::2], ancestors[:, 1::2])
    counts = np.stack([(ancestors == j).sum(axis=1) for j in range(6)], axis=1)
    expected = 6 * np.asarray(jax.nn.softmax(log_weights))
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=5 / np.sqrt(4000))
    pinned = np.asarray(copies.ancestors_pinned(keys[0], log_weights, 6, 3))
    np.testing.assert_array_equal(pinned[:2], [3, 3])


@pytest.mark.slow
def test_draws_are_the_posterior():
    """12 flips: Beta(11, 5). 4,000 states, correlated: the mean within 0.01, some four errors."""
    posterior = smc(coin().program, waste_free(length=20), key=jax.random.key(3), particles=4000, progress=False)
    assert posterior["p"].mean() == pytest.approx(11 / 16, abs=0.01)
    assert posterior["p"].std() == pytest.approx(np.sqrt(11 * 5 / 16**2 / 17), abs=0.01)
    assert posterior.stages["correlation"][1:].max() < 0.6
    assert posterior.stages["num_moves"][-1] == 19


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="length must be at least 2"):
        waste_free(length=1)
    with pytest.raises(ValueError, match="1000 particles cannot be shared out .* chains of 30 states. Take particles=990"):
        smc(coin().program, waste_free(length=30), key=jax.random.key(0), particles=1000, progress=False)
