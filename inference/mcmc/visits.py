"""Which entries of discrete sites may be moved at a time: those that are independent given everything else.

Entries of a site that lie in different lanes of its `ppl.vmap`s (`slot.apart` axes) are, so one of each lane is visited at
once; a lane's entries are visited one after the other. For a site in no such plate that is every entry by itself.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np


class Visits(NamedTuple):
    """The visits to one site.

    - `entries` (visit, lane): entries of the position; the position's length where a lane has none left.
    - `levels(position)` (lane,): the log density, as far as it depends on the site, lane by lane.
    """

    slot: Any
    key: jax.Array
    entries: np.ndarray
    levels: Callable[[jax.Array], jax.Array]


def visits(key, target) -> Iterator[Visits]:
    """The visits to each site of `target`, all of them discrete, with a key for each site."""
    for slot, own_key in zip(target.slots, jax.random.split(key, len(target.slots)), strict=True):
        yield Visits(slot, own_key, _entries(slot, target.dim), partial(target.log_density_apart, slot.address))


def _entries(slot, dim: int) -> np.ndarray:
    whole = np.full(slot.shape, dim).ravel()
    whole[list(slot.entries)] = slot.start + np.arange(slot.size)
    lanes, each = (math.prod(part) for part in (slot.shape[: slot.apart], slot.shape[slot.apart :]))
    table = whole.reshape(lanes, each).T
    return table[np.any(table < dim, axis=1)]
