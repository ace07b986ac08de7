"""Flat (improper) priors, and a reparameterisation by linear maps of logarithms."""

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

constraints = dist.constraints


def flat(*shape):
    """Density 1 everywhere on the reals."""
    return dist.ImproperUniform(constraints.real, shape, ())


def flat_positive(*shape):
    """Density 1 on the positive reals."""
    return dist.ImproperUniform(constraints.positive, shape, ())


class LogLinear:
    """For sites of positive numbers: sample `base`, and set `value = exp(matrix @ base)`; a rule for `program.reparam`.

    Law: the site keeps its distribution; its density moves to a factor, with the Jacobian of the map.

    Example:
        `program.reparam({"theta": LogLinear(matrix)})`
    """

    def __init__(self, matrix):
        self.matrix = matrix
        self.log_determinant = np.linalg.slogdet(matrix)[1]

    def __call__(self, name, d):
        log_value = self.matrix @ sample(f"{name}_base", flat(*d.shape()))
        value = jnp.exp(log_value)
        ppl.factor(f"{name}_density", jnp.sum(d.log_prob(value) + log_value) + self.log_determinant)
        return ppl.deterministic(name, value)
