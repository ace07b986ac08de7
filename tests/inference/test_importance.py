"""Importance sampling and its annealed form against exact evidences; see `evidence.py` for the margins."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.diagnostics import SamplingWarning
from inference.mcmc.random_walk import RandomWalk
from inference.smc.annealed_importance import annealed_importance
from inference.smc.importance import importance, smooth
from inference.smc.loop import Method
from inference.smc.reweight import Ladder, Reweight
from inference.smc.sample import smc
from inference.smc.tempering import tempering
from inference.smc.tempering_path import Tempering, TemperingPath
from ppl import dist, sample
from tests.inference.evidence import assert_calibrated, assert_unbiased, coin, gaussian_process, regression, z_scores

SMALL = regression(2, 20)
LEVELS = jnp.linspace(0, 1, 31)[1:] ** 3


def at_once(proposal=None) -> Method:
    return Method(Tempering(proposal), Reweight(Ladder(jnp.ones(1))))


@ppl.model
def beta(a, b):
    sample("p", dist.Beta(a, b))


# -- importance sampling ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_error_of_the_evidence_is_right():
    """100 runs each: of a coin from its prior and from a guide, and of a Gaussian process."""
    for case, proposal in ((coin(), None), (coin(), beta(8.0, 4.0)), (gaussian_process(), None)):
        z = z_scores(at_once(proposal), case, 4000, 100)
        assert abs(z.mean()) < 0.3
        assert 0.85 < z.std() < 1.15


def test_the_evidence_is_unbiased():
    assert_unbiased(at_once(beta(8.0, 4.0)), coin(), 100, 1000)


def test_a_density_in_other_coordinates_would_be_seen(monkeypatch):
    """Planted: the proposal's density without the Jacobian."""

    def at(self, position):
        point = kept(self, position)
        jacobian = self.target.log_jacobian(position)
        return point._replace(log_reference=point.log_reference - jacobian, log_ratio=point.log_ratio + jacobian)

    kept = TemperingPath.at
    monkeypatch.setattr(TemperingPath, "at", at)
    with pytest.raises(AssertionError):
        assert_unbiased(at_once(beta(8.0, 4.0)), coin(), 100, 1000)


def test_draws_are_the_posterior_and_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplingWarning)
        posterior = importance(coin().program, beta(8.0, 4.0), key=jax.random.key(0), num=5000)
    assert posterior.shape == (1, 5000)
    assert posterior["p"].mean() == pytest.approx(11 / 16, abs=0.01)
    assert posterior.log_evidence == pytest.approx(coin().exact, abs=5 * posterior.log_evidence_error)
    assert posterior.stages["pareto_k"][-1] < 0.5
    assert posterior.provenance["algorithm"] == "importance"


def test_a_proposal_far_away_is_told():
    """Beta(60, 20) under Beta(11, 5): weights as x^-12 in the tail, so that k is far above 0.7."""
    with pytest.warns(SamplingWarning, match=r"heavy tails \(Pareto k \d.*Take a proposal that is wider"):
        posterior = importance(coin().program, beta(60.0, 20.0), key=jax.random.key(0), num=5000)
    assert posterior.stages["pareto_k"][-1] > 0.7


def test_k_is_the_shape_of_the_weights():
    """Weights of a Pareto law of shape k; zero weights stay zero. 20,000 draws: within 0.1."""
    uniform = jax.random.uniform(jax.random.key(0), (20_000,))
    for k in (0.3, 0.9):
        log_weights = (-k * jnp.log(uniform)).at[0].set(-jnp.inf)
        smoothed, found = smooth(log_weights)
        assert found == pytest.approx(k, abs=0.1)
        assert smoothed[0] == -jnp.inf
        order = np.argsort(log_weights)[:-600]  # all but the largest are as they were, up to one factor
        assert np.ptp(np.asarray(smoothed - log_weights)[order[1:]]) < 1e-4


def test_wrong_proposals_are_told():
    posterior = importance(coin().program, beta(8.0, 4.0), key=jax.random.key(0), num=100)
    with pytest.raises(ValueError, match="must be a program over the same latent sites, got Posterior"):
        importance(coin().program, posterior, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"the reference has data or factors at y"):
        importance(coin().program, coin().program, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"the reference has the latent sites p, but the program has b\[2\]"):
        importance(SMALL.program, beta(1.0, 1.0), key=jax.random.key(0))


