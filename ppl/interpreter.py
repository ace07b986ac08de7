"""The interpreter: one ContextVar says what a `sample` means just now.

A model is an ordinary function. Running it under an interpreter gives each site a value and adds up densities; which value
and which densities is what an interpreter decides in a few lines (see `interpreters.py`). Everything else is here, once:
data, interventions, missing entries, duplicate names, the record of what happened, and how a combinator runs a body as a
pure function, so that `vmap`, `scan` and `cond` work for every interpreter, present and future.

Law: `pure(body)` has no side effect but to return its record; combinators stack records and sum totals.
"""

import abc
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import get_opaque_trace_state

from . import distributions
from ._keys import Key, fold, fold_name, name_hash
from .choices import EMPTY, Choices, Partial, as_data, lanes
from .site import Site, Table, describe, describe_distribution, within

_current: ContextVar["Interpreter | None"] = ContextVar("evidentia_interpreter", default=None)


def current() -> "Interpreter | None":
    """The interpreter in force in this thread, or None outside a model."""
    return _current.get()


class Inputs(NamedTuple):
    """What flows into a run, and is sliced by combinators: a key, data, proposed choices, interventions, and those
    reparameterisations that hold arrays."""

    key: Key | None = None
    data: Choices = {}
    given: Choices = {}
    do: Choices = {}
    rules: Choices = {}

    def under(self, name: str) -> "Inputs":
        """The inputs of a program nested under `name`."""
        key = None if self.key is None else fold_name(self.key, name)
        return Inputs(key, *(_group(tree, name) for tree in self[1:]))

    def lanes(self, length: int) -> "Inputs":
        """The inputs that a body repeated `length` times can use, keys and arrays with a leading axis of that length."""
        keys = None if self.key is None else jax.vmap(fold, (None, 0))(self.key, jnp.arange(length))
        return Inputs(keys, *(lanes(tree, length) for tree in self[1:]))


class Record(NamedTuple):
    """What flows out: `trees[kind][name]` stack along combinators' axes, `totals[kind]` are summed over them."""

    trees: dict[str, Choices]
    totals: dict[str, Array]


class Rules(NamedTuple):
    """The part of a program that is structure, not data: reparameterisations and replaced calls, by name."""

    reparams: Mapping[str, Any] = {}
    calls: Mapping[str, Any] = {}

    def under(self, name: str) -> "Rules":
        """The rules of a program nested under `name`."""
        return Rules(*(_group(tree, name) for tree in self))


NO_RULES = Rules()


