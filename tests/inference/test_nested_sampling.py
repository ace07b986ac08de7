"""Nested sampling: evidence with an honest error, on likelihoods whose integrals are known or sums over a grid.

Runs are many at once, in one compiled program. False-alarm rates: a z-score's mean over n seeds is off by 1 / sqrt(n), and its
standard deviation by 0.7 / sqrt(n); bounds are at least three of these.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.mcmc.random_walk import RandomWalk
from inference.numerics import select
from inference.population import Population
from inference.smc.history import Last
from inference.smc.layers import shrinkage_variance
from inference.smc.loop import begin, goes_on, next_stage
from inference.smc.nested_sampling import nested_sampling
from inference.smc.reweight import Ladder, Reweight
from inference.smc.sample import smc
from inference.smc.shrink import Shrink
from inference.smc.tempering_path import Tempering
from inference.smc.threshold import Thresholds
from ppl import dist, factor, sample

normal = jax.scipy.stats.norm.logpdf


# -- likelihoods on the unit square, which is the prior --------------------------------------------------------------------


def mixture(x):
    """Two modes that do not see each other, of other shapes and weights."""
    one = normal(x, jnp.array([0.2, 0.3]), jnp.array([0.02, 0.05])).sum()
    other = normal(x, jnp.array([0.8, 0.7]), jnp.array([0.05, 0.01])).sum()
    return jnp.logaddexp(jnp.log(0.7) + one, jnp.log(0.3) + other)


def shells(x):
    def shell(x0):
        return normal(jnp.linalg.norm(12 * (x - 0.5) - jnp.array([x0, 0.0])), 2.0, 0.1)

    return jnp.logaddexp(shell(-3.5), shell(3.5))


def plateaus(x):
    """One at the foot that holds most of the prior, and one at the top."""
    radius = jnp.linalg.norm(x - 0.5)
    return jnp.where(radius > 0.3, -4.0, jnp.where(radius < 0.1, 3.0, -100 * (radius - 0.1) ** 2))


def constant(x):
    return 0 * x[0] - 1.25


def no_number(x):
    """NaN counts as impossible."""
    return jnp.where(x[0] < 0.5, jnp.nan, jnp.where(x[0] < 0.55, jnp.inf, 1.0))


CASES = {f.__name__: f for f in (mixture, shells, plateaus, constant, no_number)}


@ppl.model
def square(case):
    x = sample("x", dist.Uniform(jnp.zeros(2), jnp.ones(2)).to_event(1))
    factor("likelihood", jax.lax.switch(case, list(CASES.values()), x))


def by_quadrature(case, size=1500) -> float:
    """log of the mean over a grid of the square."""
    t = (jnp.arange(size) + 0.5) / size
    value = jax.jit(jax.vmap(jax.vmap(lambda a, b: case(jnp.stack([a, b])), (None, 0)), (0, None)))(t, t)
    value = np.asarray(jnp.where(value < jnp.inf, value, -jnp.inf), float)
    return float(np.logaddexp.reduce(value.ravel()) - 2 * np.log(size))


@ppl.model
def box(dim):
    x = sample("x", dist.Uniform(jnp.full(dim, -5.0), jnp.full(dim, 5.0)).to_event(1))
    factor("likelihood", normal(x).sum())


def box_evidence(dim: int) -> float:
    return dim * (np.log1p(-5.733e-7) - np.log(10.0))  # of a normal law, what lies beyond 5 sigma


@ppl.model
def regression(x):
    weights = sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    sample("y", dist.Normal(x @ weights, 0.5).to_event(1))


def regression_data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 4))
    return x, x @ rng.normal(size=4) + 0.5 * rng.normal(size=20)


# -- many runs at once -----------------------------------------------------------------------------------------------------


def wholes(program, cases, method, seeds: int, particles: int, stages: int = 128) -> list[list[Population]]:
    """What the posteriors of `program(case)` are made of, by case and seed."""
    history = method.history

    @jax.jit
    def runs(cases, keys):
        def one(case, key):
            path = method.way.of(program(case))

            def stage(state, _):
                on = goes_on(path, state)
                new = select(on, next_stage(method.stage, path, key, state)[0], state)
                return new, (on, history.keep(new.population))

            return jax.lax.scan(stage, begin(method.stage, path, key, particles), length=stages)

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(cases, keys)

    states, (taken, kept) = jax.tree.map(np.asarray, runs(cases, jax.random.split(jax.random.key(1), seeds)))

    def whole(*at):
        last = jax.tree.map(lambda x: x[at], states.population)
        assert last.level == np.inf, "the run did not end"
        return history.whole(None, last, jax.tree.map(lambda x: x[at][taken[at]], kept))

    return [[whole(i, j) for j in range(seeds)] for i in range(len(states.num))]


def assert_calibrated(found: list[Population], exact: float, *, mean=0.3, sd=(0.85, 1.15)) -> None:
    z = np.array([(float(w.log_evidence) - exact) / float(w.log_evidence_error) for w in found])
    assert abs(z.mean()) < mean, z.mean()
    assert sd[0] < z.std(ddof=1) < sd[1], z.std(ddof=1)


@pytest.fixture(scope="module")
def squares():
    """100 runs of each case, by 50 particles."""
    method = nested_sampling(RandomWalk(), moves=9, share=0.2, tolerance=0.05)
    found = wholes(square, jnp.arange(len(CASES)), method, 100, 50, stages=52)
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("name", ["mixture", "shells", "plateaus"])
def test_evidence_and_its_error(squares, name):
    assert_calibrated(squares[name], by_quadrature(CASES[name]), mean=0.4, sd=(0.8, 1.25))


def test_a_constant_likelihood_is_known_without_error(squares):
    for whole in squares["constant"]:
        np.testing.assert_allclose(whole.log_evidence, -1.25, atol=1e-5)
        assert whole.log_evidence_error < 1e-6


def test_what_is_no_number_is_impossible(squares):
    """A plateau over the rest: binomial, and its error too."""
    assert_calibrated(squares["no_number"], np.log(0.45) + 1, mean=0.4, sd=(0.75, 1.25))
    for whole in squares["no_number"]:
        np.testing.assert_allclose(whole.log_evidence_error, np.sqrt(0.55 / 0.45 / 50), rtol=0.7)


def test_the_dead_and_the_living_are_the_posterior(squares):
    """Moments of the mixture: weights 0.7 and 0.3, far from each other. Between seeds, 4 standard errors."""
    means = np.array([w.mean(lambda p: jax.nn.sigmoid(p.position)) for w in squares["mixture"]])
    error = means.std(axis=0) / np.sqrt(len(means))
    np.testing.assert_array_less(abs(means.mean(axis=0) - [0.7 * 0.2 + 0.3 * 0.8, 0.7 * 0.3 + 0.3 * 0.7]), 4 * error + 0.01)


# -- its error, by itself --------------------------------------------------------------------------------------------------


def died(heights, size):
    """Particles that died one at a time, of `size`, at these heights, the mass shrinking as expected; the last live."""
    num = len(heights) - size
    stage = np.minimum(np.arange(len(heights)), num)
    return stage, stage * np.log1p(-1 / size) - np.log(size), np.asarray(heights, float)


def test_the_variance_is_that_of_simulated_shrinkage():
    """log Z of many tables of shrinkages that might have been (Skilling, 2006, section 3); of 4,000, to 1.1 %."""
    size, num = 50, 600
    heights = 8 - 0.5 * (np.exp(-np.arange(num + size) / size) * 300) ** 0.8  # far up the contours lie ever closer
    stage, log_mass, height = died(heights, size=size)
    log_evidence = np.logaddexp.reduce(log_mass + height)
    living = size - (np.arange(len(stage)) - np.searchsorted(stage, stage))
    shrinks = np.random.default_rng(0).beta(living, 1, (4000, len(living)))
    mass = np.cumprod(np.concatenate([np.ones((4000, 1)), shrinks], axis=1), axis=1)
    simulated = np.log(np.sum((mass[:, :-1] - mass[:, 1:]) * np.exp(height), axis=1))
    expected = np.sqrt(shrinkage_variance(stage, log_mass, height, log_evidence, size))
    np.testing.assert_allclose(simulated.std(), expected, rtol=0.1)


def test_the_variance_of_independent_draws_is_that_of_their_mean():
    """No thresholds: importance sampling from the prior, whose error is known. 4 sd of a sample variance's own error."""
    height = np.random.default_rng(1).normal(size=5000)
    log_mass = np.full(5000, -np.log(5000.0))
    log_evidence = np.logaddexp.reduce(log_mass + height)
    likelihood = np.exp(height - log_evidence)
    found = shrinkage_variance(np.zeros(5000, int), log_mass, height, log_evidence, 5000)
    np.testing.assert_allclose(found, likelihood.var() / 5000, rtol=0.05)


