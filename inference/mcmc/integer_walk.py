"""IntegerWalk: Metropolis with symmetric steps on the integers; for counts without end, such as Poisson sites.

An entry moves up or down, as a fair coin has it, by 1 plus a geometric number: the integer part of an exponential one with
mean `step_size`. Up and down are as likely, so the acceptance ratio is that of the densities. Warm-up makes the step such that
0.44 of the proposals are accepted, which is best for one normal coordinate (Gelman, Roberts and Gilks, Bayesian Statistics 5,
1996). Entries are moved one after the other; those that lie apart in a `ppl.vmap` at the same time, each accepted by itself.
(Metropolis et al., J. Chem. Phys. 21, 1953.)

```python
inf.mcmc(program, inf.gibbs({"count": inf.IntegerWalk(), ...: inf.NUTS()}), key=key)
```
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..numerics import finite_or
from .metropolis import State, accept, at
from .visits import Visits, visits


class IntegerWalkInfo(NamedTuple):
    """Statistics of one transition; all scalars. `acceptance_rate`: mean over entries; `num_evaluations`: of the density."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    num_evaluations: jax.Array


class IntegerWalk(Kernel):
    """Random-walk Metropolis on discrete sites. `step_size`: mean step beyond 1; learned in warm-up where None."""

    step_size: jax.Array | float | None = None

    learns: ClassVar[tuple[str, ...]] = ("step_size",)
    target_acceptance: ClassVar[float] = 0.44

    def check(self, target) -> None:
        target.refuse_continuous("IntegerWalk")

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, IntegerWalkInfo]:
        if self.step_size is None:
            raise ValueError("IntegerWalk: the step size must be known to take a step; see inference.adapted.")
        step_size = jnp.asarray(self.step_size, state.position.dtype)
        position, rates, num = state.position, jnp.zeros_like(step_size), 1
        for site in visits(key, target):
            position, site_rates = walked(site, step_size, position)
            rates += site_rates
            num += 1 + len(site.entries)
        state = at(target, position)
        return state, IntegerWalkInfo(state.log_density, rates / target.dim, step_size, jnp.int32(num))


def walked(site: Visits, step_size, position):
    """The position after every entry of a site has tried a step, in turn; and the sum of the acceptance probabilities."""

    def visit(i, carry):
        position, levels, rates = carry
        entries = jnp.asarray(site.entries)[i]
        key_move, key_accept = jax.random.split(jax.random.fold_in(site.key, i))
        old = position.at[entries].get(mode="fill", fill_value=0)
        new = old + integer_step(key_move, step_size, old.shape)
        new_levels = finite_or(site.levels(position.at[entries].set(new, mode="drop")), -jnp.inf)
        (moved, levels), rate = accept(key_accept, new_levels - levels, (new, new_levels), (old, levels))
        there = entries < len(position)
        return position.at[entries].set(moved, mode="drop"), levels, rates + jnp.sum(jnp.where(there, rate, 0.0))

    start = (position, finite_or(site.levels(position), -jnp.inf), jnp.zeros_like(step_size))
    position, _, rates = lax.fori_loop(0, len(site.entries), visit, start)
    return position, rates


def integer_step(key, step_size, shape):
    """Integers, as floats, whose law is symmetric and gives zero no weight."""
    key_size, key_sign = jax.random.split(key)
    size = 1.0 + jnp.floor(step_size * jax.random.exponential(key_size, shape, step_size.dtype))
    return size * jax.random.rademacher(key_sign, shape, step_size.dtype)
