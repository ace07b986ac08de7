"""Looking: a function of a model traced once, with the values of sites that are removed from it as inputs.

The trace says what depends on which of these sites, and is evaluated under `jax.vmap` over many of their values: JAX repeats
only what does depend. What left the part of the model that a site lies in is marked, and found again where it is used.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import jaxpr_as_fun

from ._errors import quote
from .choices import Choices, paths
from .graph import flow
from .interpreter import activate
from .site import Table


class Scope(NamedTuple):
    """The sites that one function is run without.

    - `ways`: how each is removed, by address: None by trying all values, else an `Averaged` or a family.
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
    - `depends`: what of that is computed from what: addresses, leaks as `?address`, and leaves of `args` as `&i`.
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


def refuse_leaks(found: set[str]) -> None:
    """Raise ValueError where among what a density depends on there is a removed site's value from outside its own part."""
    leaked = {name[1:] for name in found if name[0] == "?"}
    if leaked:
        raise ValueError(
            f"site {quote(sorted(leaked))} cannot be removed: its value leaves the lane of ppl.vmap, the step of ppl.scan or "
            "the branch that it lies in, and the density depends on it there. Use it inside alone, or keep it."
        )


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
    return {address: jnp.zeros((), jnp.int32) if way is None else way.start for address, way in ways.items()}
