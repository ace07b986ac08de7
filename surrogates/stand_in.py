"""Stand-in: a program in which a network says the law of one site, in the place of the site's distribution, or of a simulator.

    prior x p(site | given) p(all else | site, given)    ->    prior x q(site | given)

What the site is computed from beside what is given is its noise, which q has integrated out; it goes, and so does what only it
or the site is good for. That is the law of the program as long as nothing else needs them: `gone` says what goes, or raises.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import ppl
from ppl._errors import nearest
from ppl.choices import flatten, remove
from ppl.graph import descendants, parents
from ppl.interpreter import Interpreter, Record, activate, current

from .neural_posterior import Net

VALUES = ("choices", "observed", "values")  # what a run may record of the sites that it visits


def raw_numbers(net: Net, given: dict[str, Any], rows: tuple[str, ...]) -> Array:
    """Raw numbers of the law (size,); (n, size), where some of what is given has rows."""
    axes = {name: 0 if name in rows else None for name in given}
    return jax.vmap(net.raw, (axes,))(given) if any(name in rows for name in given) else net.raw(given)


def with_network(net: Net, rest: ppl.Program, lead: tuple[int, ...], *, site: str, given, rows, away):
    """A model: the program `rest`, in which the site and those that went are set, without these; then the site's law."""
    outer: Any = current()
    child = outer.child(rest.add_inputs(outer.inputs, outer.prefix), rest.add_rules(outer.rules))
    child.__class__ = _telling(type(child))
    with activate(child):
        rest.run()
    trees, away = child.record.trees, {site, *away}
    values: dict[str, Any] = {}
    for kind in VALUES:
        values |= flatten(trees.get(kind, {}))
    kept = {kind: remove(tree, away) for kind, tree in trees.items() if kind in outer.keeps or kind not in VALUES}
    outer.absorb(Record(kept, child.record.totals), remove(child.table, away))
    raw = raw_numbers(net, {name: values[name] for name in given}, rows)
    return ppl.sample(site, net.head.law(jnp.broadcast_to(raw, (*lead, raw.shape[-1]))))


@cache
def _telling(kind: Any) -> type[Interpreter]:
    """An interpreter of a kind that also records the values of all sites."""

    class Telling(kind):
        keeps = tuple(dict.fromkeys((*kind.keeps, *VALUES)))

    return Telling


def gone(program: ppl.Program, given: tuple[str, ...], site: str) -> tuple[str, ...]:
    """The noise of the site: what it is computed from beside what is given; and what is computed from the noise or the site.

    Raises ValueError where other sites need any of this: then the site's law would not be that of the program.
    """
    table, edges = program.sites(), parents(program)
    noise = {name for name in _above(edges, {site}, set(given)) if table[name].kind in ("latent", "observed")}
    own = {name for name in noise if table[name].kind == "latent"}
    others = [name for name, row in table.items() if row.kind in ("latent", "observed", "factor")]
    roots = {*given, *(name for name in others if name not in own and name != site)}
    kept = roots | _above(edges, roots)
    if site in kept:
        wrong = next(name for name in table if name in roots and name in descendants(program, {site}))
        raise ValueError(
            f"site '{wrong}' is computed from '{site}', but in a program with a network the site comes last. Train a network "
            "for each, and write a model that samples from net.given(...)."
        )
    shared = [name for name in table if name in noise and name in kept]
    if shared:
        raise ValueError(
            f"site '{site}' is computed from '{shared[0]}' too, which is data, or which others are computed from: its law "
            f"must be given that, given=({', '.join(repr(name) for name in (*given, shared[0]))})."
        )
    below = descendants(program, {*noise, site})
    return tuple(name for name in table if name in noise or (name in below and name not in kept and name != site))


def _above(edges: Mapping[str, set[str]], names: set[str], stop: Any = ()) -> set[str]:
    """What sites are computed from, through any number of others, but those where to `stop`."""
    found: set[str] = set()
    while names:
        names = set().union(*(edges[name] for name in names)) - found - set(stop)
        found |= names
    return found


def check_sites(program: Any, given: tuple[str, ...], site: str, who: str) -> None:
    """Raise ValueError, with a sentence, unless a network can say the law of the program's `site`, given those `given`."""
    if not isinstance(program, ppl.Program):
        raise ValueError(f"{who}: expected a program, got {type(program).__name__}. Call the model with its arguments.")
    table = program.sites()
    for name in (site, *given):
        kinds = ("latent", "deterministic") if name == site else ("latent", "deterministic", "observed")
        if name not in table:
            raise ValueError(f"{who}: the program has no site '{name}'.{nearest(name, table)}")
        if table[name].kind not in kinds or table[name].partial:
            raise ValueError(f"{who}: site '{name}' is {table[name].kind}; expected one that is {' or '.join(kinds)}.")
    if site in given or not given:
        raise ValueError(f"{who}: give the law of '{site}' one other site or more, given=(...), got {given}.")
    if site not in program.table():
        raise ValueError(f"{who}: site '{site}' lies in a nested program; train on that program by itself.")
