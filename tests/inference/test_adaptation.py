"""What warm-up learns: an acceptance rate, and the scales of a normal from its draws and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.mcmc.adaptation.dual_averaging import DualAveraging
from inference.mcmc.adaptation.fisher import FisherDiagonal


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_dual_averaging_finds_the_step_size(target):
    """Where acceptance falls as exp(-step size), the answer is -log(target)."""
    averaging = DualAveraging(target=target)
    state = averaging.init(jnp.float32(1.0))
    for _ in range(500):
        state = averaging.update(state, jnp.exp(-averaging.step_size(state)))
    assert float(averaging.average(state)) == pytest.approx(-np.log(target), rel=0.25)


def test_the_fisher_metric_of_a_normal_is_exact_from_few_draws():
    scales = jnp.array([1e-3, 1.0, 1e4])
    estimator, state = FisherDiagonal(), FisherDiagonal().init(jnp.zeros(3))
    for i in range(10):
        x = scales * jax.random.normal(jax.random.key(i), (3,))
        assert i == 0 or (state.metric.variance == 1.0).all()
        state = estimator.update(state, x, -x / scales**2, window=100)
    np.testing.assert_allclose(state.metric.variance, scales**2, rtol=1e-3)


def test_a_chain_that_does_not_move_leaves_the_metric_alone():
    estimator, state = FisherDiagonal(), FisherDiagonal().init(jnp.zeros(2))
    for _ in range(20):
        state = estimator.update(state, jnp.ones(2), jnp.ones(2), window=7)
    np.testing.assert_array_equal(state.metric.variance, jnp.ones(2))


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