class Interpreter(abc.ABC):
    """Base of all interpreters. A finished one defines `latent(site) -> value`, and `keeps`: which records it wants.

    `latent` chooses the value of a site that no data fix; the base class adds up `log_prior` and `log_likelihood`.
    """

    keeps: tuple[str, ...] = ()
    inner: "type[Interpreter] | None" = None  # of what kind the parts of the program are run: None means of this one

    def __init__(self, inputs: Inputs, rules: Rules = NO_RULES, prefix: str = "") -> None:
        self.inputs, self.rules, self.prefix = inputs, rules, prefix
        self.record = Record({}, {})
        self.table: Table = {}
        self._hashes: dict[int, str] = {}
        self._trace_state = get_opaque_trace_state()

    # -- what a finished interpreter says ------------------------------------------------------------------------------

    @abc.abstractmethod
    def latent(self, site: Site) -> Array:
        """The value of a latent site."""

    def log_prob(self, d: Any, value: Array, *, inside: bool) -> Array:
        """Log density of each batch element. `inside`: the value is a mapped one, or data that were checked at the door."""
        return distributions.log_prob(d, value)

    def relate(self, name: str, parameters: Any) -> None:
        """Told what the site `name` is computed from; only the interpreter that draws graphs listens."""
        return None

    # -- what happens at each kind of site -----------------------------------------------------------------------------

    def sample(self, name: str, d: Any, obs: Any, strategy: Any = None) -> Array:
        """A distribution's site: intervened, observed, partly observed, reparameterised or latent."""
        self.check(name, "sample")
        data = self.inputs.data.get(name)
        if obs is not None and data is not None:
            raise ValueError(f"site '{self.prefix}{name}' is given data twice: by obs= in the model and by `|`. Keep one.")
        if name in self.inputs.do:
            value = self.inputs.do[name]
            self.row(name, describe("intervened", value, self.prefix + name))
            self.put("values", name, value)
            return value
        if obs is None and data is None and name in self.rules.reparams:
            return self._reparameterised(name, d)
        if obs is not None:
            data, d = self._written(name, d, obs)
        info = describe_distribution(d)
        site = Site(name, self.prefix + name, d, obs, strategy=strategy)
        if data is None:
            self.row(name, info)
            value = self.latent(site)
            self.relate(name, d)
            log_p = self.log_prob(d, value, inside=True)
            self.put("choices", name, value)
            self.put("densities", name, log_p)
            self.add("log_prior", log_p)
            return value
        if isinstance(data, Partial):
            return self._partial(site, info, data)
        self.row(name, replace(info, kind="observed"))
        log_p = self.log_prob(d, data, inside=obs is None and info.support is not None)
        self.put("observed", name, data)
        self.put("pointwise", name, log_p)
        self.put("densities", name, log_p)
        self.relate(name, d)
        self.add("log_likelihood", log_p)
        return data

    def _reparameterised(self, name: str, d: Any) -> Array:
        """The value that a rule gives; a site of the same name which the rule itself samples is an ordinary one."""
        rules = self.rules
        self.rules = rules._replace(reparams={other: rule for other, rule in rules.reparams.items() if other != name})
        try:
            return self.inputs.rules.get(name, rules.reparams[name])(name, d)
        finally:
            self.rules = rules

    def _partial(self, site: Site, info: Any, data: Partial) -> Array:
        """Known entries are data, missing ones latent; the choice holds the whole array, so shapes stay static."""
        self.row(site.name, replace(info, partial=True))
        self.put("known", site.name, data.known)
        events = tuple(range(len(site.distribution.batch_shape), data.known.ndim))
        known = jnp.all(data.known, axis=events)
        value = self.latent(site._replace(missing=~known))
        value = jnp.where(data.known, data.value.astype(value.dtype), value)
        log_p = self.log_prob(site.distribution, value, inside=site.obs is None and info.support is not None)
        self.relate(site.name, site.distribution)
        self.put("choices", site.name, value)
        if jnp.issubdtype(value.dtype, jnp.floating):
            self.put("observed", site.name, jnp.where(data.known, value, jnp.nan))
        self.put("pointwise", site.name, jnp.where(known, log_p, 0.0))
        self.put("densities", site.name, log_p)
        self.add("log_prior", jnp.where(known, 0.0, log_p))
        self.add("log_likelihood", jnp.where(known, log_p, 0.0))
        return value

    def _written(self, name: str, d: Any, obs: Any) -> tuple[Any, Any]:
        """Data written in the model. As in NumPyro, a distribution smaller than its data is repeated over them."""
        try:
            value = as_data(obs)
        except ValueError as e:
            raise ValueError(f"the data of site '{self.prefix}{name}' cannot be used: {e}.") from None
        shape = jnp.shape(value.value if isinstance(value, Partial) else value)
        if shape != d.shape():
            batch = shape[: len(shape) - len(d.event_shape)]
            try:
                fits = jnp.broadcast_shapes(shape, d.shape()) == shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(
                    f"the data of site '{self.prefix}{name}' have shape {shape}, but its distribution "
                    f"{distributions.family(d)} has shape {d.shape()}. They must agree, or the distribution be "
                    "repeated over the data."
                )
            d = distributions.expand(d, batch)
        return value, d

    def program(self, name: str, program: Any) -> Any:
        """A program nested under `name`: its choices are the dict at `name`; its return value is the site's value."""
        self.check(name, "sample")
        inputs = self.inputs.under(name)
        child = self.child(
            program.add_inputs(inputs, f"{self.prefix}{name}."), program.add_rules(self.rules.under(name)), name
        )
        with activate(child):
            out = program.run()
        self.table[name] = child.table
        for kind, tree in child.record.trees.items():
            self.record.trees.setdefault(kind, {})[name] = tree
        self._add_totals(child.record.totals)
        return out

    def factor(self, name: str, log_weight: Any) -> None:
        """An unnormalised log weight; its elements are summed."""
        self.check(name, "factor")
        self.row(name, describe("factor", log_weight, self.prefix + name))
        self.put("pointwise", name, log_weight)
        self.put("densities", name, log_weight)
        self.relate(name, log_weight)
        self.add("log_likelihood", jnp.asarray(log_weight))

    def deterministic(self, name: str, value: Any) -> Any:
        """A value worth keeping; an intervention may replace it."""
        self.check(name, "deterministic")
        do = self.inputs.do.get(name)
        self.row(name, describe("deterministic" if do is None else "intervened", value, self.prefix + name))
        value = value if do is None else do
        self.put("values", name, value)
        self.relate(name, value)
        return value

    def call(self, name: str, fn: Callable, args: tuple, kwargs: dict) -> Any:
        """A named deterministic computation; a rule may replace the function. One with a true attribute `may_fail` has failed
        where its output is not finite: that is impossible, and zeros stand in for it, so that nothing after it is NaN. One
        with a true attribute `on_host` runs there."""
        self.check(name, "call")
        fn = self.rules.calls.get(name, fn)
        self.table[name] = replace(describe("call", 0.0, self.prefix + name), on_host=getattr(fn, "on_host", False))
        out = fn(*args, **kwargs)
        if not getattr(fn, "may_fail", False):
            return out
        finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(out)]).all()
        self.add("log_likelihood", jnp.where(finite, 0.0, -jnp.inf))
        return jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), out)

    # -- the record ----------------------------------------------------------------------------------------------------

    def row(self, name: str, info: Any) -> None:
        """Enter a site in the table."""
        self.table[name] = info

    def put(self, kind: str, name: str, value: Any) -> None:
        """Keep a value, if this interpreter wants values of this kind."""
        if kind in self.keeps:
            self.record.trees.setdefault(kind, {})[name] = value

    def add(self, kind: str, value: Array) -> None:
        """Add the entries of an array to a running total. A scalar needs no sum: tracing one would take a millisecond."""
        value = jnp.sum(value) if jnp.ndim(value) else value
        self.record.totals[kind] = self.record.totals[kind] + value if kind in self.record.totals else value

    def summed(self, totals: Mapping[str, Array], table: Table, label: str) -> dict[str, Array]:
        """The totals of a repeated body, from those of its repetitions. `table`: the body's; `label`: who repeats it."""
        return {kind: jnp.sum(values, axis=0) for kind, values in totals.items()}

    def _add_totals(self, totals: Mapping[str, Array]) -> None:
        for kind, value in totals.items():
            self.add(kind, value)

    def total(self, *kinds: str) -> Array:
        """The sum of some totals; 0.0 for a program that added nothing."""
        found = [self.record.totals[k] for k in kinds if k in self.record.totals]
        return reduce(operator.add, found) if found else jnp.zeros(())

    def check(self, name: str, verb: str) -> None:
        """Refuse names that are used twice, and sites inside a raw JAX transformation."""
        address = self.prefix + str(name)
        if not isinstance(name, str) or not name:
            raise ValueError(f"a site's name must be a non-empty string, but {verb} got {name!r}.")
        if name in self.table:
            raise ValueError(
                f"two sites are named '{address}'. Every site of a program needs its own name; repeat a site with "
                "ppl.vmap or ppl.scan, and a whole model by sampling it under a name."
            )
        twin = self._hashes.setdefault(name_hash(name), name)
        if twin != name:
            raise ValueError(
                f"sites '{self.prefix}{twin}' and '{address}' would share their random numbers, because the checksums of "
                "their names happen to agree. Rename one of them."
            )
        if get_opaque_trace_state() != self._trace_state:
            raise ValueError(
                f"site '{address}' lies inside a raw JAX transformation (such as jax.vmap, jax.lax.scan, jax.lax.cond, "
                "jax.jit, jax.grad or jax.checkpoint), which the program cannot see into. Use ppl.vmap, ppl.scan, "
                "ppl.cond, ppl.switch, ppl.fori_loop or ppl.remat in its place: their signatures are the same. "
                "jax.jit goes around a whole program, not inside one."
            )

    # -- running bodies ------------------------------------------------------------------------------------------------

    def child(self, inputs: Inputs, rules: Rules | None = None, name: str = "") -> "Interpreter":
        """A fresh interpreter of the same kind for a part of the program."""
        prefix = self.prefix + (f"{name}." if name else "")
        return (self.inner or type(self))(inputs, self.rules if rules is None else rules, prefix)

    def pure(self, body: Callable) -> "Pure":
        """`body` as a function of (inputs, args, kwargs) that returns its result and its record."""
        return Pure(self, body)

    def scan(
        self, f: Callable, init: Any, xs: Any, steps: int, *, reverse: bool = False, unroll: int | bool = 1
    ) -> tuple[Any, Any]:
        """A body repeated along time; one interpreter opens it instead, to take one step at a time (see `stepwise.py`)."""
        body = self.pure(f)

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            inputs, x = x
            (carry, y), record = body(inputs, (carry, x), {})
            return carry, (y, record)

        every = (self.inputs.lanes(steps), xs)
        carry, (ys, record) = jax.lax.scan(step, init, every, length=steps, reverse=reverse, unroll=unroll)
        body.absorb(record, "scan backward" if reverse else "scan", steps)
        return carry, ys

    def absorb(self, record: Record, table: Table) -> None:
        """Join what a body did, already stacked and summed, to what happened so far."""
        for name in table:
            self.check(name, "sample")
        self.table.update(table)
        for kind, tree in record.trees.items():
            self.record.trees.setdefault(kind, {}).update(tree)
        self._add_totals(record.totals)


