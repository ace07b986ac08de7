"""MEADS: generalised Hamiltonian Monte Carlo of one leapfrog step, tuned at every step by what the other chains look like.

The momentum is kept from step to step, but for a little noise, so that single leapfrog steps join into long trajectories; a
rejection turns the momentum back. Rejections come bunched, and so matter less, where the number u that decides them moves
slowly: u in (-1, 1) is pushed on by a constant at every step, a proposal is taken where |u| < exp(-energy error), and then
u is divided by that (Neal, arXiv:2001.11950). Position, momentum and u together are left as they are: exact, not reversible.

Step size, damping and scale of the coordinates come from the positions and gradients of other chains. The chains form folds in
a ring, and each looks at the fold before it. If all moved at once, the fold that a fold has looked at would have moved too;
so one fold, another one in every step, stays: moving the fold before it first, then the one before that, and so on round the
ring, every fold looks at one that has not moved yet. So all is exact at every step, and there is nothing to warm up.

    scale     the standard deviations of the coordinates
    step size 1/2 / sqrt(largest eigenvalue of the mean of g g'), g: the gradient times the scale
    damping   1 / sqrt(largest eigenvalue of the covariance of the positions divided by the scale)

(Hoffman and Sountsov, AISTATS 2022, PMLR 151: maximum-eigenvalue adaptation of damping and step size.)

```python
posterior = inf.mcmc(program, inf.repeat(inf.MEADS(), 10), chains=1024, warmup=200, draws=20, key=key)
```
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..integrators import Phase, velocity_verlet
from ..kernel import CHAINS, Kernel
from ..metrics import Diagonal
from ..numerics import finite_or, select
from .adaptation.pooled import shared
from .metropolis import at_with_gradient
from .nuts import DIVERGENCE


class MEADSState(NamedTuple):
    """Where a chain is; its `momentum` (dim,) where the scale is one; `push` (), the u above; and the steps made so far."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    momentum: jax.Array
    push: jax.Array
    turn: jax.Array


