"""Elimination: a program run with some of its sites summed or integrated out, exactly.

A function that holds removed sites is traced once with their values as inputs (see `looking.py`), and what came of it is
summed over all values (see `summing.py`). The parts of a program are functions of their own: each lane of a `ppl.vmap` sums
for itself, n * K and not K^n, and so does each step of a `ppl.scan`, or the scan is summed by the forward algorithm if its
carry tells steps of sites that were removed.

Whoever draws choices (simulate, generate, predict, guides) draws removed sites too, and forgets them; then the density of what
was kept is found as above.

Law: exp(log_prior) and exp(log_prior + log_likelihood) of what is left are sums of those of the whole over all values.
"""

from collections.abc import Callable, Mapping
from copy import copy
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from . import distributions
from ._keys import fold_name
from .chains import chain
from .choices import flatten
from .drawing import Drawing
from .interpreter import Interpreter, Record, activate, current
from .interpreters import Assess, Fill, Forecast, Generate, Inspect, Simulate, Soften, draw_site, weighed
from .laws import Averaged, law_of
from .looking import Scope, look
from .site import Site, Table, describe_distribution, within
from .summing import MOST, combine, on_grid, single

DRAWING = (Simulate, Generate, Forecast, Fill)
DENSITIES = ("log_prior", "log_likelihood", "log_weight")


class Part(NamedTuple):
    """A function of a model that is run without some of its sites.

    - `ways`: how each is removed, by address: None by trying all values, else a family (see `conjugacy.py`).
    - `leaks`: those of the function around it (see `Scope`).
    """

    fn: Callable
    ways: Mapping[str, Any]
    leaks: Mapping[str, Array] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outer: Any = current()
        fn = partial(self.fn, *args, **kwargs)
        if _plain(outer).scan is not Interpreter.scan:  # a program that is taken step by step: its loop is opened by others
            return _open(outer, fn, self)
        return (_draw if isinstance(outer, DRAWING) else _remove)(outer, fn, self)


# -- running a function without its sites ----------------------------------------------------------------------------------


def _remove(outer: Any, fn: Callable, part: Part) -> Any:
    """Run a function for its density, and hand what is left of it to the interpreter that asked."""
    seen = look(partial(_inner, outer), fn, part.ways)
    law = law_of(seen, [], [], [], 1)
    grid = on_grid(seen, [], _key(outer), None if law is None else law[0])
    left = combine(seen, *single(grid), law=law, key=_key(outer))
    outer.absorb(Record(left.trees, left.totals), left.table)
    return seen.returned(left.returned, part.leaks)


def _open(outer: Any, fn: Callable, part: Part) -> Any:
    """Run a function under an interpreter that opens its loop; removed sites lie in parts of it only."""
    opened = copy(outer)  # it writes to the same record and table
    opened.__class__ = _eliminating(_plain(outer))
    opened.scope = Scope(part.ways, {}, {address: jnp.zeros(()) for address in part.ways}, {})
    with activate(opened):
        return fn()


def _draw(outer: Any, fn: Callable, part: Part) -> Any:
    """Run a function forward, with removed sites forgotten, and then once more for the density of what was kept."""
    out, (trees, totals), table = forget(outer, fn, part.ways)
    if "choices" in outer.keeps:
        choices = trees.get("choices", {})
        second = _second(outer, choices)(outer.inputs._replace(key=None, given=choices), outer.rules, outer.prefix)
        with activate(second):
            Part(fn, part.ways)()
        totals = {kind: x for kind, x in totals.items() if kind not in DENSITIES} | second.record.totals
    outer.absorb(Record(trees, totals), table)
    return out


def forget(outer: Any, fn: Callable, ways: Mapping[str, Any]) -> tuple[Any, Record, Table]:
    """Run a function forward, its removed sites drawn and forgotten: what it returned, was recorded, its table. The
    densities that were recorded are those of the draw, which had these sites."""
    first = copy(outer)
    first.__class__, first.ways = _forgetting(type(outer)), ways
    first.record, first.table = Record({}, {}), {}
    with activate(first):
        out = fn()
    return out, first.record, first.table


def _second(outer: Any, choices: Any) -> type[Assess]:
    """Who finds the density of choices that `outer` made."""
    if not isinstance(outer, Generate):
        return Soften if getattr(outer, "soft", False) else Assess
    given = flatten(outer.inputs.given)
    return _weighing(frozenset(outer.prefix + address for address in flatten(choices) if address not in given))


