"""Gaussian processes: counts with a squared exponential kernel, and head accelerations on spectral basis functions."""

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

from .reference import Data, Reference


@ppl.model
def poisson_process(x):
    """Log rates f = L z with standard normal z. The covariance is nearly singular: use double precision."""
    rho = sample("rho", dist.Gamma(25.0, 4.0))
    alpha = sample("alpha", dist.HalfNormal(2.0))
    z = sample("z", dist.Normal(0.0, 1.0).expand(x.shape))
    squared_distance = (x[:, None] - x) ** 2
    covariance = alpha**2 * jnp.exp(-squared_distance / (2 * rho**2)) + 1e-10 * jnp.eye(len(x))
    f = ppl.deterministic("f", jnp.linalg.cholesky(covariance) @ z)
    sample("k", dist.Poisson(jnp.exp(f)))


@ppl.model
def acceleration(x, frequency, x_sigma, frequency_sigma):
    """Mean and log scale are Gaussian processes on Laplacian eigenfunctions (Riutort-Mayol et al. 2023).

    x: (times, basis functions); frequency: (basis functions,), roots of the eigenvalues.
    """
    half_t = dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 36.0))
    short = dist.InverseGamma(1.124909, 0.0177)

    intercept = sample("Intercept", dist.StudentT(3.0, -13.0, 36.0))
    amplitude, scale = sample("sdgp_1", half_t), sample("lscale_1", short)
    z = sample("zgp_1", dist.Normal(0.0, 1.0).expand(frequency.shape))
    mean = intercept + x @ (root_spectrum(frequency, amplitude, scale) * z)

    intercept = sample("Intercept_sigma", dist.StudentT(3.0, 0.0, 10.0))
    amplitude, scale = sample("sdgp_sigma_1", half_t), sample("lscale_sigma_1", short)
    z = sample("zgp_sigma_1", dist.Normal(0.0, 1.0).expand(frequency_sigma.shape))
    log_sigma = intercept + x_sigma @ (root_spectrum(frequency_sigma, amplitude, scale) * z)

    sample("Y", dist.Normal(mean, jnp.exp(log_sigma)))


def root_spectrum(frequency, amplitude, scale):
    """Square root of the spectral density of the squared exponential kernel in one dimension."""
    return amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * scale) * jnp.exp(-((scale * frequency) ** 2) / 4)


def gp_pois_regr(d: Data):
    return poisson_process(d["x"]) | {"k": d["k"]}


def accel_gp(d: Data):
    bases = d["Xgp_1"], d["slambda_1"][:, 0], d["Xgp_sigma_1"], d["slambda_sigma_1"][:, 0]
    return acceleration(*bases) | {"Y": d["Y"]}


REFERENCES = {
    "gp_pois_regr-gp_pois_regr": Reference(gp_pois_regr, constant=np.log(2.0)),
    "mcycle_gp-accel_gp": Reference(accel_gp, constant=2 * np.log(2.0)),
}
