"""NUTS draws from the density it is given, in either precision, and its parts do what their comments say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import inference as inf
from inference.integrators import Phase
from inference.mcmc.nuts import check_turning
from inference.metrics import Diagonal
from tests.inference.targets import COVARIANCE, MEAN, conjugate, correlated, log_gamma

SIGMAS = 4.5  # with at most 30 comparisons here, a false alarm in about 1 of 5000 sets of keys


def errors(draws):
    """Mean and its standard error, from draws (chain, draw)."""
    size = float(array_stats.ess(draws, chain_axis=0, draw_axis=1))
    return draws.mean(), draws.std() / np.sqrt(size)


@pytest.mark.parametrize("kernel", [inf.NUTS(), inf.NUTS(max_depth=3)], ids=["default", "shallow"])
def test_moments_of_a_correlated_normal(precision, kernel):
    x = np.asarray(inf.mcmc(correlated(), kernel, key=jax.random.key(1), progress=False)["x"], np.float64)
    assert x.shape == (4, 1000, 3)
    for i in range(3):
        mean, error = errors(x[..., i])
        assert abs(mean - MEAN[i]) < SIGMAS * error
        square, error = errors((x[..., i] - MEAN[i]) ** 2)
        assert abs(square - COVARIANCE[i, i]) < SIGMAS * error
    cross, error = errors((x[..., 0] - MEAN[0]) * (x[..., 1] - MEAN[1]))
    assert abs(cross - 0.9) < SIGMAS * error


def test_a_conjugate_program(precision):
    posterior = inf.mcmc(conjugate(), inf.NUTS(), key=jax.random.key(2), progress=False)
    mu = np.asarray(posterior["mu"], np.float64)
    mean, error = errors(mu)
    assert abs(mean - 1.5) < SIGMAS * error
    square, error = errors((mu - 1.5) ** 2)
    assert abs(square - 0.25) < SIGMAS * error
    np.testing.assert_allclose(posterior["twice"], 2 * posterior["mu"], rtol=1e-6)


class WrongSign(Diagonal):
    """A planted bug: kinetic energy is subtracted."""

    def kinetic_energy(self, momentum):
        return -super().kinetic_energy(momentum)


def after_one_transition(metric, num=4000):
    """Exact draws of `log_gamma`, and where one transition takes them."""
    target = log_gamma()
    kernel = inf.NUTS(step_size=0.9, metric=metric)
    start = jnp.asarray(np.log(np.random.default_rng(0).gamma(2.0, size=(num, 1))))

    @jax.jit
    @jax.vmap
    def move(position, key):
        state = kernel.init(key, target, position)
        state, _ = kernel.step(key, state, target)  # evaluates the position
        return kernel.step(jax.random.fold_in(key, 1), state, target)

    state, info = move(start, jax.random.split(jax.random.key(3), num))
    return np.exp(np.asarray(state.position, np.float64)[:, 0]), info


def test_a_transition_keeps_the_distribution(x64):
    moved, info = after_one_transition(Diagonal(jnp.ones(1)))
    assert stats.kstest(moved, stats.gamma(2.0).cdf).pvalue > 1e-4
    assert float(jnp.mean(info.acceptance_rate)) < 0.98  # steps coarse enough for the weights to matter


def test_a_wrong_energy_sign_does_not_keep_it(x64):
    moved, _ = after_one_transition(WrongSign(jnp.ones(1)))
    assert stats.kstest(moved, stats.gamma(2.0).cdf).pvalue < 1e-6


def test_the_first_step_only_evaluates():
    target, kernel = log_gamma(), inf.NUTS(step_size=0.5, metric=Diagonal(jnp.ones(1)))
    state = kernel.init(jax.random.key(0), target, jnp.array([0.3]))
    state, info = kernel.step(jax.random.key(0), state, target)
    assert state.position == jnp.array([0.3]) and int(info.n_steps) == 1
    np.testing.assert_allclose(state.log_density, target.log_density(jnp.array([0.3])), rtol=1e-6)
    np.testing.assert_allclose(state.gradient, jax.grad(target.log_density)(jnp.array([0.3])), rtol=1e-6)


def test_marks_are_the_first_leaves_of_the_subtrees_that_close():
    """check_turning looks at exactly the aligned blocks of 2, 4, 8, ... leaves that end with the leaf."""
    depth, rng = 5, np.random.default_rng(0)
    positions, momenta = rng.normal(size=(2, 2**depth, 2)).astype(np.float32)
    marks = jnp.zeros((depth + 1, 2, 2))
    for n in range(2**depth):
        leaf = Phase(jnp.asarray(positions[n]), jnp.asarray(momenta[n]), jnp.zeros(2))
        marks, turning = check_turning(marks, leaf, jnp.int32(n))
        expected = False
        for size in (2**k for k in range(1, depth + 1)):
            if (n + 1) % size == 0:
                first = n + 1 - size
                gap = positions[n] - positions[first]
                expected |= bool(gap @ momenta[n] <= 0 or gap @ momenta[first] <= 0)
        assert bool(turning) == expected, n


def test_not_a_number_diverges_and_is_never_kept():
    import ppl

    target = ppl.Target.from_log_density(lambda c: jnp.where(jnp.abs(c["x"]) < 1.0, 0.0, jnp.nan), {"x": jnp.zeros(())})
    kernel = inf.NUTS(step_size=0.7, metric=Diagonal(jnp.ones(1)))
    posterior = inf.mcmc(
        target, kernel, key=jax.random.key(0), warmup=0, draws=500, progress=False, init=inf.Uniform(0.5), check=False
    )
    assert np.abs(posterior["x"]).max() < 1.0 and posterior.stats["diverging"].sum() > 100
    assert np.isfinite(posterior.stats["lp"]).all()
