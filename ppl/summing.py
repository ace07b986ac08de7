"""Summing out: a function of a model run for all values of some of its sites, and what is left when these are gone.

`look` traces the function once, with the number of each site's value as an input. The trace tells what depends on it, and is
evaluated under `jax.vmap` over all numbers: JAX repeats only what does depend. Then totals are summed in probability. A
continuous site is an input too; its family says what the totals integrate to (see `conjugacy.py`).

The prior is summed apart from the whole, so that tempering still begins at the prior. Of a loop see `chains.py`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import jaxpr_as_fun

from ._errors import quote
from ._keys import fold
from .choices import Choices, paths, put, remove
from .distributions import size
from .graph import flow
from .interpreter import activate
from .log_sums import level, log_sum
from .site import Table

MOST = 2**16  # values tried at the same time
NOTHING = 1e-36  # less is the probability of what is impossible: some densities say -85, for the slope's sake


class Averaged(NamedTuple):
    """A site is removed by averaging log densities over its values, not densities: by its `own` probabilities, or by those
    that are given for it (S, K), in place of a value (see `averaged.py`)."""

    own: bool


class Scope(NamedTuple):
    """The sites that one function is run without.

    - `ways`: how each is removed, by address: None by trying all values, `Averaged`, else a family.
    - `values`: what they are forced to: the number of a value, or a value.
    - `leaks`: zeros that mark what must not be used, for it depends on a site that was removed from a part of the function.
    - `found`: how many values each site that was visited has; 0 for a continuous one.
    - `around`: the scope of a function around this one.
    """

    ways: Mapping[str, Any]
    values: Mapping[str, Array]
    leaks: Mapping[str, Array]
    found: dict[str, int]
    around: Any = None

    def of(self, address: str) -> Any:
        """The scope that a removed site belongs to, or None."""
        if address in self.ways:
            return self
        return None if self.around is None else self.around.of(address)


class Ran(NamedTuple):
    """What came of a function: the arrays that it returned, trees and totals; or of each what it is computed from."""

    returned: list
    trees: Choices
    totals: dict[str, Any]


class Seen(NamedTuple):
    """A function, traced.

    - `evaluate(values, args)`: what comes of it when removed sites are forced to `values`.
    - `depends`: what of that is computed from what: addresses, leaks as `?address`, and leaves of `args` as `#i`.
    - `rebuild`: from the returned arrays what it returned.
    """

    evaluate: Callable[..., Ran]
    depends: Ran
    rebuild: Callable[[list], Any]
    ways: Mapping[str, Any]
    found: dict[str, int]
    table: Table
    prefix: str

    def leaves(self, ran: Ran, kind: str) -> list[tuple[tuple[str, ...], Any, set[str]]]:
        """The arrays of one kind: path, array, and what it depends on."""
        depends = dict(paths(self.depends.trees.get(kind, {})))
        return [(path, x, depends[path]) for path, x in paths(ran.trees.get(kind, {}))]

    def returned(self, arrays: list, leaks: Mapping[str, Array]) -> Any:
        """What the function returns, with marks in place of what is not known any more."""
        found = [addresses(depends) for depends in self.depends.returned]
        return self.rebuild([hidden(x, gone, leaks) if gone else x for x, gone in zip(arrays, found, strict=True)])


class Left(NamedTuple):
    """What is left of a function: as `Ran`, its table; and the log weights of states and values (S, K), by kind."""

    returned: list
    trees: Choices
    totals: dict[str, Array]
    table: Table
    joint: dict[str, Array]


class Unknown:
    """Stands for a value that a program returns, and that depends on a site which is no longer there."""

    def __init__(self, sites: set[str]) -> None:
        self._sites = sorted(sites)

    def __repr__(self) -> str:
        return f"<unknown: it depends on {quote(self._sites)}, removed from the program>"

    def _used(self, *args: Any) -> Any:
        raise ValueError(
            f"a value that a marginal program returned is used, but it depends on site {quote(self._sites)}, which was "
            "removed. Return something else, or keep the site."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __getitem__ = __array__ = _used
    shape = dtype = property(_used)  # what JAX asks for first


def addresses(depends: set[str]) -> set[str]:
    """The removed sites among what something depends on."""
    return {name.removeprefix("?") for name in depends if not name.startswith("&")}


def hidden(x: Array, sites: set[str], leaks: Mapping[str, Array]) -> Any:
    """A mark in place of `x`: zeros computed from the leaks, which the function around finds again if it uses them."""
    if not sites <= leaks.keys():
        return Unknown(sites)
    return jnp.broadcast_to(sum(leaks[address] for address in sorted(sites)), x.shape).astype(x.dtype)


# -- looking ---------------------------------------------------------------------------------------------------------------


def look(start: Callable[..., Any], fn: Callable, ways: Mapping[str, Any], args: list[Array] | None = None) -> Seen:
    """Trace `fn(*args)` under the interpreter `start(ways, values, leaks, found)`."""
    args, notes = args or [], {}

    def run(values: Mapping, leaks: Mapping, args: list) -> Ran:
        inner = start(ways, values, leaks, {})
        with activate(inner):
            leaves, tree = jax.tree.flatten(fn(*args))
        known = [isinstance(x, int | float) or (not isinstance(x, Unknown) and hasattr(x, "dtype")) for x in leaves]
        notes.update(interpreter=inner, leaves=leaves, known=known, tree=tree)
        arrays = [jnp.asarray(x) for x, array in zip(leaves, known, strict=True) if array]
        return Ran(arrays, inner.record.trees, inner.record.totals)

    def rebuild(arrays: list) -> Any:
        values = iter(arrays)
        leaves = [next(values) if array else x for x, array in zip(notes["leaves"], notes["known"], strict=True)]
        return jax.tree.unflatten(notes["tree"], leaves)

    leaks = {address: jnp.zeros(()) for address in ways}
    closed, shapes = jax.make_jaxpr(run, return_shape=True)(first_values(ways), leaks, args)
    structure, compute = jax.tree.structure(shapes), jaxpr_as_fun(closed)
    names = [*sorted(ways), *(f"?{address}" for address in sorted(ways)), *(f"&{i}" for i in range(len(args)))]
    depends = jax.tree.unflatten(structure, flow(closed.jaxpr, [{name} for name in names]))

    def evaluate(values: Mapping, args: list) -> Ran:
        return jax.tree.unflatten(structure, compute(*jax.tree.leaves((dict(values), leaks, args))))

    inner = notes["interpreter"]
    return Seen(evaluate, depends, rebuild, ways, inner.scope.found, inner.table, inner.prefix)


def first_values(ways: Mapping[str, Any]) -> dict[str, Array]:
    """Some value of each removed site, by address: the number 0, or where a family says that a continuous one may begin."""
    numbered = {address: way is None or isinstance(way, Averaged) for address, way in ways.items()}
    return {address: jnp.zeros((), jnp.int32) if numbered[address] else way.start for address, way in ways.items()}


# -- summing ---------------------------------------------------------------------------------------------------------------


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
            likeliest = jnp.argmax(law).astype(numbers[0].dtype)
            played = values | {discrete[0]: jnp.where(jnp.exp(law[numbers[0]]) > NOTHING, numbers[0], likeliest)}

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
    joint, sums = _summed(logs, weights, key) if law is None else _averaged(logs, weights["total"][:, None] + law)
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


def _averaged(logs: dict, log_p: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """The same where logs are averaged, by log probabilities (S, K). What is impossible counts nothing."""
    possible = jnp.exp(log_p) > NOTHING
    p = jnp.where(possible, jnp.exp(jnp.where(possible, log_p, 0.0)), 0.0)

    def mean(x: Array) -> Array:
        weights = p.reshape(*p.shape, *(1,) * (x.ndim - 2))
        return jnp.sum(weights * jnp.where(weights > 0, x, 0.0), (0, 1))

    return dict.fromkeys(("prior", "total", "drawn"), log_p), {kind: mean(x) for kind, x in logs.items()}


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


def refuse_leaks(found: set[str]) -> None:
    """Raise ValueError where among what a density depends on there is a removed site's value from outside its own part."""
    leaked = {name[1:] for name in found if name[0] == "?"}
    if leaked:
        raise ValueError(
            f"site {quote(sorted(leaked))} cannot be removed: its value leaves the lane of ppl.vmap, the step of ppl.scan or "
            "the branch that it lies in, and the density depends on it there. Use it inside alone, or keep it."
        )


def _refuse(found: set[str], what: str) -> None:
    refuse_leaks(found)
    if found:
        raise ValueError(
            f"site {quote(sorted(addresses(found)))} cannot be removed: {what} is computed from it. Only densities may depend "
            "on a site that is removed."
        )
