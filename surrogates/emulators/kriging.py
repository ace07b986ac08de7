"""Kriging: the algebra of one Gaussian process on the host, in double precision: likelihood with its slope, prediction, and
leave-one-out in closed form.

Outputs w (n,) at coordinates u (n, d), with regressors H (n, q):

    w = H beta + f,   f ~ Normal(0, variance R),   R = (1 - share) C(u; scales) + share I,   beta ~ flat

`share` is the nugget's, of the variance; beta's prior is normal with standard deviation 1e4 of the process (so that a
regressor which never varies does no harm), and it is integrated out. With P = inv(R) - inv(R) H inv(H' inv(R) H) H' inv(R), a
run that is left out is predicted, its beta estimated without it, by

    mean_i = w_i - (P w)_i / P_ii,   variance_i = variance / P_ii

(Dubrule, "Cross validation of kriging in a unique neighborhood", Mathematical Geology 15, 1983.) The scales and the share
climb the marginal likelihood (Rasmussen and Williams, 2006, section 5.4), the variance at its best, with weak priors:
log-normal scales that grow with the root of d (Hvarfner, Hellsten and Nardi, ICML 2024), a logit-normal share.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, optimize

from .kernels import Kernel

VAGUE = 1e-8  # the precision of beta, in units of the process
SCALE, SPREAD = np.sqrt(2.0), np.sqrt(3.0)  # of log scales: normal about SCALE + log(d) / 2
SHARE, SHARES = -6.0, 5.0  # of the logit of the share: normal
FAR = np.log(1e4)  # bounds of log scales
LOW = 1e-300


class Data(NamedTuple):
    """u (n, d), H (n, q), w (n,)."""

    u: np.ndarray
    regressors: np.ndarray
    w: np.ndarray


class Solved(NamedTuple):
    """A process given its data, as predictions need it; with c the correlations (n,) and h the regressors (q,) of a point,

    mean = h beta + c alpha,   variance = `variance` (1 - |whiten c|^2 + |spread (h - c lean)|^2)
    """

    scales: Any  # (d,)
    share: Any  # ()
    variance: Any  # ()
    beta: Any  # (q,)
    alpha: Any  # (n,)
    whiten: Any  # (n, n), the inverse Cholesky factor of R
    lean: Any  # (n, q), inv(R) H
    spread: Any  # (q, q), the inverse Cholesky factor of H' inv(R) H


class _Parts(NamedTuple):
    factor: np.ndarray
    inverse: np.ndarray
    lean: np.ndarray
    inner: np.ndarray  # the Cholesky factor of H' inv(R) H
    without: np.ndarray  # P


def distances(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) of rows."""
    r2 = np.sum(u**2, -1)[:, None] + np.sum(v**2, -1) - 2.0 * u @ v.T
    return np.maximum(r2, 0.0)


