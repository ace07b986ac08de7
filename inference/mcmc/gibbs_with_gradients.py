"""GibbsWithGradients: one gradient says which of many discrete entries is worth changing, and to what.

The density is differentiated as if whole numbers were real. The slope at entry i tells, to first order, the log ratio d that a
step of +1 or -1 there would bring; a step is proposed with probability proportional to exp(d / 2), which balances it with the
way back, and accepted as Metropolis and Hastings have it, with the true density and the proposal's probability from both ends.
So the slope only guides; for quadratic log densities of binary entries (Ising models, Boltzmann machines) it is exact.
(Grathwohl, Swersky, Hashemi, Duvenaud and Maddison, ICML 2021, arXiv:2102.04509; why exp(d / 2): Zanella, JASA 115, 2020.)

```python
inf.mcmc(ising(30), inf.GibbsWithGradients(), key=key)          # binary or ordered sites; any number of them
```
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..kernel import Kernel
from ..numerics import finite_or
from .metropolis import State, accept, at


class GibbsWithGradientsInfo(NamedTuple):
    """Statistics of one transition; all scalars. `acceptance_rate`: mean over its moves; `n_steps`: gradients computed."""

    lp: jax.Array
    acceptance_rate: jax.Array
    n_steps: jax.Array


class Place(NamedTuple):
    """A state, and the log probabilities of the moves from it: down by 1 at each entry, then up by 1 (2 dim,)."""

    state: State
    moves: jax.Array


class GibbsWithGradients(Kernel):
    """Locally informed Metropolis on discrete sites whose density has a formula that holds between whole numbers too.

    - `num_moves`: proposals in one transition, one gradient each. Each changes one entry by 1.
    """

    num_moves: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        if isinstance(self.num_moves, bool) or not isinstance(self.num_moves, int) or self.num_moves < 1:
            raise ValueError(f"GibbsWithGradients: num_moves must be a whole number of at least 1, got {self.num_moves!r}.")

    def check(self, target) -> None:
        target.refuse_continuous("GibbsWithGradients")
        try:
            jax.eval_shape(jax.grad(target.log_density_between), jnp.zeros(target.dim))
        except TypeError as error:
            sites = ", ".join(f"'{slot.address}'" for slot in target.slots)
            raise ValueError(
                f"GibbsWithGradients differentiates the density with whole numbers taken for real ones, and this program "
                f"cannot run so at {sites}: it uses one as an index, or has a Categorical site. Write it with arithmetic "
                f"(Bernoulli sites, products), or use DiscreteGibbs(). JAX says: {str(error).splitlines()[0]}"
            ) from error

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, GibbsWithGradientsInfo]:
        def move(old: Place, key):
            key_move, key_accept = jax.random.split(key)
            chosen = jax.random.categorical(key_move, old.moves)
            up, entry = jnp.divmod(chosen, target.dim)
            new = seen(target, at(target, old.state.position.at[entry].add(jnp.where(up == 1, 1.0, -1.0))))
            log_ratio = new.state.log_density - old.state.log_density + back_and_forth(old, new, entry, up)
            return accept(key_accept, log_ratio, new, old)

        place, rates = lax.scan(move, seen(target, state), jax.random.split(key, self.num_moves))
        state = place.state
        return state, GibbsWithGradientsInfo(state.log_density, jnp.mean(rates), jnp.int32(self.num_moves + 1))


def seen(target, state: State) -> Place:
    """What the slope at a state proposes."""
    slope = finite_or(jax.grad(target.log_density_between)(state.position), 0.0)
    low, high = bounds(target.slots, state.position.dtype)
    down = jnp.where(state.position - 1 < low, -jnp.inf, -slope / 2)
    up = jnp.where(state.position + 1 > high, -jnp.inf, slope / 2)
    return Place(state, jax.nn.log_softmax(jnp.concatenate([down, up])))


def bounds(slots, dtype) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest number for each entry, as far as they are known: beyond, the density is zero anyway."""
    found = [(-np.inf, np.inf) if slot.bounds is None else slot.bounds for slot in slots]
    low, high = np.repeat(np.array(found, dtype), [slot.size for slot in slots], axis=0).T
    return low, high


def back_and_forth(old: Place, new: Place, entry, up):
    """Log probability of proposing the way back, less that of the way there."""
    dim = len(old.state.position)
    return new.moves[entry + dim * (1 - up)] - old.moves[entry + dim * up]
