"""Leapfrog (velocity Verlet): the symplectic, reversible step of Hamiltonian Monte Carlo.

Half a step of momentum, a full step of position, half a step of momentum; the gradient at the new position is kept, so a
trajectory costs one gradient per step. (Leimkuhler and Reich, Simulating Hamiltonian Dynamics, 2004, section 2.6.)
"""

from typing import NamedTuple

import jax


class Phase(NamedTuple):
    """A point of phase space with the gradient that the next step needs; each (dim,)."""

    position: jax.Array
    momentum: jax.Array
    gradient: jax.Array


def velocity_verlet(phase: Phase, target, metric, step_size):
    """One step forward in time from `phase`; returns the new `Phase` and its log density."""
    momentum = phase.momentum + 0.5 * step_size * phase.gradient
    position = phase.position + step_size * metric.velocity(momentum)
    log_density, gradient = jax.value_and_grad(target.log_density)(position)
    momentum = momentum + 0.5 * step_size * gradient
    return Phase(position, momentum, gradient), log_density
