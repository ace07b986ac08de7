"""Slice: draw a height under the density, then a point of the slice above it, along one random line.

The line goes through the position, in a direction that is uniform where the metric is the identity. An interval on it, placed
at random around the position, is stepped out until both ends lie below the height, then shrunk towards the position at every
point drawn from it that does too. No gradients, no step size to get wrong. From any point of the slice the same intervals are
as likely, so the density of the slice, uniform, is kept. (Neal, Ann. Statist. 31, 2003, sections 4 and 5; lines: hit and run,
Belisle, Romeijn and Smith, Math. Oper. Res. 18, 1993.)

```python
posterior = inf.mcmc(program, inf.Slice(), key=key)
```
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..metrics import Metric
from ..numerics import select
from .metropolis import State, at

# Most points drawn from one interval. It is cut to 2/3 in the mean by each, so only a slice narrower than rounding needs more;
# then the chain stays. (The way back would have drawn as many points, so the law holds.)
MOST_DRAWN = 100


class SliceInfo(NamedTuple):
    """Statistics of one transition; all scalars. `num_evaluations`: densities computed."""

    lp: jax.Array
    num_evaluations: jax.Array


class Slice(Kernel):
    """Hit-and-run slice sampling.

    - `metric`: its covariance shapes the lines; learned in warm-up where None.
    - `width`: first length of the interval, in standard deviations of the metric.
    - `max_expansions`: at most so many widths are added, shared out at random between the two ends.
    """

    metric: Metric | None = None
    width: float = 3.0
    max_expansions: int = eqx.field(static=True, default=20)

    learns: ClassVar[tuple[str, ...]] = ("metric",)

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, SliceInfo]:
        if self.metric is None:
            raise ValueError("Slice: the metric must be known to take a step; see inference.adapted.")
        position, dtype = state.position, state.position.dtype
        key_line, key_height, key_ends, key_point = jax.random.split(key, 4)
        normal = jax.random.normal(key_line, position.shape, dtype)
        direction = self.metric.unwhiten(normal / jnp.linalg.norm(normal))
        height = state.log_density - jax.random.exponential(key_height, dtype=dtype)

        def along(t):
            new = at(target, position + t * direction)
            return new.log_density, new

        width = jnp.asarray(self.width, dtype)
        lower, upper, num_ends = step_out(key_ends, along, height, width, self.max_expansions)
        state, num_drawn = shrink(key_point, along, height, lower, upper, state)
        return state, SliceInfo(state.log_density, num_ends + num_drawn)


def step_out(key, along, height, width, max_expansions: int):
    """An interval (lower, upper) around 0, stepped out while its ends are above the height; and the evaluations spent."""
    key_place, key_share = jax.random.split(key)
    lower = -width * jax.random.uniform(key_place, dtype=width.dtype)
    share = jax.random.randint(key_share, (), 0, max_expansions + 1)

    def look(carry):
        """At the end of number `side`: move it outward, or go on to the next."""
        ends, room, side, num = carry
        level, _ = along(ends[side])
        further = (level > height) & (room[side] > 0)
        ends = ends.at[side].add(jnp.where(further, jnp.where(side == 0, -width, width), 0.0))
        return ends, room.at[side].add(-1), side + ~further, num + 1

    ends, room = jnp.stack([lower, lower + width]), jnp.stack([share, max_expansions - share])
    ends, _, _, num = lax.while_loop(lambda c: c[2] < 2, look, (ends, room, jnp.int32(0), jnp.int32(0)))
    return ends[0], ends[1], num


def shrink(key, along, height, lower, upper, state: State) -> tuple[State, jax.Array]:
    """The first state above the height, at points of an interval that shrinks towards 0, where `state` is, at every point
    that is not; and the evaluations spent. `along(t)` gives the level to be compared, and the state at t. With vectors for
    ends, the interval is a box, and all its sides shrink."""

    def draw(carry):
        lower, upper, _, _, num = carry
        t = jax.random.uniform(jax.random.fold_in(key, num), lower.shape, lower.dtype, lower, upper)
        return *cut(lower, upper, t), *along(t), num + 1

    def missed(carry):
        *_, level, _, num = carry
        return ~(level > height) & (num < MOST_DRAWN)

    start = (lower, upper, jnp.full_like(height, -jnp.inf), state, jnp.int32(0))
    *_, level, new, num = lax.while_loop(missed, draw, start)
    return select(level > height, new, state), num


def cut(lower, upper, t):
    """The interval, less what lies beyond `t` as seen from 0."""
    return jnp.where(t < 0, t, lower), jnp.where(t < 0, upper, t)