@cache
def _forgetting(kind: Any) -> Any:
    """An interpreter of a kind that draws removed sites, and does not keep them."""

    class Forgetting(kind):
        ways: Mapping[str, Any]

        def latent(self, site: Site) -> Array:
            own = site.address not in self.ways or isinstance(self, Drawing)
            return super().latent(site) if own else draw_site(self, site)

        def put(self, kind: str, name: str, value: Any) -> None:
            if self.prefix + name not in self.ways or kind not in ("choices", "fresh", "free"):
                super().put(kind, name, value)

        def child(self, *args: Any, **kwargs: Any) -> Interpreter:
            child: Any = super().child(*args, **kwargs)
            child.ways = self.ways
            return child

    return Forgetting


@cache
def _weighing(drawn: frozenset[str]) -> type[Assess]:
    """Assess, with `log_weight` of the given sites that are not `drawn`."""

    class Weighing(Assess):
        def latent(self, site: Site) -> Array:
            value = super().latent(site)
            return value if site.address in drawn else weighed(self, site, value)

    return Weighing


# -- removed sites ----------------------------------------------------------------------------------------------------------


@cache
def _eliminating(kind: Any) -> Any:
    """An interpreter of a kind for a function that sites are removed from."""

    class Eliminating(kind):
        plain = kind
        inner = kind.inner or kind  # the parts of the function are run anew, each for itself
        scope: Scope

        def sample(self, name: str, d: Any, obs: Any, strategy: Any = None) -> Array:
            address = self.prefix + name
            scope: Any = self.scope.of(address)
            if scope is None:
                return super().sample(name, d, obs, strategy)
            self.check(name, "sample")
            if address not in scope.values:
                raise ValueError(
                    f"site '{address}' was removed, but a program that is taken step by step may remove sites in its steps "
                    "only. Move it into the loop, or keep it."
                )
            self.table[name] = describe_distribution(d)
            self.relate(name, d)
            way, given = scope.ways[address], scope.values[address]
            if isinstance(way, Averaged):
                return _averaged(self, name, d, given, own=way.own)
            return (_tried if way is None else _integrated)(self, name, d, given)

        def put(self, kind: str, name: str, value: Any) -> None:
            if kind in ("values", "law"):  # always: which deterministic sites are gone, even the table has to know
                self.record.trees.setdefault(kind, {})[name] = value
            else:
                super().put(kind, name, value)

        def child(self, inputs: Any, rules: Any = None, name: str = "") -> Interpreter:
            if not name:
                return super().child(inputs, rules)
            child = Eliminating(inputs, self.rules if rules is None else rules, f"{self.prefix}{name}.")
            child.scope = self.scope
            return child

        def pure(self, body: Callable) -> Any:
            if isinstance(body, Part):
                return super().pure(body)
            return super().pure(self.part(body))

        def part(self, body: Callable) -> Part:
            scope, ways = self.scope, {}
            while scope is not None:
                ways, scope = {**scope.ways, **ways}, scope.around
            return Part(body, ways, self.scope.leaks)

        def scan(self, f: Callable, init: Any, xs: Any, steps: int, *, reverse: bool = False, unroll: int | bool = 1) -> Any:
            if steps:
                summed = _chained(self, super().child, self.part(f), init, xs, steps, reverse, unroll)
                if summed is not None:
                    return summed
            return super().scan(self.part(f), init, xs, steps, reverse=reverse, unroll=unroll)

    return Eliminating


def _chained(run: Any, child: Callable, part: Part, init: Any, xs: Any, steps: int, reverse: bool, unroll: int | bool) -> Any:
    """A scan by the forward algorithm; None where its steps are independent of one another's removed sites.

    `child`: makes an interpreter for a step, given its inputs.
    """

    def look(inputs: Any, *scope: Any) -> Interpreter:
        return _inner(Inspect(inputs, run.rules, run.prefix), *scope)

    def ask(inputs: Any, *scope: Any) -> Interpreter:
        return _inner(child(inputs), *scope)

    starts = look, ask if run.plain.scan is Interpreter.scan else None
    every, draws = (run.inputs.lanes(steps), xs), lambda inputs: _key(child(inputs))
    found = chain(starts, part, init, every, steps, draws, reverse=reverse, unroll=unroll)
    if found is None:
        return None
    out, trees, totals, table = found
    label = "scan backward" if reverse else "scan"
    run.absorb(Record(trees, run.summed(totals, table, label)), within(table, label, steps))
    return out


