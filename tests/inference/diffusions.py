"""Laws whose diffusion is known at every noise level, what quadrature says of them, and runs of many keys.

A mixture of Gaussians with noise added is one again, so its density, score and denoiser are exact at every level.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from inference.smc.loop import begin, finish
from inference.steering.noised import Density

OPTIONS = {"xla_backend_optimization_level": 1}  # compiles faster, runs as fast


def mixture(shares, means, deviations):
    """log_q(x, sigma) of a mixture of round Gaussians; x is a scalar, or (d,) where means are (num, d)."""
    shares, means, variances = (np.asarray(a, float) for a in (shares, means, np.square(deviations)))
    dim = 1 if means.ndim == 1 else means.shape[1]

    def log_q(x, sigma):
        variance = jnp.asarray(variances) + sigma**2
        square = jnp.square(x - jnp.asarray(means)).reshape(len(means), dim).sum(1)
        parts = jnp.log(jnp.asarray(shares)) - 0.5 * square / variance - 0.5 * dim * jnp.log(2 * jnp.pi * variance)
        return jax.nn.logsumexp(parts)

    return log_q


def denoiser_of(log_q):
    """E[x0 | x], by Tweedie's formula."""
    return lambda x, sigma: x + sigma**2 * jax.grad(log_q)(x, sigma)


ANNEALED = Density(mixture([0.7, 0.3], [-2.0, 2.0], [1.0, 0.5]))
EVEN = Density(mixture([0.5, 0.5], [-2.0, 2.0], [0.7, 0.7]))
UNEVEN = Density(mixture([0.1, 0.9], [-2.0, 2.0], [0.7, 0.7]))
OTHER = Density(mixture([0.4, 0.6], [-1.5, 1.0], [0.7, 1.0]))


def by_quadrature(law, sigma=0.0, reach=15.0, num=60_001):
    """Of a law on the line: log of its integral, the mass below 0, mean and mean square."""
    x = np.linspace(-reach, reach, num)
    log_p = np.asarray(jax.jit(jax.vmap(lambda x: law.log_density(x, jnp.float32(sigma))))(jnp.asarray(x)), np.float64)
    p = np.exp(log_p)
    total = p.sum()
    return np.log(total * (x[1] - x[0])), p[x < 0].sum() / total, p @ x / total, p @ x**2 / total


def estimates(law, method, particles: int, num: int, seed: int = 0, f=lambda x: jnp.stack([x < 0, x, x**2])):
    """Of `num` runs: log evidence (num,), its error (num,), and posterior means of f (num, ...)."""
    path = method.way.of(law)
    method.stage.check(path)

    @partial(jax.jit, compiler_options=OPTIONS)
    def all_of(path, stage, keys):
        def one(key):
            population = finish(stage, path, key, begin(stage, path, key, particles)).population
            means = population.mean(lambda particle: f(path.seen(particle.position)).astype(float))
            return population.log_evidence, population.log_evidence_error, means

        return jax.vmap(one)(keys) if num * particles < 50_000 else jax.lax.map(one, keys)

    found = all_of(path, method.stage, jax.random.split(jax.random.key(seed), num))
    return [np.asarray(x, np.float64) for x in found]


def assert_unbiased(estimates, wanted, errors: float = 5.0):
    """Means over runs (num, ...) are as wanted, within so many of their standard errors."""
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    np.testing.assert_array_less(np.abs(estimates.mean(axis=0) - wanted), errors * error)