# -- the door --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def posterior():
    x, y = regression_data()
    return smc(regression(x) | {"y": y}, nested_sampling(), key=jax.random.key(4), particles=200, islands=2, progress=False)


def exact_regression():
    """log evidence, posterior mean and covariance."""
    x, y = regression_data()
    covariance = np.linalg.inv(np.eye(4) + x.T @ x / 0.25)
    marginal = 0.25 * np.eye(20) + x @ x.T
    log_evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2 * np.pi * marginal)[1])
    return log_evidence, covariance @ x.T @ y / 0.25, covariance


def test_a_conjugate_regression(posterior):
    """4 standard errors; the draws' moments by an effective size of at least 200."""
    log_evidence, mean, covariance = exact_regression()
    assert abs(posterior.log_evidence - log_evidence) < 4 * posterior.log_evidence_error
    assert 0.05 < posterior.log_evidence_error < 0.3
    draws = posterior["weights"][0]
    assert draws.shape == (400, 4)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(abs(draws.mean(axis=0) - mean) / sd, 4 / 200**0.5)
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.2)


def test_what_a_run_tells(posterior):
    stages = {name: x[:, : min(posterior.provenance["stages"])] for name, x in posterior.stages.items()}
    assert (np.diff(stages["threshold"][0]) > 0).all()
    np.testing.assert_array_equal(stages["num_dead"][0][1:4], 20)
    np.testing.assert_allclose(stages["log_evidence"][0][1:4], np.log(0.9) * np.arange(1, 4), rtol=1e-4)  # the prior mass
    assert len(posterior.run.wholes) == 2


