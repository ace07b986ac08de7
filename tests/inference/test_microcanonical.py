"""Microcanonical samplers: the dynamics keep what they should, MAMS is exact, MCLMC in the limit of small steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from jax import lax

import inference as inf
import ppl
from inference import integrators
from inference.integrators import LEAPFROG, MINIMAL_NORM, Phase, isokinetic, turn
from inference.mcmc import microcanonical
from tests.inference.kernels import DIM, KERNELS, exact, metric, mover, surprise, target
from tests.inference.targets import COVARIANCE, MEAN, correlated
from tests.inference.test_kernels import ALPHA
from tests.reference.agreement import agreement
from tests.reference.models import program, published, scalars

POINT, UNIT = np.array([0.5, -1.0, 20.0]), np.array([0.6, 0.8, 0.0])


def path(scheme, step_size: float, time: float = 2.0):
    """From POINT in the direction UNIT and back: both ends, and the energy error on the way there."""
    log_density, gradient = jax.value_and_grad(correlated().log_density)(jnp.asarray(POINT))

    def along(phase):
        def one(phase, _):
            phase, level, change = isokinetic(phase, correlated(), metric(3), step_size, scheme)
            return phase, (level, change)

        return lax.scan(one, phase, length=round(time / step_size))

    far, (levels, changes) = along(Phase(jnp.asarray(POINT), jnp.asarray(UNIT), gradient))
    near, _ = along(far._replace(momentum=-far.momentum))
    return far, near, float(levels[-1] - log_density - changes.sum())


def test_a_turn_changes_volume_by_the_kinetic_energy(x64):
    """Laws: |u| = 1; log |det du'/du| on the sphere is minus the change of the kinetic energy."""
    gradient = jnp.array([3.0, -1.0, 2.0])
    turned, change = turn(jnp.asarray(UNIT), gradient, 0.7)

    def tangent(u):
        return jnp.linalg.qr(jnp.concatenate([u[:, None], jnp.eye(3)], axis=1))[0][:, 1:3]

    jacobian = jax.jacfwd(lambda u: turn(u / jnp.linalg.norm(u), gradient, 0.7)[0])(jnp.asarray(UNIT))
    determinant = jnp.linalg.det(tangent(turned).T @ jacobian @ tangent(jnp.asarray(UNIT)))
    np.testing.assert_allclose(jnp.log(jnp.abs(determinant)), -change, rtol=1e-10)
    np.testing.assert_allclose(jnp.linalg.norm(turned), 1.0, rtol=1e-12)


def test_turns_far_too_long_do_not_overflow():
    for sign in (1.0, -1.0):
        turned, change = turn(jnp.asarray(UNIT, jnp.float32), sign * 1e15 * jnp.ones(3), 1.0)
        np.testing.assert_allclose(turned, sign / np.sqrt(3) * np.ones(3), rtol=1e-5)
        assert np.isfinite(change)


@pytest.mark.parametrize("scheme", [LEAPFROG, MINIMAL_NORM], ids=["leapfrog", "minimal norm"])
def test_paths_can_be_gone_back_and_are_of_second_order(x64, scheme):
    far, near, error = path(scheme, 0.1)
    np.testing.assert_allclose(near.position, POINT, atol=1e-10)
    np.testing.assert_allclose(near.momentum, -UNIT, atol=1e-10)
    assert float(jnp.linalg.norm(far.position - POINT)) > 0.5
    assert 3.5 < error / path(scheme, 0.05)[2] < 4.5


# -- exactness -----------------------------------------------------------------------------------------------------------


def wrong_change(direction, gradient, time):
    """The change of volume of a sphere of one dimension more."""
    turned, change = turn(direction, gradient, time)
    return turned, change * direction.size / (direction.size - 1)


def slow_turn(direction, gradient, time):
    return turn(direction, gradient * (direction.size - 1) / direction.size, time)


def moved(kernel, num: int, steps: int = 10):
    return mover(kernel, target(), steps)(jnp.asarray(exact(num), jnp.float32), jax.random.key(1))


def test_mclmc_with_small_steps_keeps_exact_draws_exact():
    """It crosses the law nearly twice. The smallest p-value of 33 is above ALPHA unless the keys are one set in 30,000."""
    kernel = inf.MCLMC(0.1, metric(DIM), 1.5, num_steps=8)
    positions, share, info = moved(kernel, 10_000)
    assert surprise(positions) > ALPHA
    assert np.mean(share) > 0.9 and np.isfinite(info.lp).all() and positions.dtype == "float32"


@pytest.mark.parametrize(
    ("kernel", "module", "name", "wrong"),
    [
        (KERNELS["MAMS"].fixed(DIM), microcanonical, "accept", lambda key, ratio, new, old: (new, jnp.ones_like(ratio))),
        (KERNELS["MAMS"].fixed(DIM), microcanonical, "turn", wrong_change),
        (inf.MCLMC(0.1, metric(DIM), 1.5, num_steps=8), integrators, "turn", slow_turn),
    ],
    ids=["MAMS never rejects", "MAMS, wrong volume", "MCLMC turns too slowly"],
)
def test_a_planted_bug_is_found(monkeypatch, kernel, module, name, wrong):
    monkeypatch.setattr(module, name, wrong)
    assert surprise(moved(kernel, 10_000)[0]) < 1e-8


