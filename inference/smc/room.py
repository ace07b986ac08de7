"""Room: arrays that hold the filters of all particles side by side, with room for more walkers and steps than there are.

Leaves lead with (N,); then come the steps, where they are kept, and then the walkers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..population import Population
from .history import History, Kept


class Filter(NamedTuple):
    """What a filter goes on from: walkers (num, ...), their log weights (num,), what was divided out of these, and memory."""

    walkers: Any
    log_weights: jax.Array
    log_divided: jax.Array
    memory: Any


class Row(NamedTuple):
    """What is kept of a step for paths, (num, ...): choices, and the slots that walkers come from."""

    choices: Any
    ancestors: jax.Array


class Learner(NamedTuple):
    """A particle.

    - `position` (dim,): of the parameters, unconstrained; `log_density`: their prior, times the filter's evidence.
    - `filter`, with room for the most walkers there may be; `size`: which of the path's sizes it has.
    - `rows`: what it keeps, leading with (step, walker).
    - `point` in [0, 1): says which walker is drawn for the posterior.
    """

    position: jax.Array
    log_density: jax.Array
    filter: Filter
    size: jax.Array
    rows: Any
    point: jax.Array


def written(rows, row, t):
    """`rows` (N, step, ...), with `row` (N, ...) as that of step `t`."""
    return jax.tree.map(lambda xs, x: lax.dynamic_update_index_in_dim(xs, x, t, axis=1), rows, row)


def resized(tree, num: int, axis: int = 1, fill: float = 0):
    """Arrays with `num` entries along an axis: their first ones; or all of them, and then `fill`."""

    def fit(x):
        more = num - x.shape[axis]
        if more <= 0:
            return lax.slice_in_dim(x, 0, num, axis=axis)
        return jnp.pad(x, [(0, more if k == axis else 0) for k in range(x.ndim)], constant_values=fill)

    return jax.tree.map(fit, tree)


def split(population: Population, memory, history: History) -> tuple[Filter, Any]:
    """What a filter goes on from, and what is kept of its stage."""
    kept = history.keep(population)
    row = Row(kept.choices, kept.ancestors) if isinstance(kept, Kept) else kept
    return Filter(population.particles, population.log_weights, population.log_divided, memory), row


def fitted(filters: Filter, num: int) -> Filter:
    """The filters with room for `num` walkers; where there are fewer, the others weigh nothing."""
    weights = resized(filters.log_weights, num, fill=-jnp.inf)
    return filters._replace(walkers=resized(filters.walkers, num), log_weights=weights)