class MEADSInfo(NamedTuple):
    """Statistics of one step, under the names that ArviZ uses; all scalars. `n_steps` counts gradients."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    n_steps: jax.Array
    diverging: jax.Array


class MEADS(Kernel):
    """Generalised Hamiltonian Monte Carlo for many chains, which tune each other.

    - `folds`: how many; the number of chains must be a multiple of it, with 4 or more in a fold. At every step one fold in
      `folds` stays where it is.
    - `fraction`: of the largest stable step size that is used, in the mean of directions.

    A draw costs one gradient and is close to the one before: `repeat(MEADS(), 10)` keeps every tenth. It looks at all chains,
    so it runs under `Vectorized()`, the default for it, or `Sharded()`.

    Raises:
        ValueError: when the chains cannot be dealt out to the folds.
    """

    folds: int = eqx.field(static=True, default=4)
    fraction: float = 0.5

    def __check_init__(self):
        if self.folds < 2:
            raise ValueError(f"MEADS: folds must be at least 2, got {self.folds}.")

    @property
    def together(self) -> bool:
        return True

    def init(self, key, target, position) -> MEADSState:
        chains = lax.axis_size(CHAINS)
        if chains % self.folds or chains < 4 * self.folds:
            least = max(4 * self.folds, self.folds * -(-chains // self.folds))
            raise ValueError(
                f"MEADS: {chains} chains cannot tune each other in {self.folds} folds of at least 4; ask for chains={least}, "
                "or use NUTS(), which tunes each chain by itself."
            )
        key_momentum, key_push = jax.random.split(key)
        return MEADSState(
            *at_with_gradient(target, position),
            momentum=jax.random.normal(key_momentum, position.shape, position.dtype),
            push=jax.random.uniform(key_push, (), position.dtype, -1.0, 1.0),
            turn=jnp.uint32(0),
        )

    def step(self, key, state: MEADSState, target) -> tuple[MEADSState, MEADSInfo]:
        chains, turn = lax.axis_size(CHAINS), shared(state.turn)
        fold = (lax.axis_index(CHAINS) * self.folds) // chains
        moving = fold != turn % self.folds
        tuning = jax.tree.map(lambda x: x[fold - 1], self._tuned(state, turn))

        noise = jax.random.normal(key, state.momentum.shape, state.momentum.dtype)
        momentum = jnp.sqrt(1.0 - tuning.renewal) * state.momentum + jnp.sqrt(tuning.renewal) * noise
        push = wrapped(state.push + 0.5 * tuning.renewal)
        new, error = leapfrog(state, momentum, target, tuning)
        taken = jnp.log(jnp.abs(push)) < -error  # NaN is not taken
        moved = new._replace(push=push * jnp.exp(jnp.where(taken, error, 0.0)))
        stayed = state._replace(momentum=turned_back(momentum), push=push)
        after = select(moving, select(taken, moved, stayed), state)._replace(turn=state.turn + 1)
        return after, MEADSInfo(
            lp=after.log_density,
            acceptance_rate=jnp.exp(jnp.minimum(finite_or(-error, -jnp.inf), 0.0)),
            step_size=tuning.step_size,
            n_steps=jnp.int32(1),
            diverging=moving & ~(error < DIVERGENCE),
        )

    def _tuned(self, state: MEADSState, turn) -> "Tuning":
        """From the chains of each fold, the tuning for those that look at it; leaves lead with (folds,)."""

        def folded(x):
            x = lax.all_gather(x, CHAINS)
            return x.reshape(self.folds, -1, *x.shape[1:])

        position, gradient = folded(state.position), folded(state.gradient)
        sound = jnp.all(jnp.isfinite(position) & jnp.isfinite(gradient), axis=2, keepdims=True)
        position, gradient = jnp.where(sound, position, 0.0), jnp.where(sound, gradient, 0.0)
        count = jnp.maximum(jnp.sum(sound, axis=1, keepdims=True), 1)
        deviation = jnp.where(sound, position - jnp.sum(position, axis=1, keepdims=True) / count, 0.0)
        scale = jnp.sqrt(jnp.sum(deviation**2, axis=1, keepdims=True) / count)
        scale = jnp.where(scale > 0, scale, 1.0)
        step_size = self.fraction * lax.rsqrt(largest_eigenvalue(gradient * scale))
        step_size = jnp.clip(finite_or(step_size, 1.0), 1e-10, 1.0)
        damping = lax.rsqrt(largest_eigenvalue(deviation / scale))
        damping = jnp.maximum(finite_or(damping, 1.0), 1.0 / ((turn + 1) * step_size))
        return Tuning(scale[:, 0], step_size, -jnp.expm1(-2.0 * step_size * damping))


class Tuning(NamedTuple):
    """The scale (dim,), the step size, and the share of the momentum's variance that is renewed at a step."""

    scale: jax.Array
    step_size: jax.Array
    renewal: jax.Array


def leapfrog(state: MEADSState, momentum, target, tuning: Tuning) -> tuple[MEADSState, Any]:
    """One leapfrog step from `momentum`, and its energy error."""
    scale = tuning.scale
    start = Phase(state.position, momentum / scale, state.gradient)
    end, log_density = velocity_verlet(start, target, Diagonal(scale**2), tuning.step_size)
    arrived = end.momentum * scale
    error = 0.5 * (jnp.vdot(arrived, arrived) - jnp.vdot(momentum, momentum)) - (log_density - state.log_density)
    new = state._replace(position=end.position, log_density=log_density, gradient=end.gradient, momentum=arrived)
    return new, jnp.where(jnp.isfinite(log_density), error, jnp.inf)


def turned_back(momentum):
    """The momentum after a rejection."""
    return -momentum


def wrapped(push):
    """`push` on the circle (-1, 1)."""
    return jnp.where(push > 1.0, push - 2.0, push)


def largest_eigenvalue(rows):
    """Of the mean of x x' over the rows x, (..., num, dim): the sum of the squared eigenvalues divided by their sum, which is
    a little less."""
    num, dim = rows.shape[-2:]
    products = jnp.einsum("...ni,...nj->...ij" if dim < num else "...ni,...mi->...nm", rows, rows)
    return jnp.sum(products**2, axis=(-2, -1)) / jnp.sum(rows**2, axis=(-2, -1)) / num