def correlations(kernel: Kernel, u: np.ndarray, share: float, r2: np.ndarray | None = None) -> np.ndarray:
    """R (n, n), of coordinates in units of their scales."""
    r2 = distances(u, u) if r2 is None else r2
    matrix = (1.0 - share) * kernel(r2)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _parts(matrix: np.ndarray, regressors: np.ndarray) -> _Parts:
    n, q = regressors.shape
    factor = linalg.cholesky(matrix, lower=True, check_finite=False)
    (invert,) = linalg.get_lapack_funcs(("potri",), (factor,))
    inverse, _ = invert(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    lean = inverse @ regressors
    inner = linalg.cholesky(regressors.T @ lean + VAGUE * np.eye(q), lower=True, check_finite=False)
    half = linalg.solve_triangular(inner, lean.T, lower=True, check_finite=False)
    return _Parts(factor, inverse, lean, inner, inverse - half.T @ half)


def objective(kernel: Kernel, data: Data, at: np.ndarray) -> tuple[float, np.ndarray]:
    """Minus the log marginal likelihood and prior of `at`, log scales (d,) and the share's logit, and its slope."""
    u, regressors, w = data
    (n, d), q = u.shape, regressors.shape[1]
    log_scales, logit = at[:-1], at[-1]
    share = 1.0 / (1.0 + np.exp(-logit))
    scaled = u / np.exp(log_scales)
    r2 = distances(scaled, scaled)
    np.fill_diagonal(r2, 0.0)
    matrix = correlations(kernel, scaled, share, r2)
    try:
        parts = _parts(matrix, regressors)
    except linalg.LinAlgError:
        return 1e10, np.zeros_like(at)
    rest = parts.without @ w
    free = max(n - q, 1)
    total = max(w @ rest, LOW)
    value = -0.5 * free * np.log(total / free)
    value -= np.log(np.diag(parts.factor)).sum() + np.log(np.diag(parts.inner)).sum()
    weight = 0.5 * (free / total * np.outer(rest, rest) - parts.without)  # the slope by each entry of R
    pull = (1.0 - share) * weight * kernel.slope(r2)
    np.fill_diagonal(pull, 0.0)
    by_scale = -4.0 * (pull.sum(1) @ scaled**2 - np.sum(scaled * (pull @ scaled), 0))
    off = np.sum(weight * matrix) - np.trace(weight)  # only what is off the diagonal knows the share
    by_logit = -off * share  # d(1 - share) = -share (1 - share) dlogit, and `matrix` has 1 - share in it
    prior, by_prior = _prior(at, d)
    return -(value + prior), -(np.append(by_scale, by_logit) + by_prior)


def _prior(at: np.ndarray, d: int) -> tuple[float, np.ndarray]:
    z = np.append((at[:-1] - SCALE - 0.5 * np.log(d)) / SPREAD, (at[-1] - SHARE) / SHARES)
    return -0.5 * float(z @ z), -z / np.append(np.full(d, SPREAD), SHARES)


def starts(d: int) -> list[np.ndarray]:
    """Where a climb begins: short scales and hardly a nugget; long ones and much of it."""
    half = 0.5 * np.log(d)
    return [np.append(np.full(d, half - 0.5), -9.0), np.append(np.full(d, half + 0.7), -3.0)]


def climb(kernel: Kernel, data: Data, begin: list[np.ndarray], *, least: float, steps: int) -> np.ndarray:
    """The best scales and share (d + 1,) from these beginnings, the share at least `least`; `steps` of L-BFGS from each."""
    d = data.u.shape[1]
    floor = np.log(least)
    bounds = [(-FAR, FAR)] * d + [(floor, FAR)]
    found = []
    for at in begin:
        at = np.append(np.clip(at[:-1], -FAR, FAR), np.clip(at[-1], floor, FAR))
        goal = partial(objective, kernel, data)
        found.append(optimize.minimize(goal, at, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}))
    return min(found, key=lambda f: f.fun).x


def solve(kernel: Kernel, data: Data, at: np.ndarray) -> tuple[Solved, np.ndarray, np.ndarray]:
    """The process with these scales and share, and the means and variances (n,) of runs left out."""
    u, regressors, w = data
    (n, q), share = regressors.shape, 1.0 / (1.0 + np.exp(-at[-1]))
    scales = np.exp(at[:-1])
    parts = _parts(correlations(kernel, u / scales, share), regressors)
    rest = parts.without @ w
    variance = max(w @ rest, LOW) / max(n - q, 1)
    beta = linalg.cho_solve((parts.inner, True), parts.lean.T @ w)
    whiten = linalg.solve_triangular(parts.factor, np.eye(n), lower=True, check_finite=False)
    spread = linalg.solve_triangular(parts.inner, np.eye(q), lower=True, check_finite=False)
    # of n numbers at least one of P's may be lost in rounding, where runs are as many as regressors
    alone = np.maximum(np.diag(parts.without), 1e-12 * np.diag(parts.inverse))
    found = Solved(scales, np.asarray(share), np.asarray(variance), beta, rest, whiten, parts.lean, spread)
    return found, w - rest / alone, variance / alone


def predicted(kernel: Kernel, solved: Solved, u: np.ndarray, at: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """The means (m,) at coordinates `at` (m, d) of a process whose runs are at u (n, d)."""
    c = (1.0 - solved.share) * kernel(distances(at / solved.scales, u / solved.scales))
    return regressors @ solved.beta + c @ solved.alpha


def uncertainty(kernel: Kernel, solved: Solved, u: np.ndarray, at: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """The variances (m,) there, of what runs would give."""
    c = (1.0 - solved.share) * kernel(distances(at / solved.scales, u / solved.scales))
    known, lack = c @ solved.whiten.T, (regressors - c @ solved.lean) @ solved.spread.T
    share = 1.0 - np.sum(known**2, -1) + np.sum(lack**2, -1)
    return solved.variance * np.maximum(share, solved.share)