@pytest.mark.slow
def test_a_frozen_run_has_the_same_thresholds(posterior):
    x, y = regression_data()
    again = smc(
        regression(x) | {"y": y}, posterior.run.frozen(), key=jax.random.key(5), particles=200, islands=2, progress=False
    )
    np.testing.assert_array_equal(again.stages["threshold"][0], again.stages["threshold"][1])
    evidence, error = again.run.population.log_evidence, again.run.population.log_evidence_error
    assert abs(evidence - exact_regression()[0]) < 4 * error


def test_bad_input_gets_a_sentence():
    @ppl.model
    def improper():
        x = sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        factor("likelihood", normal(x))

    def run(program, method=nested_sampling(), **more):  # noqa: B008
        return smc(program, method, key=jax.random.key(0), particles=50, progress=False, **more)

    with pytest.raises(ValueError, match="prior of site 'x' is improper.*proper one"):
        run(improper())
    with pytest.raises(ValueError, match="keeps what its posterior is made of"):
        run(box(2), history=Last())
    with pytest.raises(ValueError, match="thresholds must end with inf"):
        Reweight(Ladder(jnp.array([0.0, 1.0]))).check(Thresholds().of(box(2)))
    with pytest.raises(ValueError, match="Shrink: TemperingPath has no thresholds"):
        Shrink().check(Tempering().of(box(2)))
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        nested_sampling(share=1.0)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        nested_sampling(tolerance=0.0)
    with pytest.raises(ValueError, match="moves must be a whole number"):
        nested_sampling(moves=0)


# -- the slow ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dim", [5, 10])
def test_a_normal_law_in_a_box(dim):
    """By the door, 200 runs that do not meet."""
    posterior = smc(box(dim), nested_sampling(), key=jax.random.key(6), particles=200, islands=200, progress=False)
    assert_calibrated(posterior.run.wholes, box_evidence(dim))
