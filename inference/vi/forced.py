"""Forced plays: a game is played again with some sites forced, and all else as it was.

Enumerated sites are forced to all their joint values at once, and what the game came to is weighted by their probabilities.
Sites with alternatives are forced to these one element after the other; the difference to the game that was played is
multiplied by a coefficient that has a gradient.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.choices import paths
from ppl.drawing import undrawn
from ppl.log_sums import NOTHING

from .play import Number, Played, Swap
from .strategies.strategy import zero

MOST = 2**16  # joint values of enumerated sites
LEVELS = 4  # of vmaps, one in another, for as many sites; more sites have two, as each makes compilation slower

Game = Callable[[dict], tuple[Played, dict, set[str]]]  # a play, with some sites forced


def weighed(game: Game, played: Played, table: dict) -> tuple[jax.Array, jax.Array]:
    """An estimate of the mean of a game that was played once, with nothing forced; and the score of the sites that are open
    for a baseline."""
    enumerated = [(path, row) for path, row in paths(table) if row.strategy is not None and row.strategy.num is not None]
    if not enumerated:
        return played.estimate + _tried(game, {}, played, table), played.free_score
    nums, flat = _nums(enumerated), all(row.strategy.flat for _, row in enumerated)
    groups = [list(group) for group in np.array_split(np.arange(len(nums)), len(nums) if len(nums) <= LEVELS else 2)]

    def at(*rows):
        forced = _forced(enumerated, [row[i] for row in rows for i in range(len(row))])
        possible = {path: Number(x.number, x.num, possible=True) for path, x in forced.items()}
        played = game(possible)[0]
        plain = played if flat else game(forced)[0]
        weight = jnp.exp(plain.log_tried)
        # what has no weight has a value, for the slope of the weight, but no slope: that may be infinite
        worth = jnp.where(weight > NOTHING, played.estimate, _counted(lax.stop_gradient(plain.value), weight))
        value = worth * weight + _tried(game, possible, played, table)
        return value, lax.stop_gradient(weight) * played.free_score

    # every group is a vmap of its own: what depends on the first sites alone is computed for these alone
    for i in reversed(range(len(groups))):
        at = jax.vmap(at, tuple(0 if j == i else None for j in range(len(groups))))
    values, scores = at(*(_joint([nums[i] for i in group]) for group in groups))
    return jnp.sum(values), jnp.sum(scores)


def _counted(value, weight):
    """What has next to no weight counts nothing where it is not finite."""
    return jnp.where((weight > NOTHING) | jnp.isfinite(value), value, 0.0)


def _value(played: Played):
    """The value of a play, by its own weight: what is enumerated may depend on what was forced."""
    weight = jnp.exp(played.log_tried)
    return _counted(played.value, weight) * weight


def _tried(game: Game, forced: dict, played: Played, table: dict) -> jax.Array:
    """Zero, with the gradient that comes of trying other values; each play by its own weight of the enumerated sites."""
    if not played.alternatives:
        return jnp.zeros(())
    rows, every = dict(paths(table)), sorted(played.alternatives.items())
    swaps: dict[tuple[str, ...], list[Swap]] = {path: [] for path, _ in every}
    coefficients, possible = [], []
    for path, mine in every:
        *shape, tries = mine.coefficient.shape
        axes = _turns(rows[path], mine)
        size = math.prod(shape[axis] for axis in axes)
        for other, theirs in every:  # in these plays only this site is forced
            where = _masks(theirs.coefficient.shape[:-1], size, axes if other == path else None)
            values = jnp.moveaxis(theirs.value, -1, 0) if other == path else theirs.value[None, ..., 0].repeat(tries, 0)
            swaps[other].append(Swap(jnp.tile(where, (tries, *(1,) * (where.ndim - 1))), jnp.repeat(values, size, axis=0)))
        forced_at_once = [i for i in range(len(shape)) if i not in axes]
        flags = (jnp.ones_like(mine.coefficient, bool) if mine.possible is None else mine.possible).all(forced_at_once)
        for x, to in ((mine.coefficient.sum(forced_at_once), coefficients), (flags, possible)):
            to.append(jnp.moveaxis(x, -1, 0).reshape(-1))
    forcings = {path: jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts) for path, parts in swaps.items()}
    values = jax.vmap(lambda swap: _value(game({**forced, **swap})[0]))(forcings)
    differences = lax.stop_gradient(values - _value(played))
    differences = jnp.where(jnp.concatenate(possible) | jnp.isfinite(differences), differences, 0.0)
    return zero(jnp.vdot(differences, jnp.concatenate(coefficients)))


def _turns(row, alternative) -> tuple[int, ...]:
    """The axes of a site whose elements are forced one in its turn: all, or of those that go together the steps of loops."""
    if not alternative.together:
        return tuple(range(alternative.coefficient.ndim - 1))
    loops = [label.startswith("scan") for label in row.plates if "[" in label]
    return tuple(i for i, loop in enumerate(loops) if loop)


def _masks(shape: tuple[int, ...], size: int, axes: tuple[int, ...] | None):
    """(size, *shape): which elements are forced in each of `size` runs: those at one index of the axes; or none at all."""
    if axes is None:
        return jnp.zeros((size, *shape), bool)
    one = jnp.eye(size, dtype=bool).reshape(size, *(n if i in axes else 1 for i, n in enumerate(shape)))
    return jnp.broadcast_to(one, (size, *shape))


def _batch(row) -> tuple[int, ...]:
    return row.shape[: len(row.shape) - row.event_dim]


def _nums(enumerated) -> list[int]:
    """The number of values of every element of every site."""
    sizes = {undrawn(path): (row.strategy.num, math.prod(_batch(row))) for path, row in enumerated}
    if math.prod(num**size for num, size in sizes.values()) > MOST:
        said = ", ".join(f"{num}^{size} of '{address}'" for address, (num, size) in sizes.items())
        raise ValueError(
            f"the enumerated sites have too many joint values ({said}); at most {MOST} are tried. Where lanes of a ppl.vmap "
            "are summed, make an expectation of what happens in one lane, and map that; where the objective is linear in log "
            "densities, Eliminate() sums lanes apart, and a ppl.scan step by step; or give some site another strategy."
        )
    return [row.strategy.num for _, row in enumerated for _ in range(math.prod(_batch(row)))]


def _joint(nums: list[int]) -> jax.Array:
    """All joint numbers of some elements, a row each; the last runs fastest."""
    return jnp.asarray(np.indices(nums).reshape(len(nums), -1).T)


def _forced(enumerated, digits: list) -> dict:
    """Each enumerated site forced to its own digits."""
    out, at = {}, 0
    for path, row in enumerated:
        shape = _batch(row)
        mine = digits[at : at + math.prod(shape)]
        out[path] = Number(jnp.stack(mine).reshape(shape) if shape else mine[0], row.strategy.num)
        at += len(mine)
    return out
