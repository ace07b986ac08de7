"""Sequential Monte Carlo: steps keep populations properly weighted, and the door gives right posteriors and evidence.

False-alarm rates: means over repeated runs within 5 standard errors, some 60 comparisons.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.mcmc.hmc import HMC, mala
from inference.mcmc.nuts import NUTS
from inference.mcmc.random_walk import RandomWalk
from inference.mcmc.slice import Slice
from inference.metrics import Dense
from inference.resampling import Multinomial, Systematic, When
from inference.smc.loop import begin, finish
from inference.smc.move import Move, UntilMoved
from inference.smc.particle_filter import particle_filter
from inference.smc.program_path import ByStep
from inference.smc.resample import Resample
from inference.smc.reweight import ByCESS, ByESS, Ladder, Reweight
from inference.smc.sample import smc
from inference.smc.step import sequence
from inference.smc.tempering import tempering
from inference.smc.tempering_path import Tempering
from ppl import dist, sample

# -- a bridge whose every level is known ----------------------------------------------------------------------------------

Y, NOISE = 1.7, 0.6


@ppl.model
def normal():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, NOISE))


def exact_at(b):
    """log evidence, mean and variance at inverse temperature b."""
    precision = 1 + b / NOISE**2
    mean = b * Y / NOISE**2 / precision
    log_z = (
        -b * (0.5 * np.log(2 * np.pi) + np.log(NOISE))
        - 0.5 * np.log(precision)
        - 0.5 * (b * Y**2 / NOISE**2 - mean**2 * precision)
    )
    return log_z, mean, 1 / precision


LEVELS = jnp.array([0.1, 0.4, 1.0])
KERNELS = {
    "RandomWalk": RandomWalk(1.5, Dense.identity(1, jnp.float32)),
    "HMC": HMC(3, 0.4, Dense.identity(1, jnp.float32)),
    "Slice": Slice(),
}
STAGES = {
    "annealed": sequence(Reweight(Ladder(LEVELS)), Move(KERNELS["RandomWalk"], 2)),
    "resampled": sequence(Reweight(Ladder(LEVELS)), Resample(Systematic()), Move(KERNELS["HMC"], 1)),
    "triggered": sequence(Reweight(Ladder(LEVELS)), Resample(When(Multinomial(), ess=0.6)), Move(KERNELS["Slice"], 1)),
}


def integrals(stage, key, size: int):
    """Estimates of Z, of the integral of x, and of x^2."""
    path = Tempering().of(normal() | {"y": Y})
    population = finish(stage, path, key, begin(stage, path, key, size)).population
    x = population.particles.position[:, 0]
    weights = jnp.exp(population.log_divided + population.log_weights)
    return jnp.stack([jnp.mean(weights), jnp.mean(weights * x), jnp.mean(weights * x**2)])


def assert_unbiased(estimates, wanted):
    found = np.asarray(estimates, np.float64)
    error = found.std(axis=0) / np.sqrt(len(found))
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - wanted), 5 * error)


def wanted_integrals():
    log_z, mean, variance = exact_at(1.0)
    return np.exp(log_z) * np.array([1.0, mean, mean**2 + variance])


@pytest.mark.parametrize("name", STAGES)
def test_stages_keep_populations_properly_weighted(name):
    run = jax.jit(jax.vmap(lambda key: integrals(STAGES[name], key, 4)))
    assert_unbiased(run(jax.random.split(jax.random.key(0), 20_000)), wanted_integrals())


def test_a_wrong_order_would_be_seen():
    """Planted: moving at the old level after reweighting to the new one (the particles' weights are then another law's)."""

    class Late(Move):
        def __call__(self, key, population, memory, path):
            late = super().__call__(key, population._replace(level=jnp.float32(0.1)), memory, path)
            return late._replace(population=late.population._replace(level=population.level))

    stage = sequence(Reweight(Ladder(LEVELS)), Resample(Systematic()), Late(KERNELS["HMC"], 1))
    run = jax.jit(jax.vmap(lambda key: integrals(stage, key, 4)))
    with pytest.raises(AssertionError):
        assert_unbiased(run(jax.random.split(jax.random.key(0), 20_000)), wanted_integrals())


# -- a regression whose evidence is known ----------------------------------------------------------------------------------

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 5))
SEEN = X @ rng.normal(size=5) + rng.normal(size=60)


@ppl.model
def regression(x):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    ppl.deterministic("first", b[0])
    sample("y", dist.Normal(x @ b, 1.0).to_event(1))


def conjugate():
    """log evidence, posterior mean and covariance."""
    covariance = np.linalg.inv(np.eye(5) + X.T @ X)
    marginal = np.eye(60) + X @ X.T
    _, log_det = np.linalg.slogdet(2 * np.pi * marginal)
    return -0.5 * (log_det + SEEN @ np.linalg.solve(marginal, SEEN)), covariance @ X.T @ SEEN, covariance


PROGRAM = regression(jnp.asarray(X)) | {"y": jnp.asarray(SEEN)}


@pytest.fixture(scope="module")
def tempered():
    return smc(PROGRAM, tempering(), key=jax.random.key(0), particles=2000, progress=False)


def test_the_posterior_and_its_evidence(tempered):
    log_z, mean, covariance = conjugate()
    assert abs(tempered.log_evidence - log_z) < 5 * tempered.log_evidence_error
    assert 0.03 < tempered.log_evidence_error < 0.2
    b = tempered["b"][0]
    np.testing.assert_allclose(b.mean(axis=0), mean, atol=5 * np.sqrt(covariance.diagonal().max() / 1000))
    np.testing.assert_allclose(np.cov(b.T), covariance, atol=0.15 * covariance.max())
    np.testing.assert_array_equal(tempered["first"][0], b[:, 0])


def test_stages_tell_the_way(tempered):
    levels = tempered.stages["inverse_temperature"]
    assert levels[0] == 0
    assert levels[-1] == 1
    assert (np.diff(levels) > 0).all()
    # what was asked for is what is there, for the moved cloud was looked at, not the one before (anchors D1): within 2 %
    np.testing.assert_allclose(tempered.stages["ess"][1:-1] / 2000, 0.5, atol=0.01)
    assert tempered.stages["log_evidence"][-1] == pytest.approx(tempered.log_evidence, abs=1e-4)
    assert (tempered.stages["correlation"][1:] <= 0.1).all()


def test_what_can_be_done_with_a_posterior(tempered, tmp_path):
    from inference import Posterior

    assert "log evidence" in repr(tempered)
    assert tempered.check(), tempered.check()  # nothing of chains: particles come in no order
    assert tempered.summary().table.shape[0] == 6
    assert tempered.predict(key=jax.random.key(1))["y"].shape == (1, 2000, 60)
    assert tempered.to_datatree(log_likelihood=False)["posterior"]["b"].shape == (1, 2000, 5)
    tempered.save(tmp_path / "run.npz")
    again = Posterior.load(tmp_path / "run.npz")
    assert again.log_evidence == tempered.log_evidence
    np.testing.assert_array_equal(again.stages["ess"], tempered.stages["ess"])
    assert set(tempered.sample(jax.random.key(0))) == {"b", "first"}


@pytest.mark.slow
def test_a_frozen_run_is_unbiased(tempered):
    """E[Z-hat] / Z is one within 4 of its errors, of 100 runs."""
    method, path = tempered.run.frozen(), tempered.run.path
    log_z, *_ = conjugate()

    @jax.jit
    @jax.vmap
    def run(key):
        return finish(method.stage, path, key, begin(method.stage, path, key, 300)).population.log_evidence

    ratio = np.exp(np.asarray(run(jax.random.split(jax.random.key(5), 100)), np.float64) - log_z)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 10
    again = smc(PROGRAM, method, key=jax.random.key(9), particles=500, progress=False)
    np.testing.assert_allclose(again.stages["inverse_temperature"], tempered.stages["inverse_temperature"])
    np.testing.assert_array_equal(again.stages["num_moves"], tempered.stages["num_moves"])


@pytest.mark.parametrize(
    ("kernel", "moves", "rule"),
    [(HMC(4), 4, ByESS(0.5)), (mala(), UntilMoved(0.2), ByCESS(0.9)), (NUTS(max_depth=4), 2, ByESS(0.4))],
    ids=["HMC", "MALA, CESS", "NUTS"],
)
def test_any_kernel_moves(kernel, moves, rule):
    posterior = smc(PROGRAM, tempering(kernel, moves=moves, to=rule), key=jax.random.key(2), particles=500, progress=False)
    assert abs(posterior.log_evidence - conjugate()[0]) < 5 * posterior.log_evidence_error
    assert posterior.stages["acceptance_rate"][-1] == pytest.approx(kernel.target_acceptance, abs=0.1)


@pytest.mark.slow
def test_a_reference_near_the_posterior_shortens_the_way():
    _, mean, covariance = conjugate()

    @ppl.model
    def guide():
        sample("b", dist.MultivariateNormal(jnp.asarray(mean), jnp.asarray(1.5 * covariance)))

    posterior = smc(PROGRAM, tempering(reference=guide()), key=jax.random.key(3), particles=1000, progress=False)
    assert len(posterior.stages["inverse_temperature"]) <= 3
    assert abs(posterior.log_evidence - conjugate()[0]) < 5 * posterior.log_evidence_error


@pytest.mark.slow
def test_supports_are_mapped_and_counted():
    """A positive parameter: Gamma prior, Poisson data; the Jacobian must cancel in the evidence."""

    @ppl.model
    def counts():
        rate = sample("rate", dist.Gamma(2.0, 1.0))
        sample("n", dist.Poisson(rate).expand([3]).to_event(1))

    from scipy.special import gammaln

    n = np.array([3, 5, 4])
    exact = gammaln(2 + n.sum()) - gammaln(2) - (2 + n.sum()) * np.log(4) - gammaln(n + 1).sum()
    posterior = smc(counts() | {"n": n}, tempering(), key=jax.random.key(0), particles=4000, progress=False)
    assert abs(posterior.log_evidence - exact) < 5 * posterior.log_evidence_error
    assert posterior["rate"].mean() == pytest.approx((2 + n.sum()) / 4, abs=5 * 0.9 / np.sqrt(2000))

    @ppl.model
    def guide():
        sample("rate", dist.LogNormal(1.2, 0.5))

    near = smc(counts() | {"n": n}, tempering(reference=guide()), key=jax.random.key(0), particles=4000, progress=False)
    assert abs(near.log_evidence - exact) < 5 * near.log_evidence_error


def test_likelihoods_that_are_zero_for_many():
    """A hard limit: two thirds of the prior are dead at any level, which must not hold up the schedule."""

    @ppl.model
    def truncated():
        x = sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("limit", jnp.where(x > 0.5, 0.0, -jnp.inf))

    posterior = smc(truncated(), tempering(), key=jax.random.key(0), particles=4000, progress=False)
    assert len(posterior.stages["ess"]) < 4
    assert posterior.log_evidence == pytest.approx(np.log(1 - 0.6914625), abs=5 * posterior.log_evidence_error)
    assert (posterior["x"] > 0.5).all()


def test_settings_are_learned_on_any_scale():
    """Coordinates a million times apart in scale, and correlated: the moves accept as they should (anchors D2)."""
    scales = jnp.array([1e-3, 1.0, 1e3])

    @ppl.model
    def wide():
        x = sample("x", dist.Normal(0.0, scales).to_event(1))
        u = x / scales
        ppl.factor("near", -20.0 * (u[0] - u[1]) ** 2 - 20.0 * (u[1] - u[2] - 0.5) ** 2)

    posterior = smc(wide(), tempering(), key=jax.random.key(0), particles=1000, progress=False)
    np.testing.assert_allclose(posterior.stages["acceptance_rate"][2:], 0.234, atol=0.06)
    assert (posterior.stages["correlation"][1:] <= 0.1).all()


@ppl.model
def large():
    """128 dimensions, from N(0, 1) to N(1, 0.1^2)."""
    x = sample("x", dist.Normal(0.0, 1.0).expand([128]).to_event(1))
    ppl.factor("narrow", -0.5 * 99 * jnp.sum((x - 100 / 99) ** 2))


LARGE = 128 * (0.5 * np.log(1 / 100) - 0.5 * 100 / 99)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [HMC(8), RandomWalk()], ids=["HMC", "RandomWalk"])
def test_many_dimensions(kernel):
    """The evidence is right, and at least 95 % of the variance is kept (anchors D10: 20 to 35 % by short random walks)."""
    posterior = smc(large(), tempering(kernel), key=jax.random.key(0), particles=1000, progress=False)
    x = posterior["x"][0]
    assert abs(posterior.log_evidence - LARGE) < 5 * posterior.log_evidence_error
    assert posterior.log_evidence_error < 0.8
    assert 0.95 < (x.std(axis=0) ** 2).mean() / 0.01 < 1.05
    assert abs(x.mean() - 1.0) < 0.01


@pytest.mark.slow
def test_learning_from_oneself_would_be_seen(monkeypatch):
    """Planted: a metric made by all particles for all of them. In many dimensions the evidence is then far off."""
    move = importlib.import_module("inference.smc.move")
    monkeypatch.setattr(move, "from_each_other", move.covariance)
    planted = 1002  # particles, so that no other test has compiled it
    posterior = smc(large(), tempering(RandomWalk()), key=jax.random.key(0), particles=planted, progress=False)
    assert abs(posterior.log_evidence - LARGE) > 10 * posterior.log_evidence_error


def test_mirrored_particles_have_not_moved():
    """A trajectory of half a period ends at the mirror image: as far as can be, and as likely as before."""
    still = HMC(16, jnp.pi / 16, Dense.identity(1, jnp.float32), jitter=0.0)
    posterior = smc(normal() | {"y": Y}, tempering(still, moves=1, to=Ladder(jnp.array([1e-6, 1.0]))), key=jax.random.key(0),
        particles=1000, progress=False, check=False)  # fmt: skip
    assert posterior.stages["correlation"][1] > 0.9


def test_each_half_of_the_particles_learns_from_the_other():
    with pytest.raises(
        ValueError, match="the number of particles must be even, for each half learns from the other; it is 501"
    ):
        smc(PROGRAM, tempering(), key=jax.random.key(0), particles=501, progress=False)


# -- filters ----------------------------------------------------------------------------------


@ppl.model
def walk(length, q, r):
    def step(z, _):
        z = sample("z", dist.Normal(0.9 * z, q))
        sample("y", dist.Normal(z, r))
        return z, None

    ppl.scan(step, 0.0, length=length)


LENGTH, Q = 12, 1.0
OBSERVED = jnp.asarray(np.random.default_rng(1).normal(size=LENGTH) * 1.4)


def joint(r):
    """The covariances of z and y."""
    a = np.array([[0.9 ** (i - j) if i >= j else 0.0 for j in range(LENGTH)] for i in range(LENGTH)])
    z = Q**2 * a @ a.T
    return z, z + r**2 * np.eye(LENGTH)


def kalman(r, y=OBSERVED, seen=None):
    """log evidence; smoothing means and covariance."""
    z, marginal = joint(r)
    seen = np.ones(LENGTH, bool) if seen is None else seen
    y, cross, marginal = np.asarray(y, float)[seen], z[:, seen], marginal[np.ix_(seen, seen)]
    _, log_det = np.linalg.slogdet(2 * np.pi * marginal)
    gain = cross @ np.linalg.inv(marginal)
    return -0.5 * (log_det + y @ np.linalg.solve(marginal, y)), gain @ y, z - gain @ cross.T


def best(r):
    """The optimal proposal, and the exact look-ahead, of a walk."""

    def guide(z, x, data):
        precision = 1 / Q**2 + 1 / r**2
        mean = (0.9 * z / Q**2 + data["y"] / r**2) / precision
        return _proposal(mean, precision**-0.5)

    def ahead(z, x, data):
        return dist.Normal(0.9 * z, jnp.sqrt(Q**2 + r**2)).log_prob(data["y"])

    return guide, ahead


@ppl.model
def _proposal(mean, scale):
    sample("z", dist.Normal(mean, scale))


def test_a_bootstrap_filter_smooths_and_filters():
    program = walk(LENGTH, Q, 0.7) | {"y": OBSERVED}
    posterior = smc(program, particle_filter(), key=jax.random.key(0), particles=20_000, progress=False)
    log_z, mean, covariance = kalman(0.7)
    assert abs(posterior.log_evidence - log_z) < 5 * posterior.log_evidence_error
    assert posterior["z"].shape == (1, 20_000, LENGTH)
    np.testing.assert_allclose(posterior["z"][0].mean(axis=0), mean, atol=0.08)
    np.testing.assert_allclose(np.cov(posterior["z"][0].T), covariance, atol=0.05)
    last = posterior.run.filtered("z", (0.1, 0.5))[-1]
    np.testing.assert_allclose(last, mean[-1] + np.array([-1.2816, 0.0]) * np.sqrt(covariance[-1, -1]), atol=0.03)


@pytest.mark.parametrize("name", ["bootstrap", "guided", "auxiliary", "fully adapted"])
def test_filters_are_properly_weighted(name):
    """E[Z-hat] = Z with 10 particles, 5 standard errors of 20,000 runs."""
    guide, ahead = best(0.7)
    method = {
        "bootstrap": particle_filter(resample=Systematic()),
        "guided": particle_filter(proposal=guide),
        "auxiliary": particle_filter(twist=ahead, resample=Multinomial()),
        "fully adapted": particle_filter(proposal=guide, twist=ahead, resample=Systematic()),
    }[name]
    path = method.way.of(walk(LENGTH, Q, 0.7) | {"y": OBSERVED})

    @jax.jit
    @jax.vmap
    def run(key):
        population = finish(method.stage, path, key, begin(method.stage, path, key, 10)).population
        weights = jnp.exp(population.log_divided + population.log_weights)
        return jnp.stack([jnp.mean(weights), jnp.mean(weights * population.particles.carry)])

    log_z, mean, _ = kalman(0.7)
    assert_unbiased(run(jax.random.split(jax.random.key(1), 20_000)) / np.exp(log_z), np.array([1.0, mean[-1]]))


def test_a_guide_is_exact_where_the_bootstrap_fails():
    """Observation noise 100 times smaller than that of the state."""
    program, (guide, ahead) = walk(LENGTH, Q, 0.01) | {"y": OBSERVED}, best(0.01)
    method = particle_filter(proposal=guide, twist=ahead)
    guided = smc(program, method, key=jax.random.key(0), particles=1000, progress=False)
    assert abs(guided.log_evidence - kalman(0.01)[0]) < max(5 * guided.log_evidence_error, 1e-3)
    assert guided.stages["ess"].min() > 990
    plain = smc(program, particle_filter(), key=jax.random.key(0), particles=1000, progress=False)
    assert plain.stages["ess"].min() < 50


def test_missing_observations():
    hidden = np.zeros(LENGTH, bool)
    hidden[[2, 3, 7]] = True
    program = walk(LENGTH, Q, 0.7) | {"y": np.ma.masked_array(np.asarray(OBSERVED), hidden)}
    posterior = smc(program, particle_filter(), key=jax.random.key(0), particles=20_000, progress=False)
    log_z, mean, _ = kalman(0.7, seen=~hidden)
    assert abs(posterior.log_evidence - log_z) < 5 * posterior.log_evidence_error
    np.testing.assert_allclose(posterior["z"][0].mean(axis=0), mean, atol=0.08)


def test_islands_are_weighed_by_their_evidence():
    program = walk(LENGTH, Q, 0.7) | {"y": OBSERVED}
    posterior = smc(program, particle_filter(), key=jax.random.key(0), particles=500, islands=8, progress=False)
    log_z, mean, _ = kalman(0.7)
    assert posterior.stages["ess"].shape == (8, LENGTH)
    assert posterior["z"].shape == (1, 4000, LENGTH)
    assert abs(posterior.log_evidence - log_z) < 5 * posterior.log_evidence_error
    np.testing.assert_allclose(posterior["z"][0].mean(axis=0), mean, atol=0.15)
    ends = posterior.stages["log_evidence"][:, -1].astype(float)
    assert posterior.log_evidence == pytest.approx(np.log(np.mean(np.exp(ends))), abs=1e-4)


def test_collected_at_every_stage():
    program = walk(LENGTH, Q, 0.7) | {"y": OBSERVED}
    posterior = smc(
        program, particle_filter(), key=jax.random.key(0), particles=5000, progress=False,
        collect=lambda population: population.mean(lambda walker: walker.carry),
    )  # fmt: skip
    assert posterior.run.collected.shape == (LENGTH,)
    assert posterior.run.collected[-1] == pytest.approx(kalman(0.7)[1][-1], abs=0.05)


def test_parameters_before_the_loop_come_along():
    @ppl.model
    def unknown(length):
        q = sample("q", dist.LogNormal(0.0, 0.5))
        sample("hint", dist.Normal(q, 0.5), obs=1.0)

        def step(z, _):
            z = sample("z", dist.Normal(z, q))
            sample("y", dist.Normal(z, 0.7))
            return z, None

        ppl.scan(step, 0.0, length=length)

    posterior = smc(
        unknown(LENGTH) | {"y": OBSERVED}, particle_filter(), key=jax.random.key(0), particles=3000, progress=False
    )
    assert posterior["q"].shape == (1, 3000)
    assert posterior["z"].shape == (1, 3000, LENGTH)


def test_the_path_of_a_loop_says_where_it_is():
    path = ByStep().of(walk(LENGTH, Q, 0.7) | {"y": OBSERVED})
    assert path.length == LENGTH
    assert path.told(3) == "step 2 of 12"