class Pure:
    """A part of a model run as a pure function; after a run, `table` holds the sites it visited."""

    def __init__(self, parent: Interpreter, body: Callable) -> None:
        self.parent, self.body, self.table = parent, body, {}

    def __call__(self, inputs: Inputs, args: tuple, kwargs: dict) -> tuple[Any, Record]:
        child = self.parent.child(inputs)
        with activate(child):
            out = self.body(*args, **kwargs)
        self.table = child.table
        return out, child.record

    def absorb(self, record: Record, label: str, length: int | None) -> None:
        """Hand the record of a run to the parent; `length` is set when trees and totals have a leading axis to sum."""
        totals = record.totals if length is None else self.parent.summed(record.totals, self.table, label)
        self.parent.absorb(Record(record.trees, totals), within(self.table, label, length))


@contextmanager
def activate(interpreter: Interpreter) -> Iterator[Interpreter]:
    """Make `interpreter` the current one, and restore the former one whatever happens."""
    token = _current.set(interpreter)
    try:
        yield interpreter
    finally:
        _current.reset(token)


def outside(verb: str, name: object) -> ValueError:
    """The error for a site that no interpreter can see."""
    return ValueError(
        f"ppl.{verb}({name!r}, ...) was called outside a running program. Put it in a function decorated with @ppl.model, "
        f"call that to get a program, and ask the program, e.g. program.simulate(key)."
    )


def _group(tree: Mapping[str, Any], name: str) -> Choices:
    group = tree.get(name, EMPTY)
    return group if isinstance(group, dict) else EMPTY
