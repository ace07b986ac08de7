"""Models whose evidence is known exactly, from many corners: series, regressions, boxes, mixtures, the expanding universe.

Numbers that are not computed here come from converged grids or exact recursions: the Nile from a Kalman filter, earthquakes
from the forward recursion, cosmology from quadrature on grids of 400^2 and 800^2 (equal to 1e-5).
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import ppl
from ppl import dist, sample
from tests.inference.evidence import Case, regression

HERE, TUTORIALS = Path(__file__).parent / "data", Path(__file__).parents[2] / "docs/tutorials/data"


def _read(path, **settings):
    return np.genfromtxt(path, delimiter=",", **settings)


# -- series ----------------------------------------------------------------------------------------------------------------


@ppl.model
def _local_level(length):
    def step(x, first):
        x = sample("x", dist.Normal(jnp.where(first, 1000.0, x), jnp.where(first, 1e5**0.5, 1469.1**0.5)))
        sample("y", dist.Normal(x, 15099.0**0.5))
        return x, None

    ppl.scan(step, 0.0, jnp.arange(length) == 0)


def nile() -> Case:
    flow = _read(TUTORIALS / "nile.csv", names=True)["flow_1e8_m3"]
    return Case(_local_level(100) | {"y": flow}, -639.300724)


@ppl.model
def _two_rates(length):
    rows = jnp.log(jnp.array([[0.9340, 0.0660], [0.1285, 0.8715]]))
    start = jnp.log(jnp.array([0.660668, 0.339332]))

    def step(z, first):
        z = sample("z", dist.Categorical(logits=jnp.where(first, start, rows[z])))
        sample("y", dist.Poisson(jnp.array([15.472, 26.125])[z]))
        return z, None

    ppl.scan(step, jnp.array(0), jnp.arange(length) == 0)


def earthquakes() -> Case:
    counts = _read(TUTORIALS / "earthquakes.csv", names=True)["count"].astype(int)
    return Case(_two_rates(107) | {"y": counts}, -342.318268)


@ppl.model
def _linear(length, dim, noise):
    mix = 0.42 ** (1.0 + jnp.abs(jnp.arange(dim)[:, None] - jnp.arange(dim)))

    def step(x, _):
        x = sample("x", dist.Normal(mix @ x, 1.0).to_event(1))
        sample("y", dist.Normal(x, noise).to_event(1))
        return x, None

    ppl.scan(step, jnp.zeros(dim), length=length)


def linear(dim: int, length: int, noise: float) -> Case:
    """A linear-Gaussian state space: all data are jointly normal."""
    mix = 0.42 ** (1.0 + np.abs(np.arange(dim)[:, None] - np.arange(dim)))
    powers, block = [np.eye(dim)], np.zeros((length * dim, length * dim))
    for _ in range(length):
        powers.append(mix @ powers[-1])
    for s in range(length):
        for t in range(length):
            both = sum(powers[s - r] @ powers[t - r].T for r in range(min(s, t) + 1))
            block[s * dim : (s + 1) * dim, t * dim : (t + 1) * dim] = both
    law = multivariate_normal(np.zeros(length * dim), block + noise**2 * np.eye(length * dim))
    y = law.rvs(random_state=np.random.default_rng(3))
    return Case(_linear(length, dim, noise) | {"y": y.reshape(length, dim)}, float(law.logpdf(y)))


# -- fixed spaces ----------------------------------------------------------------------------------------------------------


@ppl.model
def _annealed(dim):
    x = sample("x", dist.Normal(0.0, 3.0).expand([dim]).to_event(1))
    ppl.factor("narrow", -0.5 * jnp.sum(((x - 2.0) / 0.5) ** 2))


def annealed(dim: int = 6) -> Case:
    """From N(0, 9) to a narrow normal elsewhere."""
    one = 0.5 * np.log(2 * np.pi * 0.25) - 0.5 * np.log(2 * np.pi * 9.25) - 0.5 * 4 / 9.25
    return Case(_annealed(dim), dim * one)


@ppl.model
def _two_bumps(dim):
    x = sample("x", dist.Normal(0.0, 2.0).expand([dim]).to_event(1))
    bumps = [jnp.log(w) - 0.5 * jnp.sum(((x - m) / s) ** 2) - dim * jnp.log(s) for w, m, s in BUMPS]
    ppl.factor("bumps", jnp.logaddexp(*bumps))


BUMPS = ((0.7, -1.5, 0.6), (0.3, 1.5, 0.6))


def mixture(dim: int = 4) -> Case:
    """Two bumps, apart by five of their widths."""
    parts = [
        np.log(w) + dim * (0.5 * np.log(2 * np.pi) - 0.5 * np.log(2 * np.pi * (s**2 + 4)) - 0.5 * m**2 / (s**2 + 4))
        for w, m, s in BUMPS
    ]
    return Case(_two_bumps(dim), float(logsumexp(parts)))


@ppl.model
def _box(dim):
    x = sample("x", dist.Uniform(-2.0, 2.0).expand([dim]).to_event(1))
    ppl.factor("normal", dist.Normal(0.0, 0.25).log_prob(x).sum())


def box(dim: int = 5) -> Case:
    """A normal that lies within a box of volume 4^dim."""
    return Case(_box(dim), -dim * np.log(4.0))


@ppl.model
def _constant():
    sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    ppl.factor("constant", -1.25)


def constant() -> Case:
    return Case(_constant(), -1.25)


# -- the universe ----------------------------------------------------------------------------------------------------------

NODES, WEIGHTS = (np.asarray(x) for x in np.polynomial.legendre.leggauss(32))


def _expansion(z, matter):
    return jnp.sqrt(matter * (1 + z) ** 3 + 1 - matter)


@ppl.model
def _universe(clocks, supernovae, covariance):
    matter = sample("matter", dist.Uniform(0.05, 0.95))
    if clocks is not None:
        h0 = sample("h0", dist.Uniform(50.0, 100.0))
        sample("H", dist.Normal(h0 * _expansion(clocks[0], matter), clocks[1]))
    if supernovae is not None:
        z = supernovae
        steps = 0.5 * z[:, None] * (NODES + 1)
        distance = 299792.458 / 70 * z * jnp.sum(0.5 * WEIGHTS / _expansion(steps, matter), axis=1)
        sample("mu", dist.MultivariateNormal(25 + 5 * jnp.log10((1 + z) * distance), covariance))


def cosmology(*, clocks: bool, supernovae: bool) -> Case:
    """Flat LCDM: chronometers, supernovae (their offset ~ N(0, 1) integrated out), or both."""
    data, args = {}, {"clocks": None, "supernovae": None, "covariance": None}
    if clocks:
        table = _read(TUTORIALS / "cc31.csv", names=True)
        args["clocks"], data["H"] = (table["z"], table["sigma_km_s_Mpc"]), table["H_km_s_Mpc"]
    if supernovae:
        table = _read(HERE / "jla31.csv", names=True)
        args["supernovae"], data["mu"] = table["z"], table["mu_mag"]
        args["covariance"] = _read(HERE / "jla31_cov.csv") + 1.0
    exact = {(True, False): -128.37844, (False, True): 38.49216, (True, True): -88.29126}[clocks, supernovae]
    return Case(_universe(**args) | data, exact)


__all__ = ["annealed", "box", "constant", "cosmology", "earthquakes", "linear", "mixture", "nile", "regression"]
