"""Layers: what died between one threshold and the next, kept, so that the posterior is made of the dead and the living.

A particle that dies where the mass left is X, one of N, stands for X / N of the prior: it weighs

    X / N x likelihood ,

and so the dead of all stages are, together with the last population, properly weighted for the whole posterior (Skilling,
2006; Salomone, South, Drovandi and Kroese, arXiv:1805.03924, section 3).

The error. What a particle was worth is uncertain because the mass within its contour is: it shrinks, where the worst of n
particles dies, by a share t ~ Beta(n, 1) whose logarithm has variance 1 / n^2, and all that lies further in shrinks with it.
With X_i the mass within contour i, and L_i the likelihood on it,

    Var(log Z) = sum_i 1 / n_i^2 ( integral_0^X_i (L(X) - L_i) dX / Z )^2 .

This is to first order what simulating the shares would give, and where nothing is learned from shrinking it is zero: with a
constant likelihood. If one dies at a time it is about H / n, H the information (Skilling, 2006, section 3; numbers n that
change: Higson, Handley, Hobson and Lasenby, Statistics and Computing 29, 2019, arXiv:1704.03459). Particles that die together
are taken one after the other, with n, n - 1, ... left; ties in any order; and at the end so are the living.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..population import Population, is_weight
from .history import History, Last


class Layer(NamedTuple):
    """Of a stage: the particles (N, ...), which of them died, (N,), and log of the mass that there was before, ()."""

    particles: Any
    died: jax.Array
    log_mass: jax.Array


class Layers(History):
    """Keep the dead."""

    def keep(self, population: Population) -> Layer:
        died = (population.log_weights == -jnp.inf) & (population.level < jnp.inf)
        return Layer(population.particles, died, population.log_divided)

    def whole(self, path, population: Population, kept: Layer) -> Population:
        """The dead and the living, weighted for the posterior; `settled` is the variance above."""
        size = len(population.log_weights)
        living = jax.tree.map(np.asarray, population)
        num_dead = kept.died.sum(axis=1)
        particles = jax.tree.map(
            lambda dead, alive: np.concatenate([dead[kept.died], alive]), kept.particles, living.particles
        )
        stage = np.repeat(np.arange(len(num_dead) + 1), [*num_dead, size])
        log_mass = np.append(kept.log_mass, living.log_divided).astype(float)[stage] - np.log(size)
        height = np.where(is_weight(particles.log_likelihood), particles.log_likelihood, -np.inf).astype(float)
        log_weights = log_mass + height
        log_evidence = np.logaddexp.reduce(log_weights)
        variance = shrinkage_variance(stage, log_mass, height, log_evidence, size)
        # a power of two of them, so that programs compiled for one run serve the next
        num = 1 << (len(stage) - 1).bit_length()
        particles = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], num - len(x), axis=0)]), particles)
        log_weights = np.append(log_weights - log_evidence + np.log(num), np.full(num - len(stage), -np.inf))
        dtype = living.log_weights.dtype
        new = Population.of(jax.tree.map(jnp.asarray, particles), jnp.asarray(log_weights, dtype), level=population.level)
        return (
            new._replace(log_divided=jnp.asarray(log_evidence, dtype))
            .as_founders()
            ._replace(settled=jnp.asarray(variance, dtype))
        )

    def draws(self, path, population, kept, slots):
        return Last().draws(path, population, (), slots)


def shrinkage_variance(stage, log_mass, height, log_evidence, size: int) -> float:
    """Var(log Z) of the file's docstring: of particles (num,) that died at a `stage`, `size` of them living at its begin, each
    standing for a prior mass, at a log likelihood (its `height`)."""
    order = np.lexsort((height, stage))
    stage, log_mass, height = stage[order], log_mass[order], height[order]
    num_living = size - (np.arange(len(stage)) - np.searchsorted(stage, stage))
    shares = np.exp(log_mass + height - log_evidence)
    further_in = np.cumsum(shares[::-1])[::-1] - shares
    on_the_contour = (num_living - 1) * shares
    return float(np.sum(((further_in - on_the_contour) / num_living) ** 2))
