"""Smoothing against the Kalman smoother: means, variances and covariances of neighbours; and against an autoregression of
second order, whose loop remembers two steps.

Tolerances: 5 standard errors of `NUM` draws, widened by what the filter's N particles err themselves (measured: at most
3 / N of a variance); some 200 numbers, so a false alarm less than once in 5,000 keys.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.exact.kalman import kalman_filter, kalman_smoother
from inference.exact.linear_gaussian import Affine, Gaussian, LinearGaussian
from inference.smc import backward
from inference.smc.backward import Backward, BackwardMCMC, Rejection
from inference.smc.particle_filter import particle_filter
from inference.smc.program_path import ByStep
from inference.smc.sample import smc
from inference.smc.smoothing import FixedLag, smooth
from ppl import dist, sample

T, NUM, N = 12, 1500, 2000
BOUND = float(-np.log(0.6 * np.sqrt(2 * np.pi)))
Y = np.random.default_rng(0).normal(size=T) * 1.5
ERROR = 5 * np.sqrt(1 / NUM + 3 / N)


@ppl.model
def walk(length, rho):
    def step(z, _):
        z = sample("z", dist.Normal(rho * z, 0.6))
        sample("y", dist.Normal(z, 1.0))
        return z, z

    ppl.scan(step, 0.0, length=length)


@ppl.model
def second_order():
    def step(carry, _):
        older, old = carry
        z = sample("z", dist.Normal(1.1 * old - 0.6 * older, 0.6))
        sample("y", dist.Normal(z, 1.0))
        return (old, z), None

    ppl.scan(step, (0.0, 0.0), length=T)


def exact(*lags):
    """Means (T,) and covariance (T, T) of an autoregression given Y, by its precision."""
    back = np.eye(T)
    for k, rho in enumerate(lags, 1):
        back -= rho * np.eye(T, k=-k)
    covariance = np.linalg.inv(back.T @ back / 0.36 + np.eye(T))
    return covariance @ Y, covariance


@pytest.fixture(scope="module")
def run():
    """Two islands, resampled at every step or where it is needed."""
    program = walk(T, 0.9) | {"y": jnp.asarray(Y)}
    return smc(program, particle_filter(), key=jax.random.key(0), particles=N // 2, islands=2, progress=False).run


def deviations(paths, means, covariance) -> float:
    """The largest deviation of means, variances and covariances of neighbours, in standard deviations of one draw."""
    x = paths - means
    scale = np.sqrt(np.diag(covariance))
    of_means = x.mean(0) / scale
    of_variances = (np.mean(x**2, 0) / scale**2 - 1) / np.sqrt(2)
    cross = np.diag(covariance, 1)
    spread = np.sqrt(cross**2 + scale[1:] ** 2 * scale[:-1] ** 2)
    of_neighbours = (np.mean(x[:, 1:] * x[:, :-1], 0) - cross) / spread
    return float(max(np.abs(d).max() for d in (of_means, of_variances, of_neighbours)))


SMOOTHERS = {
    "all particles": Backward(),
    "MCMC": BackwardMCMC(2),
    "rejection": Rejection(BOUND),
    "rejection, that mostly fails": Rejection(BOUND + 2.0, most=2),
}


@pytest.mark.parametrize("name", SMOOTHERS)
def test_paths_have_the_law_of_the_kalman_smoother(run, name):
    model = LinearGaussian(Gaussian(0.0, 0.36), transition=Affine(0.9, 0.36), observation=Affine(1.0, 1.0))
    kalman = kalman_smoother(model, jnp.asarray(Y))
    means, covariance = exact(0.9)
    np.testing.assert_allclose(kalman.means[:, 0], means, atol=1e-5)
    np.testing.assert_allclose(kalman.cross_covariances[:, 0, 0], np.diag(covariance, 1), atol=1e-5)
    paths = smooth(run, SMOOTHERS[name], key=jax.random.key(1), num=NUM)
    assert paths["z"].shape == (NUM, T)
    assert deviations(paths["z"], means, covariance) < ERROR


@pytest.mark.slow
def test_a_loop_that_remembers_two_steps():
    program = second_order() | {"y": jnp.asarray(Y)}
    found = smc(program, particle_filter(), key=jax.random.key(2), particles=N, progress=False)
    paths = smooth(found.run, BackwardMCMC(3), key=jax.random.key(3), num=NUM)
    assert deviations(paths["z"], *exact(1.1, -0.6)) < ERROR


def test_fixed_lag_is_the_law_given_the_data_so_far(run):
    """Of the Kalman smoother of the data up to `lag` steps later; neighbours are drawn apart."""
    lag = 3
    paths = smooth(run, FixedLag(lag), key=jax.random.key(4), num=NUM)["z"]
    for t in range(T):
        part = Y[: t + lag + 1]
        back = np.eye(len(part)) - 0.9 * np.eye(len(part), k=-1)
        covariance = np.linalg.inv(back.T @ back / 0.36 + np.eye(len(part)))
        assert abs(paths[:, t].mean() - (covariance @ part)[t]) < ERROR * np.sqrt(covariance[t, t])
        assert abs(paths[:, t].var() / covariance[t, t] - 1) < np.sqrt(2) * ERROR
    kalman = kalman_filter(
        LinearGaussian(Gaussian(0.0, 0.36), transition=Affine(0.9, 0.36), observation=Affine(1.0, 1.0)), jnp.asarray(Y)
    )
    filtered = smooth(run, FixedLag(0), key=jax.random.key(4), num=NUM)["z"].mean(0)
    assert np.all(np.abs(filtered - kalman.means[:, 0]) < ERROR * np.sqrt(kalman.covariances[:, 0, 0]))


@pytest.mark.slow
def test_a_planted_bug_is_found(run, monkeypatch):
    """Particles chosen by their weights alone."""
    monkeypatch.setattr(backward, "memory", lambda _: 0)
    anew = jax.jit(backward._gone.__wrapped__, static_argnames="num")  # what was compiled remembers
    monkeypatch.setattr(backward, "_gone", anew)
    paths = smooth(run, BackwardMCMC(1), key=jax.random.key(1), num=NUM)
    assert deviations(paths["z"], *exact(0.9)) > 2 * ERROR


def test_what_cannot_be_is_said(run):
    @ppl.model
    def with_parameter():
        sample("rho", dist.Uniform(0.0, 1.0))
        ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)), None), 0.0, length=2)

    @ppl.model
    def sees_its_carry():
        def step(old, y):
            z = sample("z", dist.Normal(old, 1.0))
            sample("y", dist.Normal(z - old, 1.0), obs=y)
            return z, None

        ppl.scan(step, 0.0, jnp.zeros(2))

    def on(path):
        return dataclasses.replace(run, path=path)

    key = jax.random.key(0)
    forgetful = dataclasses.replace(run, rows=[row._replace(kept=((), ())) for row in run.rows])
    for attempt, sentence in (
        (
            lambda: smooth(run, Rejection(BOUND - 1), key=key),
            r"^Rejection: log_bound is -1\.408, but a step's choices",
        ),
        (
            lambda: Rejection(0.0).check(ByStep().of(sees_its_carry())),
            r"^Rejection: the bound is one of the density of a",
        ),
        (lambda: smooth(forgetful, Backward(), key=key), r"^smooth: this run did not keep its earlier stages; run it with hi"),
        (
            lambda: smooth(on(ByStep().of(with_parameter())), Backward(), key=key),
            r"^smooth: site 'rho' is drawn before",
        ),
        (lambda: smooth(on(None), Backward(), key=key), r"^smooth: this run did not follow a program's ppl\.scan; smoothing"),
        (lambda: FixedLag(-1), r"^FixedLag: lag must be at least 0, got -1\.$"),
        (lambda: BackwardMCMC(0), r"^BackwardMCMC: num must be at least 1, got 0\.$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            attempt()