def _tried(run: Any, name: str, d: Any, number: Array) -> Array:
    """The value of this number of a site whose values are all tried."""
    address = run.prefix + name
    num = run.scope.of(address).found[address] = _count(address, d)
    value = _numbered(d, number)
    log_p = jnp.sum(run.log_prob(d, value, inside=True))
    if isinstance(run, Backward):
        log_p = log_p + run.inputs.given[name][number]
    run.put("removed", name, jax.vmap(partial(_numbered, d))(jnp.arange(num)))
    run.add("log_prior", log_p)
    return value


def _integrated(run: Any, name: str, d: Any, value: Array) -> Array:
    """The value of a continuous site that is integrated out."""
    address = run.prefix + name
    run.scope.of(address).found[address] = 0
    run.add("log_prior", run.log_prob(d, value, inside=True))
    if isinstance(run, Backward):
        run.add("log_prior", jnp.sum(run.inputs.given[name] * value))
    run.put("removed", name, value)
    return value


def _averaged(run: Any, name: str, d: Any, number: Array, *, own: bool) -> Array:
    """The value of this number of a site that log densities are averaged over, and its law."""
    address, each = run.prefix + name, distributions.elements(d)  # a mask hides a value's density, not its law
    num = run.scope.of(address).found[address] = _count(address, each)
    if own:
        every = jnp.arange(num)
        table = jax.vmap(lambda i: jnp.sum(run.log_prob(each, _numbered(each, i), inside=True)))(every)[None]
    else:  # where nothing is given this is but a look at the sites
        table = run.inputs.given.get(name, jnp.zeros((1, num)))
    if table.shape[-1] != num:
        raise ValueError(f"site '{address}' has {num} values here, but {table.shape[-1]} in the program that it is of.")
    run.put("law", name, table)
    value = _numbered(each, number)
    run.add("log_own" if own else "log_prior", run.log_prob(d, value, inside=True))
    return value


class Ask(Assess):
    """Assess, keeping the values that each removed site can take; an axis (num,) comes after those of plates."""

    keeps = ("removed",)


class Backward(Assess):
    """Assess, with sums that are drawn from when differentiated with respect to `given` weights of removed sites' values."""


def _plain(interpreter: Any) -> Any:
    return getattr(type(interpreter), "plain", type(interpreter))


def _inner(outer: Any, ways: Any, values: Any, leaks: Any, found: Any) -> Interpreter:
    """Who runs a function that `outer` was to run, with removed sites forced."""
    inner: Any = _eliminating(_plain(outer))(outer.inputs, outer.rules, outer.prefix)
    inner.scope = Scope(ways, values, leaks, found, getattr(outer, "scope", None))
    return inner


def _key(outer: Any) -> Any:
    return fold_name(outer.inputs.key, "removed") if isinstance(outer, Backward) else None


def _count(address: str, d: Any) -> int:
    """How many values a removed site has."""
    num = distributions.num_values(d)
    if num is None:
        raise ValueError(
            f"site '{address}' cannot be summed out: {distributions.family(d)} can take infinitely many values here, or their "
            "number depends on another site or is not known inside jax.jit. Use a distribution with fixed bounds, such as "
            "Categorical, or keep the site."
        )
    size = distributions.size(d.batch_shape)
    if num**size > MOST:
        raise ValueError(
            f"site '{address}' has {num}^{size} joint values, too many to sum out at once. If its entries are independent "
            f"given all else, sample one of them in a function, and repeat that with ppl.vmap (or ppl.scan): then each is "
            "summed out by itself."
        )
    return num**size


def _numbered(d: Any, i: Array) -> Array:
    """The joint value number `i` of a site: entry j has digit j of it."""
    num, size = distributions.num_values(d), distributions.size(d.batch_shape)
    assert num is not None
    digits = i // jnp.asarray([num**j for j in range(size)], jnp.int32) % num
    return distributions.value_number(d, digits.reshape(d.batch_shape))
