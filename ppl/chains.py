"""Chains: a scan whose carry tells of sites that were removed, summed by the forward algorithm.

(Baum, Petrie, Soules and Weiss, Annals of Math. Statistics 41, 1970.) It keeps the carry and a log weight for each of the K^L
values of the last L sites, as many as the carry remembers; for a hidden Markov model L = 1. A step costs K^(L + 1).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import quote
from ._keys import fold
from .distributions import size
from .laws import law_of, remembered
from .log_sums import log_sum
from .looking import Ran, Seen, addresses, first_values, hidden, look, refuse_leaks
from .summing import MOST, combine, on_grid

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

    def step_seen(now: Any, leaves: list, start: Callable = starts[1]) -> Seen:
        inputs, x = now
        return look(partial(start, inputs), lambda *c: part.fn(jax.tree.unflatten(tree, c), x), part.ways, leaves)

    seen = step_seen(jax.tree.map(lambda x: x[0], every), leaves, starts[0])
    shapes = jax.eval_shape(lambda c: seen.evaluate(first_values(part.ways), c), leaves)
    past = _past(seen, shapes, len(leaves), known=starts[1] is not None)
    if past is None:
        return None
    notes: dict[str, Any] = {}

    def step(state: tuple, now: Any) -> tuple:
        still, carried, weights = state
        first = past.joined(still, [x[0] for x in carried])
        seen = step_seen(now, first)
        law = law_of(seen, first, carried, past.moving, past.states)
        at = partial(_at, seen, past, still)
        grid, key = jax.vmap(at, axis_size=past.states)(carried, law), draws(now[0])
        left = combine(seen, *grid, weights, law=law, key=key, moving=past.names)
        again = None if key is None else fold(key, 1)
        weights = {
            kind: past.newest(left.joint[kind], partial(log_sum, key=again if kind == "total" else None))
            if kind in left.joint
            else weights[kind]
            for kind in weights
        }
        carried = [past.newest(grid[0].returned[i], lambda x: x[0]) for i in past.moving]
        still = [left.returned[i] for i in range(past.num) if i not in past.moving]
        notes.update(seen=seen, table=left.table)
        return (still, carried, weights), (left.returned[past.num :], left.trees, left.totals)

    begin = past.begin(leaves, shapes)
    (still, carried, _), (ys, trees, totals) = jax.lax.scan(step, begin, every, length=steps, reverse=reverse, unroll=unroll)
    arrays = past.joined(still, [x[0] for x in carried]) + ys
    return _returned(notes["seen"], past, arrays, part.leaks), trees, totals, notes["table"]


class Past(NamedTuple):
    """What the carry of a scan remembers.

    - `num`: of its leaves; `moving`: those that depend on the states, which are the values of the last `memory` sites.
    - `values`: how many a site has.
    """

    num: int
    moving: list[int]
    memory: int
    values: int

    @property
    def states(self) -> int:
        return self.values**self.memory

    @property
    def names(self) -> frozenset[str]:
        return frozenset(f"&{i}" for i in self.moving)

    def begin(self, leaves: list, shapes: Ran) -> tuple:
        """The carry before the first step: leaves that do not move, those that do (S, ...), and log weights (S,)."""
        one = jnp.where(jnp.arange(self.states) == 0, 0.0, -jnp.inf).astype(jnp.result_type(float))
        moving = [leaves[i].astype(shapes.returned[i].dtype) for i in self.moving]
        still = [x for i, x in enumerate(leaves) if i not in self.moving]
        carried = [jnp.broadcast_to(x, (self.states, *x.shape)) for x in moving]
        return still, carried, dict.fromkeys(("prior", "total", "drawn"), one)

    def joined(self, still: list, carried: list) -> list:
        """The leaves of a carry, in order."""
        rest, own = iter(still), iter(carried)
        return [next(own) if i in self.moving else next(rest) for i in range(self.num)]

    def newest(self, x: Array, reduce: Callable) -> Array:
        """From (states, values, ...) to states: the site of now becomes the newest, and the oldest is forgotten."""
        old = self.states // self.values
        x = jnp.moveaxis(x, 1, 0).reshape(self.values, old, self.values, *x.shape[2:])
        return reduce(jnp.moveaxis(x, 2, 0)).reshape(self.states, *x.shape[3:])


def _past(seen: Seen, shapes: Ran, num: int, *, known: bool) -> Past | None:
    """What a carry of `num` leaves remembers of removed sites, None if nothing. `known`: the whole scan, not step by step.

    Raises:
        ValueError: where such a scan cannot be summed.
    """
    lags = _lags(seen, num)
    memory = max([*lags, remembered(seen, shapes)])
    if memory == 0:
        return None
    if not known:
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
    past = Past(num, [i for i, lag in enumerate(lags) if lag], memory, size(tuple(seen.found.values())))
    if past.states * past.values > MOST:
        raise ValueError(
            f"summing out {quote(seen.found)} along ppl.scan needs {past.states} states, for its carry remembers {memory} "
            f"steps of {past.values} values. Let the carry remember less."
        )
    return past


def _returned(seen: Seen, past: Past, arrays: list, leaks: Any) -> Any:
    """What the scan returns, with marks in place of what depends on removed sites."""
    depends = [{n for n in x if n[0] != "&" or n in past.names} for x in seen.depends.returned]
    sites = set(seen.found)
    gone = [{*addresses(x), *(sites if any(n[0] == "&" for n in x) else ())} for x in depends]
    return seen.rebuild([hidden(x, found, leaks) if found else x for x, found in zip(arrays, gone, strict=True)])


def _at(seen: Seen, past: Past, still: list, carried: list, law: Array | None) -> tuple[Ran, dict]:
    """What a step comes to in one state, for all values."""
    return on_grid(seen, past.joined(still, carried), law=law)


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
