"""Summing out: a function of a model run for all values of some of its sites, and what is left when these are gone.

The function was traced once, with the number of each site's value as an input (see `looking.py`). It is evaluated for all
numbers, and then totals are summed in probability, or averaged by a law (see `laws.py`). A continuous site is an input too;
its family says what the totals integrate to (see `conjugacy.py`).

The prior is summed apart from the whole, so that tempering still begins at the prior. Of a loop see `chains.py`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import quote
from ._keys import fold
from .choices import Choices, put, remove
from .distributions import size
from .laws import averages, possible
from .log_sums import level, log_sum
from .looking import Ran, Seen, addresses, first_values, refuse_leaks
from .site import Table

MOST = 2**16  # values tried at the same time


class Left(NamedTuple):
    """What is left of a function: as `Ran`, its table; and the log weights of states and values (S, K), by kind."""

    returned: list
    trees: Choices
    totals: dict[str, Array]
    table: Table
    joint: dict[str, Array]


def on_grid(seen: Seen, args: list[Array], key: Any = None, law: Array | None = None) -> tuple[Ran, dict[str, Array]]:
    """What a function comes to for all values of its discrete sites, and the logs to be summed; axes (K,) first.

    `law`: log probabilities (K,) of the one site that logs are averaged over. The logs of what is impossible are those of the
    likeliest value: they count nothing, and their slopes, which may be infinite, must not be asked for.
    """
    discrete = [address for address, num in seen.found.items() if num]
    groups: dict[Any, list[str]] = {}
    for address in (address for address, num in seen.found.items() if not num):
        groups.setdefault(seen.ways[address].kin, []).append(address)
    nums = [seen.found[address] for address in discrete]
    if size(tuple(nums)) > MOST:
        raise ValueError(
            f"the sites {quote(discrete)} have {' * '.join(map(str, nums))} joint values in one function, too many to sum out "
            "at once. Put sites that are independent into functions of their own, repeated with ppl.vmap or ppl.scan."
        )

    def at(*numbers: Array) -> tuple:
        values = first_values(seen.ways) | dict(zip(discrete, numbers, strict=True))
        played = values
        if law is not None:
            played = values | {discrete[0]: possible(numbers[0], law)}

        def logs(**given: Array) -> dict:
            return _logs(seen, seen.evaluate(played | given, args))

        for i, kin in enumerate(groups.values()):
            own = None if key is None else fold(key, i + 2)
            logs = partial(_integrated, logs, {address: seen.ways[address] for address in kin}, own)
        return seen.evaluate(values, args), logs()

    for i in reversed(range(len(nums))):
        at = jax.vmap(at, tuple(0 if j == i else None for j in range(len(nums))))
    out = at(*(jnp.arange(num, dtype=jnp.int32) for num in nums))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(nums) :]), out)


def _integrated(logs: Callable, families: Mapping[str, Any], key: Any, **given: Array) -> dict:
    """The logs, with sites of one kind of family integrated out."""
    start = {address: family.start for address, family in families.items()}
    return next(iter(families.values())).integrate(lambda x: logs(**given, **x), start, key)


def _logs(seen: Seen, ran: Ran) -> dict[str, Array]:
    """The log prior; the whole; what was drawn; and the whole up to each pointwise datum, in order."""
    prior = ran.totals.get("log_prior", jnp.zeros(()))
    out = {"prior": prior, "total": prior + ran.totals.get("log_likelihood", 0.0)}
    if "log_weight" in ran.totals:
        out["drawn"] = prior - ran.totals["log_weight"]
    if "log_own" in ran.totals:
        out["own"] = ran.totals["log_own"]
    points = [jnp.ravel(x) for _, x, depends in seen.leaves(ran, "pointwise") if depends]
    if points:
        out["data"] = prior + jnp.cumsum(jnp.concatenate(points))
    return out


def single(grid: tuple[Ran, dict]) -> tuple:
    """The arguments of `combine` for a function that has no past: one state of weight 1."""
    return *jax.tree.map(lambda x: x[None], grid), dict.fromkeys(("prior", "total", "drawn"), jnp.zeros(1))


def combine(
    seen: Seen,
    ran: Ran,
    logs: dict,
    weights: dict,
    *,
    law: Array | None = None,
    key: Any = None,
    moving: frozenset[str] = frozenset(),
) -> Left:
    """Sum over states and values, axes (S, K), with log weights (S,) of the states; with a `law` (S, K), average.

    `moving`: arguments that differ by state.

    Raises:
        ValueError: where a removed site is used outside its lane or step, or the support of another site depends on it.
    """
    depends = jax.tree.map(lambda x: {n for n in x if n[0] != "&" or n in moving}, seen.depends, is_leaf=_is_set)
    seen = seen._replace(depends=depends)
    for found in depends.totals.values():
        refuse_leaks(found)
    densities = {"log_prior", "log_likelihood", "log_weight"} if law is None or "log_own" not in ran.totals else {"log_own"}
    if law is None and depends.totals.get("averaged"):
        raise ValueError(
            f"site {quote(sorted(addresses(depends.totals['averaged'])))} is summed out around a site whose log densities are "
            "averaged, and the log of a sum is no sum of averages. Keep it, or give the other site the strategy Enumerate()."
        )
    densities |= {"averaged"}
    for kind in depends.totals.keys() - densities:
        _refuse(depends.totals[kind], "the value or the support of another site")
    joint, sums = _summed(logs, weights, key) if law is None else averages(logs, weights["total"][:, None] + law)
    totals = {kind: x[0, 0] for kind, x in ran.totals.items()}
    if any(depends.totals.values()):
        totals["log_prior"] = sums["prior"]
        totals["log_likelihood"] = _less(sums["total"], sums["prior"])
        if "drawn" in sums:
            totals["log_weight"] = _less(sums["prior"], sums["drawn"])
        if "own" in sums:
            totals["log_own"] = sums["own"]
    if law is not None:
        totals["averaged"] = sums["total"]  # whoever sums around this has to know
    trees, dropped = _trees(seen, ran, sums, totals, law)
    table = remove(seen.table, dropped | seen.found.keys(), seen.prefix)
    return Left([x[0, 0] for x in ran.returned], trees, totals, table, joint)


def _summed(logs: dict, weights: dict, key: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """Log weights of states and values, and the logs of all sums."""
    states = {"prior": weights["prior"], "total": weights["total"], "drawn": weights["drawn"], "data": weights["total"]}
    joint = {kind: x + states[kind].reshape(-1, *(1,) * (x.ndim - 1)) for kind, x in logs.items() if kind in states}
    sums = {kind: log_sum(x.reshape(-1, *x.shape[2:]), key if kind == "total" else None) for kind, x in joint.items()}
    return {kind: joint[kind] - level(sums[kind]) for kind in weights.keys() & joint.keys()}, sums


def _trees(seen: Seen, ran: Ran, sums: dict, totals: dict, law: Array | None) -> tuple[Choices, set[str]]:
    """The records of what is left, and the addresses of deterministic sites that are gone."""
    out: Choices = {kind: {} for kind in ran.trees}
    dropped: set[str] = set()
    data = jnp.diff(jnp.concatenate([sums["prior"][None], sums["data"]])) if "data" in sums else None
    for kind in ran.trees:
        for path, x, found in seen.leaves(ran, kind):
            address, value = seen.prefix + ".".join(path), x[0, 0]
            if kind == "parameters" and address in seen.found:
                continue
            if kind == "law" and address in seen.found:
                put(out[kind], path, law)
                continue
            if kind == "removed":
                put(out[kind], path, value)
                continue
            if found and kind == "values":
                dropped.add(address)
                continue
            refuse_leaks(found)
            if found and kind == "pointwise":
                assert data is not None
                value, data = data[: value.size].reshape(value.shape), data[value.size :]
            elif found and kind in _REDUCED:
                value = _REDUCED[kind](x)
                if kind == "parameters":
                    value += sum(jnp.sum(y) for p, y, _ in seen.leaves(ran, kind) if seen.prefix + ".".join(p) in seen.found)
            elif found and kind == "lanes":  # lanes of something all of which depends on a site are not apart
                totals[path[-1]] = totals.get(path[-1], 0.0) + jnp.sum(value)
                continue
            else:
                _refuse(found, f"the value or the support of site '{address}'")
            put(out[kind], path, value)
    return out, dropped


_REDUCED: dict[str, Callable[[Array], Array]] = {
    "densities": lambda x: jnp.max(x, (0, 1)),  # finite where some value makes it so
    "parameters": lambda x: jnp.sum(x, (0, 1)),
    "bounds": lambda x: jnp.stack([jnp.min(x[..., 0]), jnp.max(x[..., 1])]),
}


def _less(whole: Array, part: Array) -> Array:
    return jnp.where(whole == -jnp.inf, -jnp.inf, whole - level(part))


def _is_set(x: Any) -> bool:
    return isinstance(x, set)


def _refuse(found: set[str], what: str) -> None:
    refuse_leaks(found)
    if found:
        raise ValueError(
            f"site {quote(sorted(addresses(found)))} cannot be removed: {what} is computed from it. Only densities may depend "
            "on a site that is removed."
        )
