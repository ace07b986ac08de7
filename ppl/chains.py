"""Chains: a scan whose carry tells of sites that were removed, summed by the forward algorithm.

(Baum, Petrie, Soules and Weiss, Annals of Math. Statistics 41, 1970.) It keeps the carry and a log weight for each of the K^L
values of the last L sites, as many as the carry remembers; for a hidden Markov model L = 1. A step costs K^(L + 1).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import quote
from ._keys import fold
from .distributions import size
from .log_sums import log_sum
from .summing import MOST, Ran, Seen, addresses, combine, first_values, hidden, law_of, look, on_grid, refuse_leaks

MEMORY = 3  # how many steps back a carry may remember


def chain(
    starts: tuple[Callable, Any], part: Any, init: Any, every: Any, steps: int, draws: Callable, *, reverse: bool, unroll: Any
) -> tuple | None:
    """A scan by the forward algorithm; None where the carry does not depend on removed sites of its steps.

    `starts`: interpreters for a step, given its inputs; one that looks at shapes only, and the one that asks
    (None where the program is taken step by step).

    Returns what the scan returns, trees and totals with an axis of time, and the table of a step.
    """
    leaves, tree = jax.tree.flatten(init)
    leaves = [jnp.asarray(x) for x in leaves]
    num = len(leaves)

    def step_seen(now: Any, leaves: list, start: Callable = starts[1]) -> Seen:
        inputs, x = now
        return look(partial(start, inputs), lambda *c: part.fn(jax.tree.unflatten(tree, c), x), part.ways, leaves)

    seen = step_seen(jax.tree.map(lambda x: x[0], every), leaves, starts[0])
    lags = _lags(seen, num)
    shapes = jax.eval_shape(lambda c: seen.evaluate(first_values(part.ways), c), leaves)
    memory = max([*lags, _remembered(seen, shapes)])
    if memory == 0:
        return None
    if starts[1] is None:
        raise ValueError(
            f"site {quote(seen.found)} was removed, but a program that is taken step by step may remove sites of single steps "
            "only, and the carry of its ppl.scan depends on this one. Keep it, or use the program's whole density."
        )
    real = [address for address, count in seen.found.items() if not count]
    if real:
        raise ValueError(
            f"site {quote(real)} cannot be integrated out by conjugacy along ppl.scan, because the carry depends on it. If "
            "the model is linear and Gaussian, inf.exact has the Kalman filter."
        )
    values = size(tuple(seen.found.values()))
    states, old = values**memory, values ** (memory - 1)
    if states * values > MOST:
        raise ValueError(
            f"summing out {quote(seen.found)} along ppl.scan needs {states} states, for its carry remembers {memory} steps of "
            f"{values} values. Let the carry remember less."
        )
    moving = [i for i in range(num) if lags[i]]
    names = frozenset(f"&{i}" for i in moving)

    def newest(x: Array, reduce: Callable) -> Array:
        """From (states, values, ...) to states: the site of now becomes the newest, and the oldest is forgotten."""
        x = jnp.moveaxis(x, 1, 0).reshape(values, old, values, *x.shape[2:])
        return reduce(jnp.moveaxis(x, 2, 0)).reshape(states, *x.shape[3:])

    def step(state: tuple, now: Any) -> tuple:
        still, carried, weights = state
        seen = step_seen(now, _joined(still, [x[0] for x in carried], moving))
        law = law_of(seen, _joined(still, [x[0] for x in carried], moving), carried, moving, states)
        at = partial(_at, seen, still, moving)
        grid, key = jax.vmap(at, axis_size=states)(carried, law), draws(now[0])
        left = combine(seen, *grid, weights, law=law, key=key, moving=names)
        again = None if key is None else fold(key, 1)
        weights = {
            kind: newest(left.joint[kind], partial(log_sum, key=again if kind == "total" else None))
            if kind in left.joint
            else weights[kind]
            for kind in weights
        }
        carried = [newest(grid[0].returned[i], lambda x: x[0]) for i in moving]
        still = [left.returned[i] for i in range(num) if i not in moving]
        notes.update(seen=seen, table=left.table)
        return (still, carried, weights), (left.returned[num:], left.trees, left.totals)

    notes: dict[str, Any] = {}
    one = jnp.where(jnp.arange(states) == 0, 0.0, -jnp.inf).astype(jnp.result_type(float))
    carried = [jnp.broadcast_to(leaves[i].astype(shapes.returned[i].dtype), (states, *leaves[i].shape)) for i in moving]
    still = [x for i, x in enumerate(leaves) if i not in moving]
    begin = (still, carried, dict.fromkeys(("prior", "total", "drawn"), one))
    (still, carried, _), (ys, trees, totals) = jax.lax.scan(step, begin, every, length=steps, reverse=reverse, unroll=unroll)
    seen = notes["seen"]
    depends = [{n for n in x if n[0] != "&" or n in names} for x in seen.depends.returned]
    arrays = _joined(still, [x[0] for x in carried], moving) + ys
    sites = set(seen.found)
    gone = [{*addresses(x), *(sites if any(n[0] == "&" for n in x) else ())} for x in depends]
    arrays = [hidden(x, found, part.leaks) if found else x for x, found in zip(arrays, gone, strict=True)]
    return seen.rebuild(arrays), trees, totals, notes["table"]


def _at(seen: Seen, still: list, moving: list[int], carried: list, law: Array | None) -> tuple[Ran, dict]:
    """What a step comes to in one state, for all values."""
    return on_grid(seen, _joined(still, carried, moving), law=law)


def _remembered(seen: Seen, shapes: Any) -> int:
    """How many steps back the law looks that a site of this step is averaged by."""
    rows = [x.shape[-2] for path, x, _ in seen.leaves(shapes, "law") if seen.prefix + ".".join(path) in seen.found]
    return round(math.log(rows[0], size(tuple(seen.found.values())))) if rows and rows[0] > 1 else 0


def _joined(still: list, carried: list, moving: list[int]) -> list:
    """The leaves of a carry, in order."""
    rest, own = iter(still), iter(carried)
    return [next(own) if i in moving else next(rest) for i in range(len(still) + len(carried))]


def _lags(seen: Seen, num: int) -> list[int]:
    """How many steps back each leaf of the carry, as a step meets it, tells of removed sites.

    Raises:
        ValueError: where it tells of more than `MEMORY` steps.
    """
    reach = [0] * num
    while True:
        new = [0] * num
        for i, depends in enumerate(seen.depends.returned[:num]):
            refuse_leaks(depends)
            before = [reach[j] for j in range(num) if f"&{j}" in depends]
            new[i] = max([1 if depends & seen.found.keys() else 0, *(lag + 1 for lag in before if lag)])
        if new == reach:
            return reach
        if max(new) > MEMORY:
            raise ValueError(
                f"site {quote(seen.found)} cannot be summed out along ppl.scan: the carry depends on its values at more than "
                f"{MEMORY} steps back. Make the whole state of the chain the site, as in sample('state', "
                "dist.Categorical(transition[state])), and carry that alone."
            )
        reach = new
