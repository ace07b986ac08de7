"""Five tasks of simulation-based inference as programs, each with draws of its exact posterior.

Definitions are those of sbibm (Lueckmann, Boelts, Greenberg, Gonçalves and Macke, "Benchmarking simulation-based inference",
AISTATS 2021, arXiv:2101.04653, appendix T): latent `theta`, data `x`. Observations are our own: ten draws of each program.

| task                      | theta | posterior drawn by                                                                  |
|---------------------------|-------|-------------------------------------------------------------------------------------|
| `two_moons`               | 2     | inverting the simulator, rejection at the prior's edges: exact                      |
| `gaussian_mixture`        | 2     | a mixture of two Normals around x, rejection at the edges: exact                    |
| `gaussian_linear_uniform` | 10    | Normals cut off at the edges: exact                                                 |
| `slcp`                    | 5     | rejection of scales and correlation, under the largest likelihood; means given them |
| `bernoulli_glm`           | 10    | NUTS, 4 chains of 2500 draws: log-concave                                           |
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import inference as inf
import ppl
from ppl import dist, sample

OFFSET, RADIUS, THIN = 0.25, 0.1, 0.01  # of the moons
WIDE, NARROW = 1.0, 0.1  # scales of the mixture
NOISE = 0.1**0.5
TINY = 1e-6  # added to variances, as published


@ppl.model
def two_moons():
    theta: Any = sample("theta", dist.Uniform(-1.0, 1.0).expand([2]))
    sample("x", Moon(_folded(theta)))


def _folded(theta):
    """Where the moon of theta is: the two parameters that have one fold make two moons of theta."""
    return jnp.stack([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]]) / 2**0.5


class Moon(dist.Distribution):
    """Half a ring of radius r ~ Normal(0.1, 0.01) right of `place` (2,), moved by a quarter."""

    arg_constraints: Any = {}
    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("place",)

    def __init__(self, place: jax.Array) -> None:
        self.place = place
        super().__init__((), (2,), validate_args=False)

    def sample(self, key: Any, sample_shape=()):
        one, two = jax.random.split(key)
        angle = jax.random.uniform(one, sample_shape, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
        radius = RADIUS + THIN * jax.random.normal(two, sample_shape)
        return self.place + jnp.stack([radius * jnp.cos(angle) + OFFSET, radius * jnp.sin(angle)], -1)

    def log_prob(self, value, intermediates: Any = None):
        """In polar coordinates; a radius below zero, at ten deviations, is left out."""
        u, v = jnp.moveaxis(value - self.place, -1, 0)
        u = u - OFFSET
        radius = jnp.sqrt(jnp.maximum(u**2 + v**2, 1e-12))
        log_p = dist.Normal(RADIUS, THIN).log_prob(radius) - jnp.log(jnp.pi * radius)
        return jnp.where(u < 0.0, -jnp.inf, log_p)


@ppl.model
def gaussian_mixture():
    theta: Any = sample("theta", dist.Uniform(-10.0, 10.0).expand([2]))
    parts: Any = dist.Normal(theta, jnp.array([[WIDE], [NARROW]])).to_event(1)
    sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.full(2, 0.5)), parts))


@ppl.model
def gaussian_linear_uniform():
    theta = sample("theta", dist.Uniform(-1.0, 1.0).expand([10]))
    sample("x", dist.Normal(theta, NOISE))


@ppl.model
def slcp():
    theta: Any = sample("theta", dist.Uniform(-3.0, 3.0).expand([5]))
    one, two, rho = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    first = jnp.sqrt(one**2 + TINY)
    below = rho * one * two / first
    last = jnp.sqrt(jnp.maximum(two**2 - below**2, 0.0) + TINY)
    scale = jnp.array([[1.0, 0.0], [0.0, 0.0]]) * first + jnp.array([[0.0, 0.0], [1.0, 0.0]]) * below
    scale = scale + jnp.array([[0.0, 0.0], [0.0, 1.0]]) * last
    ppl.vmap(lambda _: sample("x", dist.MultivariateNormal(theta[:2], scale_tril=scale)))(jnp.arange(4))


def _design() -> np.ndarray:
    """(100, 10): ones, and a frozen stimulus at nine delays."""
    stimulus = np.random.RandomState(42).randn(100)
    late = [np.concatenate([np.zeros(j), stimulus[: 100 - j]]) for j in range(9)]
    return np.stack([np.ones(100), *late], 1)


def _precision() -> np.ndarray:
    """Of the prior: second differences of the filter are small."""
    first = np.eye(9) - np.eye(9, k=-1)
    smooth = first @ first + np.diag(np.sqrt(np.arange(9) / 9.0))
    precision = np.zeros((10, 10))
    precision[0, 0], precision[1:, 1:] = 0.5, smooth.T @ smooth
    return precision


DESIGN, PRIOR = _design(), np.linalg.cholesky(np.linalg.inv(_precision()))


class Spikes(dist.Distribution):
    """Sufficient statistics (10,) of 100 spikes y ~ Bernoulli(sigmoid(design theta)): their sums with the design's columns.

    The density is up to the number of spike trains that have these sums, which does not depend on theta.
    """

    arg_constraints: Any = {}
    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("theta",)

    def __init__(self, theta: jax.Array) -> None:
        self.theta = theta
        super().__init__((), (10,), validate_args=False)

    def sample(self, key: Any, sample_shape=()):
        share = jax.nn.sigmoid(jnp.asarray(DESIGN, self.theta.dtype) @ self.theta)
        spikes = jax.random.uniform(key, (*sample_shape, 100)) < share
        return spikes.astype(self.theta.dtype) @ jnp.asarray(DESIGN, self.theta.dtype)

    def log_prob(self, value, intermediates: Any = None):
        return value @ self.theta - jnp.sum(jax.nn.softplus(jnp.asarray(DESIGN, self.theta.dtype) @ self.theta))


@ppl.model
def bernoulli_glm():
    theta: Any = sample("theta", dist.MultivariateNormal(jnp.zeros(10), scale_tril=jnp.asarray(PRIOR, jnp.float32)))
    sample("x", Spikes(theta))


def _moons(rng, x, num):
    found = np.zeros((0, 2))
    while len(found) < num:
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, 4 * num), rng.normal(RADIUS, THIN, 4 * num)
        fold, along = x[0] - radius * np.cos(angle) - OFFSET, x[1] - radius * np.sin(angle)
        side = np.where(rng.random(4 * num) < 0.5, fold, -fold)
        theta = np.stack([side - along, side + along], 1) / 2**0.5
        # fold is minus a size: what lies above zero has no theta
        found = np.concatenate([found, theta[(fold < 0.0) & (np.abs(theta) < 1.0).all(1)]])
    return found[:num]


def _mixture(rng, x, num):
    found = np.zeros((0, 2))
    while len(found) < num:
        scale = np.where(rng.random((num, 1)) < 0.5, WIDE, NARROW)
        theta = x + scale * rng.normal(size=(num, 2))
        found = np.concatenate([found, theta[(np.abs(theta) < 10.0).all(1)]])
    return found[:num]


def _cut(rng, x, num):
    return stats.truncnorm.rvs((-1.0 - x) / NOISE, (1.0 - x) / NOISE, loc=x, scale=NOISE, size=(num, 10), random_state=rng)


def _slcp(rng, x, num):
    """Of scales and correlation the likelihood, with the means integrated out over the plane, is at most that at S = A / 3.

    A scale is drawn only where the largest likelihood that it allows is 1e-12 of that, and more. Means given the rest are
    Normal; a draw with a mean outside the prior is rejected with all else, which makes the box's integral right.
    """
    middle, spread = x.mean(0), np.cov(x.T, bias=True) * len(x)  # A, of three degrees of freedom
    best = -1.5 * np.linalg.slogdet(spread / 3.0)[1] - 3.0
    grid = np.linspace(0.0, 3.0, 30001)[1:]
    scales = []
    for a in np.diag(spread):
        variance = grid**4 + TINY  # a scale of nothing is possible where the data are as narrow as that
        profile = -1.5 * np.log(variance) - 0.5 * a / variance
        kept = grid[profile > -1.5 * np.log(a / 3.0) - 1.5 + np.log(1e-12)]
        scales.append((max(kept[0] - 1e-4, 0.0), min(kept[-1] + 1e-4, 3.0)))
    found, (low, high) = np.zeros((0, 5)), np.array(scales).T
    while len(found) < num:
        size = rng.uniform(low, high, (10**6, 2))
        raw = rng.uniform(-3.0, 3.0, 10**6)
        one, two = (size**4 + TINY).T
        cross = np.tanh(raw) * size[:, 0] ** 2 * size[:, 1] ** 2
        det = one * two - cross**2
        trace = (two * spread[0, 0] + one * spread[1, 1] - 2.0 * cross * spread[0, 1]) / det
        kept = np.log(rng.random(10**6)) < -1.5 * np.log(det) - 0.5 * trace - best
        first = np.sqrt(one[kept])
        noise = rng.normal(size=(kept.sum(), 2)) / len(x) ** 0.5
        below = cross[kept] / first
        means = middle + np.stack([first * noise[:, 0], below * noise[:, 0] + np.sqrt(det[kept]) / first * noise[:, 1]], 1)
        sides = np.where(rng.random((kept.sum(), 2)) < 0.5, 1.0, -1.0)
        theta = np.concatenate([means, size[kept] * sides, raw[kept, None]], 1)
        found = np.concatenate([found, theta[(np.abs(means) < 3.0).all(1)]])
    return found[:num]


def _spikes(rng, x, num):
    key = jax.random.key(int(rng.integers(2**31)))
    posterior = inf.mcmc(bernoulli_glm() | {"x": x}, inf.NUTS(), key=key, chains=4, draws=2500, progress=False)
    theta = np.asarray(posterior["theta"]).reshape(-1, 10)
    return theta[rng.permutation(len(theta))[:num]]


class Task(NamedTuple):
    """A `program` without data; `exact(rng, x, num)`, draws (num, dim) of its posterior; the `published` accuracy of C2ST of
    neural posterior estimation at 10,000 simulations."""

    program: Any
    exact: Any
    published: float
    rows: int = 0


TASKS = {
    "two_moons": Task(two_moons(), _moons, 0.606),
    "gaussian_mixture": Task(gaussian_mixture(), _mixture, 0.661),
    "gaussian_linear_uniform": Task(gaussian_linear_uniform(), _cut, 0.553),
    "slcp": Task(slcp(), _slcp, 0.901, 4),
    "bernoulli_glm": Task(bernoulli_glm(), _spikes, 0.678),
}
