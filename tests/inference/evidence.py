"""Models whose evidence is known, and z-scores of estimates of it.

`z_scores(method, case, ...)`: of independent runs, how many of its own standard errors each log evidence is off. Over 200 runs
their mean is to lie within 0.3 (four errors) and their standard deviation in [0.85, 1.15] (three); the shorter tests that
always run have 30 runs, and as much wider a margin. There must be particles enough that an error is below 0.15 or so: log Z is
not normal where it errs by more, and its error, itself an estimate, is too small by a tenth.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betaln
from scipy.stats import multivariate_normal

import ppl
from inference.compiled import compiled
from inference.smc.loop import begin, finish
from ppl import dist, sample


class Case(NamedTuple):
    program: Any
    exact: float  # log evidence


def _normal_evidence(x, y) -> float:
    return float(multivariate_normal(np.zeros(len(y)), np.eye(len(y)) + x @ x.T).logpdf(y))


@ppl.model
def _regression(x):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    sample("y", dist.Normal(x @ b, 1.0))


def regression(dim: int = 8, num: int = 100) -> Case:
    """y = x b + noise, with a standard normal prior of b: y is normal."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, dim))
    y = x @ rng.normal(size=dim) + rng.normal(size=num)
    return Case(_regression(jnp.asarray(x, jnp.float32)) | {"y": jnp.asarray(y, jnp.float32)}, _normal_evidence(x, y))


@ppl.model
def _coin(a, b, num):
    p = sample("p", dist.Beta(a, b))
    sample("y", dist.Bernoulli(p).expand([num]))


FLIPS = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1])


def coin(num: int = len(FLIPS)) -> Case:
    """The first `num` flips of a coin with a Beta prior."""
    y = FLIPS[:num]
    return Case(_coin(2.0, 2.0, num) | {"y": y}, betaln(2 + y.sum(), 2 + num - y.sum()) - betaln(2, 2))


@ppl.model
def _gaussian_process(chol):
    z = sample("z", dist.Normal(0.0, 1.0).expand([len(chol)]).to_event(1))
    sample("y", dist.Normal(chol @ z, 0.5))


def gaussian_process() -> Case:
    """Noisy values of a Gaussian process at six places, its kernel known."""
    t = np.linspace(0, 1, 6)
    k = np.exp(-0.5 * (t[:, None] - t) ** 2 / 0.3**2) + 1e-6 * np.eye(6)
    y = np.sin(6 * t)
    exact = float(multivariate_normal(np.zeros(6), k + 0.25 * np.eye(6)).logpdf(y))
    return Case(_gaussian_process(jnp.asarray(np.linalg.cholesky(k), jnp.float32)) | {"y": jnp.asarray(y, jnp.float32)}, exact)


def runs(method, program, particles: int, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """log evidence and its error (num,) of runs with different keys."""
    path = method.way.of(program)

    def all_of(path, stage, keys):
        def one(key):
            state = finish(stage, path, key, begin(stage, path, key, particles))
            return state.population.log_evidence, state.population.log_evidence_error

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(seed), num)
    found, error = compiled(all_of, object(), path, method.stage, keys)(path, method.stage, keys)  # to run fast: see conftest
    return np.asarray(found, float), np.asarray(error, float)


def z_scores(method, case: Case, particles: int, num: int, seed: int = 0) -> np.ndarray:
    found, error = runs(method, case.program, particles, num, seed)
    return (found - case.exact) / error


def assert_calibrated(z) -> None:
    """The mean within three errors, the standard deviation within two and a half of one."""
    assert abs(z.mean()) < 3 / np.sqrt(len(z)), z.mean()
    assert abs(z.std() - 1) < 2.5 / np.sqrt(2 * len(z)), z.std()


def assert_unbiased(method, case: Case, particles: int, num: int, seed: int = 0) -> None:
    """The mean of the estimates (not of their logs) is the evidence, within three errors."""
    ratio = np.exp(runs(method, case.program, particles, num, seed)[0] - case.exact)
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / np.sqrt(num), (ratio.mean(), ratio.std() / np.sqrt(num))
