"""Six models, each written twice: in the language, and by hand in JAX as one expects of an expert.

`pairs()` yields (name, target from the language, hand-written log density over the same flat vector). The hand-written
ones take the flat vector and the data, normalise every density as the language does, and add the Jacobians.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln, xlogy

import ppl
from ppl import dist, sample


class Pair(NamedTuple):
    """One density twice."""

    name: str
    target: ppl.Target
    by_hand: Callable[..., Array]
    data: tuple


LOG_ROOT_2_PI = 0.5 * math.log(2.0 * math.pi)


def normal(x: Array, mean: Array | float = 0.0, sd: Array | float = 1.0) -> Array:
    """The textbook formula. (`jax.scipy.stats.norm.logpdf` squares the numerator and sd apart.)"""
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - LOG_ROOT_2_PI


def half_cauchy(x: Array, scale: float) -> Array:
    return jnp.log(2.0 / jnp.pi / scale) - jnp.log1p((x / scale) ** 2)


# -- eight schools, as a plate ---------------------------------------------------------------------------------------


@ppl.model
def schools(sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def school(s):
        theta = sample("theta", dist.Normal(mu, tau))
        return sample("y", dist.Normal(theta, s))

    return ppl.vmap(school)(sigma)


def schools_by_hand(u, y, sigma):
    mu, log_tau, theta = u[0], u[1], u[2:]
    tau = jnp.exp(log_tau)
    prior = normal(mu, 0.0, 5.0) + half_cauchy(tau, 5.0) + log_tau + normal(theta, mu, tau).sum()
    return prior + normal(y, theta, sigma).sum()


# -- linear regression, 2000 x 20 ------------------------------------------------------------------------------------


@ppl.model
def linear(x):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]))
    s = sample("s", dist.HalfCauchy(1.0))
    sample("y", dist.Normal(x @ b, s))


def linear_by_hand(u, y, x):
    b, log_s = u[:-1], u[-1]
    s = jnp.exp(log_s)
    return normal(b).sum() + half_cauchy(s, 1.0) + log_s + normal(y, x @ b, s).sum()


# -- logistic regression with a plate over rows ----------------------------------------------------------------------


@ppl.model
def logistic(x):
    b = sample("b", dist.Normal(0.0, 2.5).expand([x.shape[1]]))
    ppl.vmap(lambda row: sample("y", dist.Bernoulli(logits=row @ b)))(x)


def logistic_by_hand(u, y, x):
    z = x @ u
    return normal(u, 0.0, 2.5).sum() + (y * z - jnp.logaddexp(0.0, z)).sum()


# -- hierarchical Poisson, groups within a plate of plates -----------------------------------------------------------


@ppl.model
def poisson(groups, repeats):
    m = sample("m", dist.Normal(0.0, 1.0))
    s = sample("s", dist.HalfNormal(1.0))

    def group():
        rate = sample("log_rate", dist.Normal(m, s))
        ppl.vmap(lambda: sample("y", dist.Poisson(jnp.exp(rate))), axis_size=repeats)()

    ppl.vmap(group, axis_size=groups)()


def poisson_by_hand(u, y):
    m, log_s, r = u[0], u[1], u[2:]
    s = jnp.exp(log_s)
    prior = normal(m) + normal(s) + jnp.log(2.0) + log_s + normal(r, m, s).sum()
    return prior + (xlogy(y.astype(u.dtype), jnp.exp(r)[:, None]) - jnp.exp(r)[:, None] - gammaln(y + 1.0)).sum()


# -- stochastic volatility by scan -----------------------------------------------------------------------------------


@ppl.model
def volatility(steps):
    phi = sample("phi", dist.Uniform(-1.0, 1.0))
    s = sample("s", dist.HalfNormal(0.5))

    def step(h, _):
        h = sample("h", dist.Normal(phi * h, s))
        sample("y", dist.Normal(0.0, jnp.exp(h / 2)))
        return h, None

    ppl.scan(step, 0.0, length=steps)


def volatility_by_hand(u, y):
    p, log_s = jax.nn.sigmoid(u[0]), u[1]
    phi, s, h = 2 * p - 1, jnp.exp(u[1]), u[2:]
    prior = -jnp.log(2.0) + jnp.log(2.0) - jax.nn.softplus(u[0]) - jax.nn.softplus(-u[0])
    prior += normal(s, 0.0, 0.5) + jnp.log(2.0) + log_s

    def step(before, x):
        now, obs = x
        return now, normal(now, phi * before, s) + normal(obs, 0.0, jnp.exp(now / 2))

    return prior + jax.lax.scan(step, 0.0, (h, y))[1].sum()


# -- hidden Markov model, states summed out --------------------------------------------------------------------------


@ppl.model
def hmm(y):
    mu = sample("mu", dist.Normal(jnp.array([3.0, 10.0]), 1.0))
    a = sample("a", dist.Dirichlet(jnp.ones((2, 2))))
    ppl.factor("y", forward(mu, a, y))


def forward(mu, a, y):
    log_a, emit = jnp.log(a), normal(y[:, None], mu, 1.0)

    def step(alpha, e):
        return jax.nn.logsumexp(alpha[:, None] + log_a, axis=0) + e, None

    return jax.nn.logsumexp(jax.lax.scan(step, emit[0], emit[1:])[0])


def hmm_by_hand(u, y):
    mu, v = u[:2], u[2:].reshape(2, 1)
    p = jax.nn.sigmoid(v)  # stick breaking with two parts
    a = jnp.concatenate([p, 1 - p], axis=1)
    jacobian = (-jax.nn.softplus(v) - jax.nn.softplus(-v)).sum()
    return normal(mu, jnp.array([3.0, 10.0]), 1.0).sum() + jacobian + forward(mu, a, y)


def pairs() -> Iterator[Pair]:
    """The six pairs, with data simulated from fixed NumPy seeds."""
    rng = np.random.default_rng(0)
    y = jnp.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    sigma = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    yield Pair("eight schools (10)", ppl.Target(schools(sigma) | {"y": y}), schools_by_hand, (y, sigma))

    x = jnp.asarray(rng.normal(size=(2000, 20)))
    y = x @ jnp.asarray(rng.normal(size=20)) + jnp.asarray(rng.normal(size=2000))
    yield Pair("linear regression (21)", ppl.Target(linear(x) | {"y": y}), linear_by_hand, (y, x))

    y = jnp.asarray(rng.integers(0, 2, size=2000))
    yield Pair("logistic regression (20)", ppl.Target(logistic(x) | {"y": y}), logistic_by_hand, (y, x))

    y = jnp.asarray(rng.poisson(3.0, size=(50, 20)))
    yield Pair("hierarchical Poisson (52)", ppl.Target(poisson(50, 20) | {"y": y}), poisson_by_hand, (y,))

    y = jnp.asarray(rng.normal(size=500))
    yield Pair("stochastic volatility (502)", ppl.Target(volatility(500) | {"y": y}), volatility_by_hand, (y,))

    y = jnp.asarray(np.concatenate([rng.normal(3, 1, 50), rng.normal(9, 1, 50)]))
    yield Pair("hidden Markov model (4)", ppl.Target(hmm(y)), hmm_by_hand, (y,))
