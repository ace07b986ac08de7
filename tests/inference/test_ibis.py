"""IBIS and the order of data against exact evidences; see `evidence.py` for the margins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.resampling import ess
from inference.smc.data_order import DataOrder, DataOrderPath
from inference.smc.ibis import ibis
from inference.smc.reweight import ByESS, Ladder
from inference.smc.sample import smc
from ppl import dist, sample
from tests.inference.evidence import assert_calibrated, assert_unbiased, coin, regression, z_scores

SMALL = regression(2, 20)


def test_the_error_of_the_evidence_is_right():
    """The log of an unbiased estimate lies too low by half its variance: with so many particles by a tenth of an error."""
    assert_calibrated(z_scores(ibis(moves=10), SMALL, 2000, 60))


@pytest.mark.slow
@pytest.mark.parametrize("method", [ibis(moves=20), ibis(moves=20, to=ByESS(0.5))])
def test_the_error_of_the_evidence_is_right_in_eight_dimensions(method):
    z = z_scores(method, regression(), 1000, 200)
    assert abs(z.mean()) < 0.3
    assert 0.85 < z.std() < 1.15


@pytest.fixture(scope="module")
def flips():
    return smc(coin().program, ibis(moves=10), key=jax.random.key(0), particles=2000, progress=False)


def test_every_datum_has_its_evidence(flips):
    """Of the first n flips of a coin, for all n, within four errors."""
    np.testing.assert_array_equal(flips.stages["num_data"], np.arange(13))
    exact = np.array([0.0] + [coin(n).exact for n in range(1, 13)])
    error = flips.stages["log_evidence_error"]
    assert (np.abs(flips.stages["log_evidence"] - exact)[1:] < 4 * error[1:] + 1e-3).all()
    assert 0 < flips.stages["resampled"].sum() < 12
    assert flips["p"].mean() == pytest.approx(11 / 16, abs=0.012)


@pytest.mark.slow
def test_recorded_choices_are_unbiased():
    case = SMALL
    posterior = smc(case.program, ibis(moves=5), key=jax.random.key(0), particles=64, progress=False)
    frozen = posterior.run.frozen()
    np.testing.assert_array_equal(frozen.stage.steps[1].recorded, posterior.stages["resampled"][1:] > 0)
    assert_unbiased(frozen, case, 64, 400)


def test_a_level_off_by_one_would_be_seen(monkeypatch):
    """Planted: the moves are on the target of one datum less."""
    monkeypatch.setattr(
        DataOrderPath, "log_density", lambda self, p, n: p.log_prior + p.log_likelihoods[jnp.maximum(n - 1, 0)]
    )
    assert np.abs(z_scores(ibis(moves=10), SMALL, 1000, 4)).min() > 3


def test_particles_know_the_density_at_every_level():
    path = DataOrder().of(SMALL.program)
    position = jnp.array([0.3, -0.2])
    particle = jax.jit(path.at)(position)
    log_prior, log_likelihood = path.target.log_prior_and_likelihood(position)
    assert float(path.log_density(particle, 0)) == pytest.approx(float(log_prior), rel=1e-5)
    assert float(path.log_density(particle, 20)) == pytest.approx(float(log_prior + log_likelihood), rel=1e-5)
    x, y = SMALL.program.args[0], SMALL.program.data["y"]
    own = dist.Normal(x[:7] @ position, 1.0).log_prob(y[:7]).sum()
    assert float(path.log_density(particle, 7) - log_prior) == pytest.approx(float(own), rel=1e-4)


def test_the_furthest_level_fits_and_the_next_does_not():
    path = DataOrder().of(SMALL.program)
    population = jax.jit(lambda path: path.start(jax.random.key(0), 500))(path)

    def share(n):
        return float(ess(population.particles.log_likelihoods[:, n])) / 500

    @jax.jit
    def furthest(least):
        return path.furthest(population, lambda alive: lambda log_ratio: ess(log_ratio) >= least * 500)

    for least in (0.3, 0.6):
        n = int(furthest(least))
        assert share(n) >= least > share(n + 1)
    assert furthest(0.0) == 20
    assert furthest(1.1) == 1  # one more in any case
    assert int(path.furthest(population._replace(level=jnp.int32(19)), lambda alive: lambda log_ratio: jnp.array(False))) == 20


@ppl.model
def measured():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("once", dist.Normal(mu, 1.0))
    sample("often", dist.Normal(mu, 1.0).expand([3, 2]))


def test_sites_without_an_axis_count_with_the_first_datum():
    path = DataOrder().of(measured() | {"once": 0.5, "often": np.ones((3, 2))})
    assert path.num_data == 3
    found = jax.jit(path.at)(jnp.zeros(1)).log_likelihoods
    one, two = dist.Normal(0.0, 1.0).log_prob(0.5), 2 * dist.Normal(0.0, 1.0).log_prob(1.0)
    np.testing.assert_allclose(found, [0.0, one + two, one + 2 * two, one + 3 * two], rtol=1e-5)


@ppl.model
def two_sizes():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("a", dist.Normal(mu, 1.0).expand([3]))
    sample("b", dist.Normal(mu, 1.0).expand([4]))


@ppl.model
def one_event():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0).expand([3]).to_event(1))


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match=r"leading axes of the observed sites disagree \(a 3, b 4\)"):
        DataOrder().of(two_sizes() | {"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(ValueError, match="some observed site must have an axis of independent data, but y has none"):
        DataOrder().of(one_event() | {"y": np.zeros(3)})
    with pytest.raises(ValueError, match="numbers of data must be whole and increase from at least 1 to exactly 20"):
        smc(SMALL.program, ibis(to=Ladder(jnp.arange(1, 20))), key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="WhereUneven: ess must be a share"):
        ibis(ess=1.5)


def test_no_model_is_evaluated_to_reweight(monkeypatch):
    """The next level, and the weights there, come from what particles hold."""
    path = DataOrder().of(SMALL.program)
    population = jax.eval_shape(lambda: path.start(jax.random.key(0), 10))
    monkeypatch.setattr(ppl.Program, "run", None)
    jax.eval_shape(
        lambda p: path.log_ratio(p.particles, p.level, path.furthest(p, lambda alive: lambda r: ess(r) > 5.0)), population
    )
    with pytest.raises(TypeError):
        path.at(jnp.zeros(2))
