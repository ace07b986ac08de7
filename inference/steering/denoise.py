"""Denoise: on to the next noise level, with exact weights.

A particle x at level k is denoised to x' by a proposal F, and weighted by

    gamma_{k+1}(x') L(x | x') / ( gamma_k(x) F(x' | x) ) ,     L(x | x') = N(x; x', v I) ,

v the variance of the noise between the levels. This is the ratio of two joint densities of (x, x'), so the population is
properly weighted for gamma_{k+1} whatever F, the number of levels, and the gammas are: there is no error of discretisation to
be corrected, only weights that are more or less even (Del Moral, Doucet and Jasra, JRSS B 68, 2006, section 3.3, with noising
for the backward kernel). Where gamma_k is gamma_{k+1} with noise, the best F is known by its moments, from the gradient and
the curvature of log gamma_k:

    E[x' | x] = x + v grad log gamma_k(x) ,     Cov[x' | x] = v (I + v hess log gamma_k(x)) .

```python
Denoise()                       # both moments
Denoise(FirstOrder())           # the mean, and v: where hessians cost too much
```
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from ..population import Population, is_weight
from ..smc.step import Step, Stepped
from .noise_path import DenoisingPath, Noisy

NARROWEST = 1e-3  # share of the noise's variance, below which a proposal's is not taken to be


class Proposal(eqx.Module):
    """How to denoise: any law with a density that reaches everywhere is right."""

    @abc.abstractmethod
    def __call__(self, key, path: DenoisingPath, position, old, new, variance) -> tuple[jax.Array, jax.Array]:
        """A position (dim,) at noise level `new` from one at level `old`, and the log density that it was proposed with.
        `variance` is that of the noise between the levels."""


class FirstOrder(Proposal):
    """By the gradient alone: N(x + v grad log gamma, v)."""

    def __call__(self, key, path, position, old, new, variance):
        mean = position + variance * path.law.score(path.seen(position), old).reshape(-1)
        there = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape, mean.dtype)
        return there, log_normal(there - mean, variance)


class SecondOrder(Proposal):
    """By gradient and curvature: both moments, where the old target is the new one with noise. (Meng, Song, Li and Ermon,
    NeurIPS 2021, arXiv:2111.04726.) Directions of negative variance, which steered laws may have, are given a small one."""

    def __call__(self, key, path, position, old, new, variance):
        def gradient(u):
            score = path.law.score(path.seen(u), old).reshape(-1)
            return score, score

        hessian, score = jax.jacfwd(gradient, has_aux=True)(position)
        shares, axes = jnp.linalg.eigh(0.5 * (hessian + hessian.T))
        known = variance * jnp.maximum(1 + variance * shares, jnp.maximum((new / old) ** 2, NARROWEST))
        step = jnp.sqrt(known) * jax.random.normal(key, position.shape, position.dtype)
        log_density = jnp.sum(log_normal_each(step, known))
        return position + variance * score + axes @ step, log_density


class Denoise(Step):
    """Denoise by one level. Statistics: `noise_levels_passed`; `sigma`; `ess`, the effective sample size after;
    `num_nonfinite`, how many log ratios were not numbers (they count as weight zero).

    - `noise`: the variance of the noise of L in units of sigma_k^2 - sigma_{k+1}^2; by default one over the sum p of the law's
      exponents: the variance of a Gaussian to the power p is p times smaller, and so is that of what connects two of them.
    """

    proposal: Proposal = SecondOrder()
    noise: float | None = None

    def __check_init__(self):
        if not isinstance(self.proposal, Proposal):
            raise ValueError(
                f"Denoise: expected a proposal such as SecondOrder() or FirstOrder(), got {_name(self.proposal)}."
            )
        if self.noise is not None and not self.noise > 0:
            raise ValueError(f"Denoise: noise must be above 0, got {self.noise!r}.")

    def check(self, path) -> None:
        if not isinstance(path, DenoisingPath):
            raise ValueError(
                f"Denoise: {type(path).__name__} has no density at every noise level. Begin with Denoising(levels, shape)."
            )

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        old, new = path.levels[population.level], path.levels[population.level + 1]
        variance = (1 / path.law.power(old) if self.noise is None else self.noise) * (old**2 - new**2)

        def one(key, position):
            there, log_forward = self.proposal(key, path, position, old, new, variance)
            log_backward = log_normal(position - there, variance)
            before = path.law.log_density(path.seen(position), old)
            return there, path.law.log_density(path.seen(there), new) - before + log_backward - log_forward

        keys = jax.random.split(key, len(population.log_weights))
        positions, log_ratio = jax.vmap(one)(keys, population.particles.position)
        population = population._replace(particles=Noisy(positions)).reweighted(log_ratio, population.level + 1)
        return Stepped(population, (), passed(path, population, log_ratio))


def passed(path, population: Population, log_ratio) -> dict[str, jax.Array]:
    """Statistics of a step to the population's level."""
    return {
        path.level_name: population.level,
        "sigma": path.levels[population.level],
        "ess": population.ess,
        "num_nonfinite": jnp.sum(~is_weight(log_ratio), dtype=jnp.int32),
    }


def log_normal(x, variance):
    """log density of N(0, variance) at all entries of x together, a scalar."""
    return jnp.sum(log_normal_each(x, variance))


def log_normal_each(x, variance):
    """log density of N(0, variance) at each entry of x, in x's shape; `variance` is one number, or one an entry."""
    return -0.5 * x**2 / variance - 0.5 * jnp.log(2 * jnp.pi * variance)


def _name(x) -> str:
    return f"the class {x.__name__}" if isinstance(x, type) else type(x).__name__
