"""What microcanonical kernels share: directions, how far to go in one, and how to come from afar.

*How far.* The speed is one, so a time is a length. To go straight for about the size of the posterior crosses it once. Where
the metric is the identity, its size is the root of the sum of the variances of all coordinates: sqrt(dim), if the metric has
made it round. (Robnik, De Luca, Silverstein and Seljak, JMLR 24, 2023, section 4.2. They go on to a share of the time between
independent draws; with a learned metric that gained nothing on the reference posteriors, and drove the length up to where the
energy, which only new directions change, moves slowly.)

*From afar.* A particle of constant speed comes down a steep slope no faster than it walks, and before the metric is known that
may take for ever: this, and not the metric, is why these samplers fail on posteriors of very unlike scales. So warm-up begins
with Hamiltonian dynamics, which rush, by the same integrator, until the log density rises no more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..integrators import Phase, isokinetic, push, turn
from ..numerics import finite_or, select
from .metropolis import GradientState, accept
from .nuts import DIVERGENCE

LEAST = 50  # draws that the size is measured from
MOST_COMING = 24  # steps of a trajectory from afar
LOOK = 32  # draws between looks at whether a chain has arrived


class Course(NamedTuple):
    """What warm-up has seen of late: the number of draws (); their mean (dim,), the sum of squared lengths () of their
    deviations from it, where the metric is the identity; the mean log density () since the last look, and between the two
    before. And what it has found: the `size` () of the posterior, and whether the chain is still `coming` () from afar."""

    count: jax.Array
    mean: jax.Array
    squares: jax.Array
    level: jax.Array
    level_before: jax.Array
    size: jax.Array
    coming: jax.Array

    @staticmethod
    def begin(position, *, coming: bool) -> "Course":
        """Nothing seen; the size is that of a posterior that the metric makes round."""
        zero, dim = jnp.zeros((), position.dtype), jnp.asarray(position.size, position.dtype)
        return Course(zero, position, zero, zero, zero - jnp.inf, jnp.sqrt(dim), jnp.asarray(coming))

    def add(self, i, state, metric) -> "Course":
        """The draw of step `i`. What was seen is forgotten whenever `i` is a power of two, so that half of it is recent.
        A chain has arrived when from one look to the next the log density rose by less than the dimension."""
        fresh = (i & (i - 1)) == 0
        look = i % LOOK == 0
        arrived = look & (i >= 3 * LOOK) & (self.level - self.level_before < self.mean.size)
        count = jnp.where(fresh, 0.0, self.count) + 1.0
        deviation = state.position - self.mean
        squares = self.squares + jnp.sum(metric.whiten(deviation) ** 2) * (1.0 - 1.0 / count)
        squares = jnp.where(fresh, 0.0, squares)
        size = jnp.sqrt(squares / count)
        usable = (count >= LEAST) & jnp.isfinite(size)
        return Course(
            count=count,
            mean=self.mean + deviation / count,
            squares=squares,
            level=jnp.where(look, state.log_density, self.level + (state.log_density - self.level) / (i % LOOK + 1)),
            level_before=jnp.where(look, self.level, self.level_before),
            size=jnp.where(usable, size, self.size),
            coming=self.coming & ~arrived,
        )

    def kick(self, momentum, gradient, time):
        """The kick of the dynamics that this chain is to follow; see `integrators.isokinetic`."""
        return select(self.coming, push(momentum, gradient, time), turn(momentum, gradient, time))

    def direction(self, key):
        """A unit vector (dim,), uniform on the sphere; while the chain is coming a normal velocity, of mean square one."""
        normal = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return normal / jnp.where(self.coming, jnp.sqrt(normal.size), jnp.linalg.norm(normal))


class Trajectory(NamedTuple):
    """How a trajectory went: the probability () with which its end was to be taken, and whether its energy was lost."""

    acceptance_rate: jax.Array
    diverging: jax.Array


def adjusted(key, point: GradientState, target, metric, step_size, n_steps, course: Course):
    """A trajectory of `n_steps` in a new direction, its end taken or left by a Metropolis test; where the chain then is, and
    how it went. With no steps at all it costs nothing."""
    key_direction, key_accept = jax.random.split(key)

    def advance(_, carry):
        phase, _, kinetic = carry
        phase, log_density, change = isokinetic(phase, target, metric, step_size, kick=course.kick)
        return phase, log_density, kinetic + change

    start = Phase(point.position, course.direction(key_direction), point.gradient)
    end, log_density, kinetic = lax.fori_loop(0, n_steps, advance, (start, point.log_density, jnp.zeros_like(step_size)))
    log_ratio = finite_or(log_density - point.log_density - kinetic, -jnp.inf)
    kept, rate = accept(key_accept, log_ratio, GradientState(end.position, log_density, end.gradient), point)
    return kept, Trajectory(rate, log_ratio < -DIVERGENCE)


def at_least_two(name: str, target) -> None:
    """Raise ValueError for a target of one dimension: on a line, a direction has nowhere to turn."""
    if target.dim < 2:
        raise ValueError(f"{name}: the target has one dimension, and a direction turns in two or more. Try NUTS() or Slice().")