@pytest.mark.parametrize("low, high", [(0.2, 1.0), (0.0, 0.7)])
def test_a_proposal_that_never_proposes_all_is_told(low, high):
    """Also where a way by tempering begins; one that is wider is none of these."""

    @ppl.model
    def part(low, high):
        sample("p", dist.Uniform(low, high))

    sentence = "site 'p' is .*interval.*, but .*interval.* in the reference, whose draws never reach all"
    for run in (
        lambda q: importance(coin().program, q, key=jax.random.key(0), num=100),
        lambda q: smc(coin().program, tempering(reference=q), key=jax.random.key(0), particles=100, progress=False),
    ):
        with pytest.raises(ValueError, match=sentence):
            run(part(low, high))
    assert np.isfinite(importance(coin().program, part(0.0, 1.0), key=jax.random.key(0), num=100).log_evidence)


@pytest.mark.parametrize("last", [-0.5, 1.5])
def test_an_inverse_temperature_that_is_none_is_told(last):
    with pytest.raises(
        ValueError, match=rf"^Tempering: the last inverse temperature must be a number from 0 to 1, got {last}\.$"
    ):
        Tempering(last=last)


# -- annealed importance sampling ------------------------------------------------------------------------------------------


def test_the_error_of_annealed_evidence_is_right():
    assert_calibrated(z_scores(annealed_importance(RandomWalk(), LEVELS, moves=3), SMALL, 400, 30))


@pytest.mark.slow
def test_the_error_of_annealed_evidence_is_right_in_eight_dimensions():
    """With recorded choices, and an effective sample size of some hundreds: weights that are less even, and settings learned
    from few, make it 10 to 20 % too small."""
    method, case = annealed_importance(RandomWalk(), jnp.linspace(0, 1, 121)[1:] ** 3, moves=20), regression()
    posterior = smc(case.program, method, key=jax.random.key(0), particles=1000, progress=False)
    z = z_scores(posterior.run.frozen(), case, 1000, 100)
    assert abs(z.mean()) < 0.3
    assert 0.85 < z.std() < 1.15


@ppl.model
def normal(loc, scale):
    sample("x", dist.Normal(loc, scale).expand([2]).to_event(1))


@pytest.mark.slow
def test_every_level_has_its_evidence():
    """From N(0, 3^2) to N(4, 0.5^2), in two dimensions: log Z at every level, within four errors."""
    method = annealed_importance(RandomWalk(), LEVELS, moves=3, reference=normal(0.0, 3.0))
    posterior = smc(normal(4.0, 0.5), method, key=jax.random.key(1), particles=2000, progress=False)
    b = posterior.stages["inverse_temperature"].astype(float)
    v0, v1, m = 9.0, 0.25, 4.0
    v = 1 / ((1 - b) / v0 + b / v1)
    log_z = 2 * (
        0.5 * np.log(v) - (1 - b) * 0.5 * np.log(v0) - b * 0.5 * np.log(v1) - 0.5 * (b * m**2 / v1 - (b * m / v1) ** 2 * v)
    )
    off = np.abs(posterior.stages["log_evidence"] - log_z)
    assert (off < 4 * posterior.stages["log_evidence_error"] + 1e-3).all()


@pytest.mark.slow
def test_recorded_choices_are_unbiased():
    method = annealed_importance(RandomWalk(), LEVELS, moves=2)
    posterior = smc(SMALL.program, method, key=jax.random.key(0), particles=100, progress=False)
    assert_unbiased(posterior.run.frozen(), SMALL, 100, 300)


def test_moves_on_another_target_would_be_seen(monkeypatch):
    """Planted: particles move on the level that is four fifths of theirs."""
    kept = TemperingPath.at_level
    monkeypatch.setattr(TemperingPath, "at_level", lambda self, level: kept(self, 0.8 * level))
    monkeypatch.setattr(TemperingPath, "log_density", lambda self, p, level: p.log_reference + 0.8 * level * p.log_ratio)
    z = z_scores(annealed_importance(RandomWalk(), LEVELS, moves=3), SMALL, 400, 4)
    assert np.abs(z).min() > 3


def test_levels_must_end_at_one():
    with pytest.raises(ValueError, match="inverse temperatures must increase from above 0 to exactly 1"):
        smc(SMALL.program, annealed_importance(RandomWalk(), jnp.linspace(0.1, 0.9, 5)), key=jax.random.key(0), progress=False)
