"""MCLMC: microcanonical Langevin Monte Carlo, unadjusted. Fast, and biased by its step size.

The speed is always one; the direction turns towards the gradient and is a little randomised after each step of size e, such
that it is forgotten over a length L: u <- (u + nu z) / |u + nu z|, z standard normal, nu^2 = (exp(2 e / L) - 1) / dim.
(Robnik, De Luca, Silverstein and Seljak, JMLR 24, 2023, arXiv:2212.08549; Robnik and Seljak, arXiv:2303.18221.)

*Nothing is rejected*, so draws follow the posterior only as closely as the dynamics keep its energy. Warm-up makes the mean
squared energy error of a step `energy_error` times the number of dimensions. The bias falls with the square of the step size;
where it matters use `MAMS()`, the adjusted form. `posterior.check()` says that such draws are biased.

```python
posterior = inf.mcmc(program, inf.MCLMC(), key=key)
```
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..integrators import MINIMAL_NORM, Phase, isokinetic
from ..kernel import Kernel
from ..metrics import Metric
from ..numerics import select
from .metropolis import GradientState, at_with_gradient
from .microcanonical import MOST_COMING, Course, adjusted, at_least_two
from .nuts import DIVERGENCE

MOST_ERROR = 20.0  # times what it should be: larger errors are not told apart, so that single ones do not rule the step size
CROSSINGS = 2.0  # the length, in sizes of the posterior (measured; it matters little)


class MCLMCState(NamedTuple):
    """Where the chain is and where it heads, a unit vector; and what warm-up has seen."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    direction: jax.Array
    course: Course


class MCLMCInfo(NamedTuple):
    """Statistics of one transition; all scalars. `energy_error`: mean square over its steps, by dimension; `calm`: one
    less the share that it is of the largest that is told apart, or, while the chain comes from afar, its acceptance rate;
    `n_steps`: gradients; `diverging`: some step was not taken, for its energy error passed 1000 or was not a number."""

    lp: jax.Array
    energy_error: jax.Array
    calm: jax.Array
    step_size: jax.Array
    length: jax.Array
    n_steps: jax.Array
    diverging: jax.Array


class MCLMC(Kernel):
    """Microcanonical Langevin Monte Carlo, for two dimensions or more. Biased; see the file's docstring.

    - `step_size`, `metric`, and `length`, over which the direction is forgotten: learned in warm-up where None. Step size and
      length are measured where the metric is the identity.
    - `num_steps`: steps between draws, two gradients each.
    - `energy_error`: the mean squared energy error by dimension that the step size is to have; the bias grows with it.

    Raises ValueError for a target of one dimension.
    """

    step_size: jax.Array | float | None = None
    metric: Metric | None = None
    length: jax.Array | float | None = None
    num_steps: int = eqx.field(static=True, default=4)
    energy_error: float = 5e-4

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric", "length")
    learns_itself: ClassVar[tuple[str, ...]] = ("length",)
    exact: ClassVar[bool] = False
    target_acceptance: ClassVar[float] = 1.0 - 1.0 / MOST_ERROR

    def __check_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"MCLMC: num_steps must be at least 1, got {self.num_steps}.")

    def check(self, target) -> None:
        super().check(target)
        at_least_two("MCLMC", target)

    def acceptance(self, info: MCLMCInfo):
        return info.calm

    def init(self, key, target, position) -> MCLMCState:
        course = Course.begin(position, coming=self.step_size is None or self.metric is None)
        normal = jax.random.normal(key, position.shape, position.dtype)
        return MCLMCState(*at_with_gradient(target, position), normal / jnp.linalg.norm(normal), course)

    def step(self, key, state: MCLMCState, target) -> tuple[MCLMCState, MCLMCInfo]:
        if self.step_size is None or self.metric is None:
            raise ValueError("MCLMC: step size and metric must be known to take a step; see inference.adapted.")
        dim, dtype, course = state.position.size, state.position.dtype, state.course
        step_size = jnp.asarray(self.step_size, dtype)
        length = CROSSINGS * course.size if self.length is None else jnp.asarray(self.length, dtype)
        key_steps, key_come, key_move = jax.random.split(key, 3)

        def move(k, carry):
            state, squares, failed = carry
            phase = Phase(state.position, state.direction, state.gradient)
            new, log_density, kinetic = isokinetic(phase, target, self.metric, step_size, MINIMAL_NORM)
            error = log_density - state.log_density - kinetic
            fine = jnp.abs(error) < DIVERGENCE  # NaN is not
            direction = forgetful(jax.random.fold_in(key_move, k), new.momentum, step_size / length)
            moved = MCLMCState(new.position, log_density, new.gradient, direction, course)
            stayed = state._replace(direction=-state.direction)  # a bounce: at a wall it keeps the law
            return select(fine, moved, stayed), squares + jnp.where(fine, error, DIVERGENCE) ** 2, failed | ~fine

        coming = jnp.where(course.coming, jax.random.randint(key_steps, (), 1, MOST_COMING + 1, jnp.int32), 0)
        come, went = adjusted(key_come, GradientState(*state[:3]), target, self.metric, step_size, coming, course)
        start = state._replace(**come._asdict())
        num = jnp.where(course.coming, 0, self.num_steps)
        state, squares, failed = lax.fori_loop(0, num, move, (start, jnp.zeros_like(step_size), jnp.asarray(False)))
        error = squares / (self.num_steps * dim)
        calm = 1.0 - jnp.minimum(error / self.energy_error / MOST_ERROR, 1.0)
        return state, MCLMCInfo(
            lp=state.log_density,
            energy_error=error,
            calm=jnp.where(course.coming, went.acceptance_rate, calm),
            step_size=step_size,
            length=length,
            n_steps=coming + 2 * num,
            diverging=failed | went.diverging,
        )

    def learn(self, i, state: MCLMCState, info: MCLMCInfo) -> MCLMCState:
        return state._replace(course=state.course.add(i, state, self.metric))


def forgetful(key, direction, share):
    """The unit vector `direction` (dim,), randomised as much as the passing of this `share` of the length asks for."""
    noise = jnp.sqrt(jnp.expm1(2.0 * share) / direction.size)
    new = direction + noise * jax.random.normal(key, direction.shape, direction.dtype)
    return new / jnp.linalg.norm(new)
