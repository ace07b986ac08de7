"""Integrators: reversible steps along a trajectory, made of kicks to the momentum and drifts of the position.

- `velocity_verlet`, the leapfrog of Hamiltonian Monte Carlo: half a step of momentum, a full step of position, half a step of
  momentum; the gradient at the new position is kept, so a trajectory costs one gradient per step. (Leimkuhler and Reich,
  Simulating Hamiltonian Dynamics, 2004, section 2.6.)
- `isokinetic`, for microcanonical dynamics: the momentum is a direction, a unit vector, and the speed is one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


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


# Shares of the step: kick, drift, kick, ..., kick. The second is the minimal norm scheme: two gradients a step, and errors
# so much smaller that the step can be more than twice as long (McLachlan, SIAM J. Sci. Comput. 16, 1995; Takaishi and
# de Forcrand, Phys. Rev. E 73, 2006).
LEAPFROG = (0.5, 1.0, 0.5)
MINIMAL_NORM = (0.1931833275037836, 0.5, 0.6136333449924328, 0.5, 0.1931833275037836)


def isokinetic(phase: Phase, target, metric, step_size, scheme: tuple[float, ...] = LEAPFROG, kick=None):
    """One step of isokinetic dynamics; returns the new `Phase`, its log density, and the change of the kinetic energy.

    `phase.momentum` is a unit vector u in the space where the metric is the identity. There the position moves by u, and
    u turns towards the gradient g: du/dt = (g - u (u.g)) / (dim - 1). The density p(position), u uniform, is kept. Kicks
    and drifts are exact flows, reversed by u to -u; a drift keeps volume, a kick changes it by exp(-change of the kinetic
    energy), so exp(change of log density - change of kinetic energy) is the ratio of a Metropolis test.
    (Robnik, De Luca, Silverstein and Seljak, JMLR 24, 2023, arXiv:2212.08549; Ver Steeg and Galstyan, NeurIPS 2021.)

    With `kick=push` the dynamics are Hamiltonian instead.
    """
    position, direction, gradient = phase
    kick = turn if kick is None else kick
    direction, change = kick(direction, metric.whiten_gradient(gradient), scheme[0] * step_size)
    log_density = jnp.zeros_like(change)
    for drift, share in zip(scheme[1::2], scheme[2::2], strict=True):
        position = position + drift * step_size * metric.unwhiten(direction)
        log_density, gradient = jax.value_and_grad(target.log_density)(position)
        direction, more = kick(direction, metric.whiten_gradient(gradient), share * step_size)
        change += more
    return Phase(position, direction, gradient), log_density, change


def turn(direction, gradient, time):
    """The unit vector `direction` (dim,), turned towards `gradient` for a `time`; and the change of the kinetic energy."""
    norm = jnp.linalg.norm(gradient)
    towards = gradient / jnp.where(norm > 0, norm, 1.0)
    angle = time * norm / (direction.size - 1)
    along, shrunk = jnp.vdot(towards, direction), jnp.exp(-angle)
    # cosh(angle) + along * sinh(angle), and what goes with it, times 2 exp(-angle): nothing overflows.
    stretch = 1.0 + along + (1.0 - along) * shrunk**2
    turned = 2.0 * shrunk * direction + (1.0 - shrunk) * (1.0 + shrunk + along * (1.0 - shrunk)) * towards
    change = (direction.size - 1) * (angle + jnp.log(0.5 * stretch))
    return turned / jnp.linalg.norm(turned), change


def push(velocity, gradient, time):
    """A `velocity` (dim,) sped up by `gradient` for a `time`, in units where its mean square is one: that of a particle of
    mass dim; and the change of the kinetic energy."""
    pushed = velocity + time / velocity.size * gradient
    return pushed, 0.5 * velocity.size * (jnp.vdot(pushed, pushed) - jnp.vdot(velocity, velocity))
