"""Flat (improper) priors."""

from ppl import dist

constraints = dist.constraints


def flat(*shape):
    """Density 1 everywhere on the reals."""
    return dist.ImproperUniform(constraints.real, shape, ())


def flat_positive(*shape):
    """Density 1 on the positive reals."""
    return dist.ImproperUniform(constraints.positive, shape, ())
