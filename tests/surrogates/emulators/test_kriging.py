"""Kriging: likelihood, slope, prediction and leave-one-out against dense normal distributions and refits."""

import numpy as np
import pytest
from scipy import stats

from surrogates.emulators import kriging
from surrogates.emulators.kernels import Matern52, SquaredExponential
from surrogates.emulators.kriging import Data
from surrogates.emulators.trend import Constant, Linear, Quadratic

N, D = 20, 3
RNG = np.random.default_rng(0)
U = RNG.random((N, D))
W = np.sin(4.0 * U[:, 0]) + U[:, 1] * U[:, 2] + 0.05 * RNG.normal(size=N)
AT = np.array([-0.4, 0.3, 0.8, -5.0])  # log scales and the share's logit
CASES = [(SquaredExponential(), Constant()), (Matern52(), Linear()), (SquaredExponential(), Quadratic())]


def data(trend, rows=slice(None)):
    return Data(U[rows], trend(U)[rows], W[rows])


def dense(kernel, trend, at, u):
    """The covariance of outputs at the rows of u, over their variance: process, nugget, and the trend's vague prior."""
    scaled = u / np.exp(at[:-1])
    r2 = np.sum((scaled[:, None] - scaled) ** 2, -1)
    share = 1.0 / (1.0 + np.exp(-at[-1]))
    h = trend(u)
    return (1.0 - share) * kernel(r2) + share * np.eye(len(u)) + h @ h.T / kriging.VAGUE


@pytest.mark.parametrize(("kernel", "trend"), CASES)
def test_likelihood(kernel, trend):
    """The same as the normal density, variance at its best, up to what does not depend on scales and share."""
    q, gaps = trend(U).shape[1], []
    for at in (AT, AT + 0.5, AT - 0.7):
        solved, _, _ = kriging.solve(kernel, data(trend), at)
        z = np.append((at[:-1] - kriging.SCALE - 0.5 * np.log(D)) / kriging.SPREAD, (at[-1] + 6.0) / 5.0)
        covariance = solved.variance * dense(kernel, trend, at, U)
        sign, log_det = np.linalg.slogdet(covariance)
        exact = -0.5 * (log_det + W @ np.linalg.solve(covariance, W)) + 0.5 * q * np.log(solved.variance) - 0.5 * z @ z
        gaps.append(-kriging.objective(kernel, data(trend), at)[0] - exact)
    np.testing.assert_allclose(gaps, gaps[0], atol=2e-4)  # the vague prior's 1e8 costs as many digits, of values near 100


@pytest.mark.parametrize(("kernel", "trend"), CASES)
def test_slope(kernel, trend):
    _, slope = kriging.objective(kernel, data(trend), AT)
    for i, step in enumerate(1e-5 * np.eye(D + 1)):
        above, below = (kriging.objective(kernel, data(trend), AT + s)[0] for s in (step, -step))
        np.testing.assert_allclose(slope[i], (above - below) / 2e-5, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("kernel", "trend"), CASES)
def test_a_run_left_out_is_predicted_as_by_a_refit(kernel, trend):
    """Its trend estimated without it, to 1e-8; the variance is that of the process with all runs."""
    solved, mean, variance = kriging.solve(kernel, data(trend), AT)
    for i in range(N):
        rest = np.delete(np.arange(N), i)
        other, _, _ = kriging.solve(kernel, data(trend, rest), AT)
        np.testing.assert_allclose(
            kriging.predicted(kernel, other, U[rest], U[i : i + 1], trend(U)[i : i + 1]), mean[i], atol=1e-8
        )
        place = other._replace(variance=solved.variance), U[rest], U[i : i + 1], trend(U)[i : i + 1]
        np.testing.assert_allclose(kriging.uncertainty(kernel, *place), variance[i], rtol=1e-8)


@pytest.mark.parametrize(("kernel", "trend"), CASES)
def test_prediction_is_the_conditional_of_the_normal(kernel, trend):
    at = RNG.random((5, D))
    solved, _, _ = kriging.solve(kernel, data(trend), AT)
    k = dense(kernel, trend, AT, np.concatenate([U, at]))
    exact = k[N:, :N] @ np.linalg.solve(k[:N, :N], W)
    found = kriging.predicted(kernel, solved, U, at, trend(at))
    np.testing.assert_allclose(found, exact, atol=1e-5)  # the dense solve loses digits to the vague prior
    own = np.diag(k[N:, N:] - k[N:, :N] @ np.linalg.solve(k[:N, :N], k[:N, N:]))
    np.testing.assert_allclose(kriging.uncertainty(kernel, solved, U, at, trend(at)), solved.variance * own, rtol=1e-3)


def test_the_climb_finds_the_scale_of_a_process():
    """Draws of a process with scale 0.3: the fitted log scale is off by little. An input that does nothing gets a long one."""
    rng = np.random.default_rng(3)
    u = rng.random((60, 2))
    r2 = (u[:, None, 0] - u[:, 0]) ** 2 / 0.3**2
    w = rng.multivariate_normal(np.zeros(60), np.exp(-0.5 * r2) + 1e-8 * np.eye(60))
    at = kriging.climb(SquaredExponential(), Data(u, Constant()(u), w), kriging.starts(2), least=1e-10, steps=60)
    assert abs(at[0] - np.log(0.3)) < 0.25 and at[1] > 1.5 and at[2] < -10.0
    assert at[2] >= np.log(1e-10)


def test_kernels():
    """Matern's closed form, slopes by differences, and the limit at zero."""
    r2 = np.linspace(0.0, 9.0, 50)
    r = np.sqrt(r2)
    np.testing.assert_allclose(Matern52()(r2), (1 + np.sqrt(5) * r + 5 / 3 * r2) * np.exp(-np.sqrt(5) * r), atol=1e-13)
    for kernel in (Matern52(), SquaredExponential()):
        assert kernel(np.zeros(1)) == 1.0
        slope = (kernel(r2[1:] + 1e-6) - kernel(r2[1:] - 1e-6)) / 2e-6
        np.testing.assert_allclose(kernel.slope(r2[1:]), slope, atol=1e-8)
        u = RNG.random((30, 2))
        assert np.linalg.eigvalsh(kernel(kriging.distances(u, u))).min() > -1e-12


def test_trends():
    u = RNG.random((4, 3))
    assert [t(u).shape for t in (Constant(), Linear(), Quadratic())] == [(4, 1), (4, 4), (4, 10)]
    beta = np.linalg.lstsq(Quadratic()(RNG.random((40, 3))), np.ones(40))[0]
    np.testing.assert_allclose(Quadratic()(u) @ beta, 1.0)
    full = Quadratic()(RNG.random((40, 3)))
    assert np.linalg.matrix_rank(full) == 10


def test_intervals_cover():
    """Draws of the process itself, scales known: of 40 x 20 left-out runs 95 % are inside, standard error 0.8 %."""
    rng = np.random.default_rng(5)
    k = dense(Matern52(), Constant(), AT, U) - 1.0 / kriging.VAGUE
    inside = []
    for _ in range(40):
        w = rng.multivariate_normal(np.zeros(N), k)
        _, mean, variance = kriging.solve(Matern52(), Data(U, Constant()(U), w), AT)
        inside.append(np.abs(w - mean) < stats.t(N - 1).ppf(0.975) * np.sqrt(variance))
    assert abs(np.mean(inside) - 0.95) < 0.03
