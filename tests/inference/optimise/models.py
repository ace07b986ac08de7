"""Programs with exact answers, which the tests of this folder share."""

import math
from functools import cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 100.0]])
MEAN = np.array([1.0, -2.0, 30.0])

_RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(30), _RNG.normal(size=30)]).astype(np.float32)
LABELS = (_RNG.uniform(size=30) < 1 / (1 + np.exp(-(X @ [0.5, 1.5])))).astype(np.int32)


class Exact(NamedTuple):
    """Mean (dim,), covariance (dim, dim), and log evidence."""

    mean: np.ndarray
    covariance: np.ndarray
    log_evidence: float


@ppl.model
def normal(x):
    """Regression with normal noise."""
    theta = sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    sample("y", dist.Normal(x @ theta, 0.5).to_event(1))


def line(seed: int, num: int):
    """Regressors (num, 2) and data of `normal`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    return jnp.asarray(x), jnp.asarray(x @ np.array([0.5, -1.0]) + 0.5 * rng.normal(size=num))


def line_exact(x, y) -> Exact:
    """The posterior of `normal`."""
    x, y = np.asarray(x), np.asarray(y)
    covariance = np.linalg.inv(np.eye(2) + x.T @ x / 0.25)
    marginal = x @ x.T + 0.25 * np.eye(len(y))
    fit = y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(marginal)[1] + len(y) * math.log(2 * math.pi)
    return Exact(covariance @ x.T @ y / 0.25, covariance, -0.5 * fit)


@ppl.model
def logistic(x):
    """Two coefficients."""
    beta = sample("beta", dist.Normal(jnp.zeros(2), 2.0).to_event(1))
    sample("y", dist.Bernoulli(logits=x @ beta).to_event(1))


@cache
def exact_logistic() -> Exact:
    """The posterior of `logistic(X) | LABELS`, on a grid."""
    grid = np.linspace(-10.0, 10.0, 801)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    logits = points @ X.T.astype(float)
    log_p = np.sum(LABELS * logits - np.logaddexp(0.0, logits), 1)
    log_p += np.sum(-0.5 * (points / 2) ** 2 - math.log(2 * math.sqrt(2 * math.pi)), 1)
    weights = np.exp(log_p - log_p.max())
    share = weights / weights.sum()
    mean = share @ points
    log_evidence = log_p.max() + math.log(weights.sum() * (grid[1] - grid[0]) ** 2)
    return Exact(mean, (points - mean).T @ ((points - mean) * share[:, None]), log_evidence)


@ppl.model
def funnel():
    """Neal's, of nine coordinates."""
    v = sample("v", dist.Normal(0.0, 3.0))
    sample("x", dist.Normal(jnp.zeros(8), jnp.exp(0.5 * v)).to_event(1))