@pytest.mark.slow
def test_the_bias_of_mclmc_grows_with_the_square_of_the_step():
    """Of the mean squared radius of a standard normal in ten dimensions. 4000 chains from exact draws, their last 50 of 100
    draws; the error of the mean is that between chains."""
    normal = ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum(c["x"] ** 2), {"x": jnp.zeros(10)})

    @jax.jit
    def bias(step_size, length):
        kernel = inf.MCLMC(step_size, inf.metrics.Diagonal(jnp.ones(10)), length)

        def chain(key):
            position = jax.random.normal(key, (10,))

            def one(state, key):
                state, _ = kernel.step(key, state, normal)
                return state, jnp.mean(state.position**2) - 1.0

            return jnp.mean(lax.scan(one, kernel.init(key, normal, position), jax.random.split(key, 100))[1][50:])

        means = jax.vmap(chain)(jax.random.split(jax.random.key(0), 4000))
        return means.mean(), means.std() / jnp.sqrt(4000.0)

    (none, error), (some, some_error), (much, _) = (bias(h, 4.0) for h in (0.4, 2.0, 4.0))
    assert abs(none) < 4.5 * error
    assert abs(some) > 6 * some_error
    assert 2.5 < much / some < 7.0


def test_the_front_door_of_mclmc(x64):
    """Means and variances within their Monte Carlo errors and two hundredths for the bias; and the bias is told."""
    posterior = inf.mcmc(correlated(), inf.MCLMC(), key=jax.random.key(0), progress=False, check=False)
    x = np.asarray(posterior["x"])
    for i in range(3):
        variance = COVARIANCE[i, i]
        for values, truth, scale in ((x[..., i], MEAN[i], variance**0.5), ((x[..., i] - MEAN[i]) ** 2, variance, variance)):
            size = float(array_stats.ess(values, chain_axis=0, draw_axis=1))
            assert size > 400
            assert abs(values.mean() - truth) < 4.5 * values.std() / np.sqrt(size) + 0.02 * scale
    wanted = inf.MCLMC().energy_error
    assert wanted / 4 < posterior.stats["energy_error"].mean() < wanted * 4
    assert posterior.provenance["biased"] == ["MCLMC"] and "biased by the step size of MCLMC" in repr(posterior)
    assert "The draws of MCLMC are biased by its step size" in repr(posterior.check())


@pytest.mark.parametrize("kernel", [inf.MAMS(), inf.MCLMC()], ids=["MAMS", "MCLMC"])
def test_what_cannot_work_is_said(kernel):
    name = type(kernel).__name__
    line = ppl.Target.from_log_density(lambda c: -0.5 * c["x"] ** 2, {"x": jnp.zeros(())})
    with pytest.raises(ValueError, match=rf"^{name}: the target has one dimension, and a direction turns in two or more"):
        inf.mcmc(line, kernel, key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match=rf"^{name}: step size and metric must be known to take a step"):
        kernel.step(jax.random.key(0), kernel.init(jax.random.key(0), correlated(), jnp.zeros(3)), correlated())
    with pytest.raises(ValueError, match=rf"^mcmc: warmup=0 leaves the step size and metric and length of {name} unlearned"):
        inf.mcmc(correlated(), kernel, key=jax.random.key(0), warmup=0, progress=False)


def test_mclmc_takes_a_step_at_least():
    with pytest.raises(ValueError, match=r"^MCLMC: num_steps must be at least 1, got 0\.$"):
        inf.MCLMC(num_steps=0)


REFERENCES = ("garch-garch11", "arK-arK", "kidiq-kidscore_momhsiq", "earnings-earn_height")


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("kernel", [inf.MAMS(), inf.MCLMC()], ids=["MAMS", "MCLMC"])
def test_published_moments(x64, name, kernel):
    """Within 4 standard errors, of MCLMC within a twentieth of a standard deviation more."""
    known = published(name)
    posterior = inf.mcmc(program(name), kernel, key=jax.random.key(1), progress=False, check=False)
    draws = scalars(posterior.draws, known.names)
    found = agreement(draws, known)
    assert found.r_hat.max() < 1.01
    if kernel.exact:
        assert found.worst_z() < 4
    else:
        flat = draws.reshape(-1, len(known.names))
        slack = 4 * np.abs((flat.mean(0) - known.mean) / np.where(found.z_mean == 0, 1.0, found.z_mean)) + 0.05 * known.sd
        assert (np.abs(flat.mean(0) - known.mean) < slack).all()
        np.testing.assert_allclose(flat.std(0), known.sd, rtol=0.1)
