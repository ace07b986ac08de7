"""What warm-up learns: an acceptance rate, and the scales of a normal from its draws and gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.mcmc.adaptation import Covariance, DualAveraging, FisherDense, FisherDiagonal, FisherLowRank


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_dual_averaging_finds_the_step_size(target):
    """Where acceptance falls as exp(-step size), the answer is -log(target)."""
    averaging = DualAveraging(target=target)
    state = averaging.init(jnp.float32(1.0))
    for _ in range(500):
        state = averaging.update(state, jnp.exp(-averaging.step_size(state)))
    assert float(averaging.average(state)) == pytest.approx(-np.log(target), rel=0.25)


class Seen(NamedTuple):
    """A state of a kernel."""

    position: jax.Array
    gradient: jax.Array


DIM = 12
ESTIMATORS = [FisherDiagonal(), FisherDense(), FisherLowRank(rank=DIM), FisherLowRank(), Covariance()]
pytest_estimators = pytest.mark.parametrize(
    "estimator", ESTIMATORS, ids=lambda e: f"{type(e).__name__}{getattr(e, 'rank', '')}"
)


def fed(estimator, covariance, num, key=0):
    """The estimator's state after draws of a normal with that covariance, and their gradients."""
    draws = jax.random.multivariate_normal(jax.random.key(key), jnp.zeros(len(covariance)), covariance, (num,))
    state = estimator.init(draws[0])
    for x in draws:
        state = estimator.add(state, Seen(x, -jnp.linalg.solve(covariance, x)))
    return estimator.refit(state)


def matrix(metric):
    return jax.vmap(metric.velocity)(jnp.eye(DIM))


def correlated(strength=0.9):
    scales = jnp.logspace(-2, 2, DIM)
    return (strength + (1 - strength) * jnp.eye(DIM)) * scales * scales[:, None]


@pytest.mark.parametrize("estimator", ESTIMATORS[1:4], ids=["dense", "full rank", "default rank"])
def test_the_fisher_metric_of_a_normal_is_exact_from_few_draws(x64, estimator):
    """From dim + 2 draws; the covariance of so few would be off by tens of percent."""
    covariance = correlated()
    np.testing.assert_allclose(matrix(fed(estimator, covariance, DIM + 2).metric), covariance, rtol=1e-4)


def test_the_diagonal_fisher_metric_of_a_normal_is_exact_from_few_draws():
    scales = jnp.logspace(-3, 4, DIM)
    np.testing.assert_allclose(fed(FisherDiagonal(), jnp.diag(scales**2), 10).metric.variance, scales**2, rtol=1e-3)


@pytest.mark.slow
def test_a_low_rank_in_many_dimensions(x64):
    """300 coordinates, two strong directions: from 60 draws, the condition number that is left is a hundredth of what the
    diagonal metric leaves."""
    dim = 300
    directions, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (dim, 2)))
    covariance = jnp.eye(dim) + directions @ jnp.diag(jnp.array([1e4, -0.99])) @ directions.T

    def condition(estimator):
        metric = fed(estimator, covariance, 60).metric
        values = np.linalg.eigvals(np.linalg.solve(jax.vmap(metric.velocity)(jnp.eye(dim)), covariance)).real
        return values.max() / values.min()

    assert condition(FisherLowRank()) < 0.01 * condition(FisherDiagonal())


def test_the_covariance_of_many_draws(x64):
    covariance = correlated(0.5)
    found = matrix(fed(Covariance(), covariance, 4000).metric)
    scales = jnp.sqrt(jnp.diag(covariance))
    np.testing.assert_allclose(found / scales / scales[:, None], covariance / scales / scales[:, None], atol=0.1)  # 5 sd


@pytest_estimators
def test_no_metric_from_too_few_draws(estimator):
    np.testing.assert_array_equal(matrix(fed(estimator, correlated(), 9).metric), jnp.eye(DIM))


@pytest_estimators
def test_a_chain_that_does_not_move_leaves_the_metric_alone(estimator):
    state = estimator.init(jnp.zeros(DIM))
    for _ in range(20):
        state = estimator.add(state, Seen(jnp.ones(DIM), jnp.ones(DIM)))
    np.testing.assert_array_equal(matrix(estimator.refit(state).metric), jnp.eye(DIM))


@pytest_estimators
def test_the_far_past_is_forgotten(x64, estimator):
    """Draws of another scale, then two windows of the right one: the metric is that of the right one alone."""
    state = fed(estimator, 1e6 * jnp.eye(DIM), 30)
    assert estimator.fresh(state) == 30
    state = estimator.switch(estimator.switch(state))
    assert estimator.fresh(state) == 0
    for x in jax.random.normal(jax.random.key(3), (60, DIM)):
        state = estimator.add(state, Seen(x, -x))
    variances = jnp.diag(matrix(estimator.refit(state).metric))
    np.testing.assert_allclose(variances, 1.0, rtol=0.9 if isinstance(estimator, Covariance) else 1e-6)


def test_scales_far_from_one_are_learned(precision):
    """Standard deviations from 1e-3 to 1e3, begun near zero: R-hat and acceptance say that warm-up worked."""
    scales = jnp.array([1e-3, 1e-1, 1.0, 1e3])
    target = ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum((c["x"] / scales) ** 2), {"x": jnp.zeros(4)})
    posterior = inf.mcmc(target, inf.NUTS(), key=jax.random.key(0), warmup=500, draws=500, progress=False)
    np.testing.assert_allclose(posterior["x"].std(axis=(0, 1)), scales, rtol=0.15)
    assert 0.7 < posterior.stats["acceptance_rate"].mean() < 0.95
    assert posterior.stats["n_steps"].mean() < 16


def test_a_higher_target_takes_smaller_steps():
    target = ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum(c["x"] ** 2), {"x": jnp.zeros(10)})
    steps = []
    for acceptance in (0.7, 0.97):
        kernel = inf.adapted(inf.NUTS(), target_acceptance=acceptance)
        posterior = inf.mcmc(target, kernel, key=jax.random.key(0), warmup=300, draws=10, progress=False, check=False)
        steps.append(posterior.stats["step_size"].mean())
    assert steps[1] < 0.8 * steps[0]


@pytest.mark.parametrize("final", [0.15, 0.5])
def test_a_warm_up_that_is_cut_short_polishes_the_step_size_that_is_left_to_it(final):
    """Found stable after 200 steps, it is to have 237: the search begins afresh there, though its border may lie behind."""
    target = ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum(c["x"] ** 2), {"x": jnp.zeros(3)})
    kernel = inf.adapted(inf.NUTS(), schedule=inf.adaptation.Schedule(final=final)).with_warmup(1000)

    @jax.jit
    def go(kernel, state, first, last):
        def step(i, state):
            state, info = kernel.step(jax.random.fold_in(jax.random.key(0), i), state, target)
            return kernel.learn(i, state, info)

        return jax.lax.fori_loop(first, last + 1, step, state)

    state = go(kernel, kernel.init(jax.random.key(1), target, jnp.zeros(3)), 1, 200)
    assert not state.polishing
    state = go(kernel.with_warmup(237), state, 201, 236)
    assert state.polishing
    assert state.averaging.count == 35  # the step in which it began afresh did not count
