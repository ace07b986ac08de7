"""Laws: a site is removed by averaging log densities over its values, by probabilities that are given or are its own.

A law is a table of log probabilities (S, K): of K values, given the S states that the past leaves open. Where probabilities
are summed out (see `summing.py`) a value that is impossible adds nothing; here it would add 0 times minus infinity, and so
what has next to no probability is left out, with its slopes. (What is averaged, and for whom: see `averaged.py`.)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import quote
from .choices import paths
from .distributions import size
from .log_sums import NOTHING
from .looking import Ran, Seen, first_values


class Averaged(NamedTuple):
    """A site is removed by averaging log densities over its values, not densities: by its `own` probabilities, or by those
    that are given for it (S, K), in place of a value (see `averaged.py`)."""

    own: bool

    @property
    def start(self) -> Array:
        """The number of its first value."""
        return jnp.zeros((), jnp.int32)


def law_of(seen: Seen, args: list[Array], carried: list[Array], moving: list[int], states: int) -> Array | None:
    """The log probabilities (S, K) of a site that logs are averaged over, given the states; None where all are summed.

    `carried` (S, ...): the arguments that differ by state, numbers `moving` of `args`. Evaluated apart from all else, for the
    states alone: a law of K values for each of K states would otherwise be there once for each of their K * K pairs.

    Raises:
        ValueError: for another site that is removed from the same function.
    """
    averaged = [address for address in seen.found if isinstance(seen.ways[address], Averaged)]
    if not averaged:
        return None
    if len(seen.found) > 1:
        raise ValueError(
            f"the sites {quote(list(seen.found))} lie in one function, and log densities can be averaged over one site of a "
            "function only. Make them one site, or give all but one of them the strategy Enumerate()."
        )

    def table(carried: list[Array]) -> Array:
        own = dict(zip(moving, carried, strict=True))
        ran = seen.evaluate(first_values(seen.ways), [own.get(i, x) for i, x in enumerate(args)])
        return dict(paths(ran.trees["law"]))[path]

    depends = {path: found for path, found in paths(seen.depends.trees["law"])}
    path = next(path for path in depends if seen.prefix + ".".join(path) == averaged[0])
    if depends[path] & {f"&{i}" for i in moving}:
        return jax.vmap(table)(carried)[:, 0]
    rows = table([x[0] for x in carried])
    if states < len(rows):
        raise ValueError(
            f"site '{averaged[0]}' is a chain where it is drawn, but here it lies in a branch, a ppl.remat or a lane of the "
            "step, which does not know what came before. Sample it in the step itself."
        )
    return rows[jnp.arange(states) * len(rows) // states]


def remembered(seen: Seen, shapes: Ran) -> int:
    """How many steps of a scan back the law looks that a site of this step is averaged by."""
    rows = [x.shape[-2] for path, x, _ in seen.leaves(shapes, "law") if seen.prefix + ".".join(path) in seen.found]
    return round(math.log(rows[0], size(tuple(seen.found.values())))) if rows and rows[0] > 1 else 0


def possible(number: Array, law: Array) -> Array:
    """The number of a value; in place of one that is impossible by the law (K,), that of the likeliest."""
    return jnp.where(jnp.exp(law[number]) > NOTHING, number, jnp.argmax(law).astype(number.dtype))


def averages(logs: dict, log_p: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Log weights (S, K) of states and values, by kind, and the means of all logs (S, K, ...) by log probabilities (S, K)."""
    some = jnp.exp(log_p) > NOTHING
    p = jnp.where(some, jnp.exp(jnp.where(some, log_p, 0.0)), 0.0)

    def mean(x: Array) -> Array:
        weights = p.reshape(*p.shape, *(1,) * (x.ndim - 2))
        return jnp.sum(weights * jnp.where(weights > 0, x, 0.0), (0, 1))

    return dict.fromkeys(("prior", "total", "drawn"), log_p), {kind: mean(x) for kind, x in logs.items()}
