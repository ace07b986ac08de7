"""The laws that every metric obeys; a new one joins METRICS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf

DIM = 4
A = np.random.default_rng(0).normal(size=(DIM, DIM))
U, _ = np.linalg.qr(A[:, :2])
SCALE = np.array([0.1, 1.0, 3.0, 10.0])


def metrics():
    low_rank = inf.metrics.LowRank(jnp.asarray(SCALE), jnp.asarray(U), jnp.array([25.0, 0.04]))
    return {
        "diagonal": (inf.metrics.Diagonal(jnp.asarray(SCALE**2)), np.diag(SCALE**2)),
        "dense": (inf.metrics.Dense.from_covariance(jnp.asarray(A @ A.T)), A @ A.T),
        "identity": (inf.metrics.Dense.identity(DIM, jnp.float64), np.eye(DIM)),
        "low rank": (
            low_rank,
            SCALE[:, None] * (np.eye(DIM) + U @ np.diag([24.0, -0.96]) @ U.T) * SCALE,
        ),
    }


@pytest.fixture(params=["diagonal", "dense", "identity", "low rank"])
def metric(request, x64):
    return metrics()[request.param]


def test_velocity_is_the_covariance_times_momentum(metric):
    metric, covariance = metric
    np.testing.assert_allclose(jax.vmap(metric.velocity)(jnp.eye(DIM)), covariance, rtol=1e-10, atol=1e-12)


def test_unwhitening_what_was_whitened_is_velocity(metric):
    metric, covariance = metric
    both = jax.vmap(lambda m: metric.unwhiten(metric.whiten_gradient(m)))(jnp.eye(DIM))
    np.testing.assert_allclose(both, covariance, rtol=1e-10, atol=1e-12)


def test_whitening_is_the_transpose_of_unwhitening(metric):
    metric, _ = metric
    factor, transpose = (jax.vmap(f)(jnp.eye(DIM)).T for f in (metric.unwhiten, metric.whiten_gradient))
    np.testing.assert_allclose(factor.T, transpose, rtol=1e-10, atol=1e-12)


def test_momenta_have_the_inverse_covariance(metric):
    """Each momentum in units of its own covariance: means and covariances within 5 sd of n = 20,000 draws (false alarm
    below 1e-4 over all entries)."""
    metric, covariance = metric
    momenta = jax.vmap(metric.momentum)(jax.random.normal(jax.random.key(0), (20_000, DIM)))
    white = momenta @ np.linalg.cholesky(covariance)
    np.testing.assert_allclose(white.T @ white / 20_000, np.eye(DIM), atol=5 * np.sqrt(2 / 20_000))


def test_the_kinetic_energy_is_half_the_product_with_the_velocity(metric):
    metric, covariance = metric
    momentum = jnp.arange(1.0, DIM + 1)
    assert float(metric.kinetic_energy(momentum)) == pytest.approx(0.5 * momentum @ covariance @ momentum)


def test_like_another_metric(metric):
    """Of the same kind and shapes: the whole covariance where that can be had, else its diagonal or its strongest part."""
    metric, _ = metric
    guess, covariance = metrics()["low rank"]
    found = metric.like(guess)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, metric)
    expected = np.diag(np.diag(covariance)) if isinstance(metric, inf.metrics.Diagonal) else covariance
    np.testing.assert_allclose(jax.vmap(found.velocity)(jnp.eye(DIM)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_rank_that_is_not_the_guess_s(x64, rank):
    """The weaker direction is given up; directions that are missing are none."""
    guess, covariance = metrics()["low rank"]
    own = inf.metrics.LowRank(jnp.ones(DIM), jnp.eye(DIM, rank), jnp.ones(rank))
    values = np.array([25.0, 1.0 if rank == 1 else 0.04])
    expected = SCALE[:, None] * (np.eye(DIM) + U @ np.diag(values - 1.0) @ U.T) * SCALE
    np.testing.assert_allclose(jax.vmap(own.like(guess).velocity)(jnp.eye(DIM)), expected, rtol=1e-10, atol=1e-12)
