"""The graph of a program: who is computed from whom, read off the jaxpr, and drawn as Mermaid text.

A program is traced once with every site's value as an input and every site's parameters as an output; an edge a -> b means
that the parameters of b depend on the value of a. The walk follows `scan`, `cond` and calls precisely, and takes any other
loop to mix all its inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .choices import flatten, paths
from .interpreters import Relate
from .site import SiteInfo

Edges = dict[str, set[str]]


def parents(program: Any) -> Edges:
    """For every site the sites its distribution (or value) is computed from.

    Example:
        `parents(eight_schools(sigma))["theta"] == {"mu", "tau"}`
    """
    from .checks import place

    rows = {".".join(path): row for path, row in paths(program.table())}
    free, fixed = {"latent", "deterministic"}, {"intervened"}
    inputs = {a: jax.ShapeDtypeStruct(r.shape, r.dtype) for a, r in rows.items() if r.kind in free | fixed}

    def look(values: dict[str, Any], data: Any) -> Any:
        given = place(program.table(), {a: v for a, v in values.items() if rows[a].kind in free}, "the graph", free)
        do = place(program.table(), {a: v for a, v in values.items() if rows[a].kind in fixed}, "the graph", fixed)
        interpreter, _ = program._with(data=data, do=do).interpret(Relate, given=given)
        return flatten(interpreter.record.trees.get("parameters", {}))

    data = flatten(program._data)
    closed, out = jax.make_jaxpr(lambda v, d: look(v, d), return_shape=True)(inputs, program._data)
    names = sorted(inputs)  # jax flattens dicts in sorted order
    sources: list[set[str]] = [{n} for n in names]
    for leaf_path, _ in jax.tree_util.tree_leaves_with_path(program._data):
        sources.append({_address(leaf_path, data)})
    sinks = flow(closed.jaxpr, sources)
    found = dict(zip(sorted(out), sinks, strict=True))
    return {name: found.get(name, set()) for name in rows}


def depends(fn: Callable[[dict[str, Any]], Any], inputs: dict[str, Any]) -> Any:
    """For every array of the tree `fn(inputs)` the names of the inputs that it is computed from."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(inputs)
    found = flow(closed.jaxpr, [{name} for name in sorted(inputs)])  # jax flattens dicts in sorted order
    return jax.tree.unflatten(jax.tree.structure(out), found)


def descendants(program: Any, roots: set[str]) -> set[str]:
    """Every site that is computed from one of `roots`, through any number of others."""
    edges, found, new = parents(program), set(), set(roots)
    while new:
        new = {name for name, above in edges.items() if above & new} - found
        found |= new
    return found


def _address(path: tuple, data: Any) -> str:
    keys = [k.key for k in path if hasattr(k, "key")]
    return ".".join(keys)


def flow(jaxpr: Any, sources: Sequence[set[str]]) -> list[set[str]]:
    """Which inputs each output of a jaxpr depends on."""
    depends: dict[Any, set[str]] = dict(zip(jaxpr.invars, sources, strict=True))

    def of(atom: Any) -> set[str]:
        return set() if hasattr(atom, "val") else depends.get(atom, set())

    for eqn in jaxpr.eqns:
        for var, found in zip(eqn.outvars, _through(eqn, [of(a) for a in eqn.invars]), strict=True):
            depends[var] = found
    return [of(a) for a in jaxpr.outvars]


def _through(eqn: Any, ins: list[set[str]]) -> list[set[str]]:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return _through_scan(eqn, ins)
    if name == "cond":
        outs = [flow(branch.jaxpr, ins[1:]) for branch in params["branches"]]
        return [set.union(ins[0], *found) for found in zip(*outs, strict=True)]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if name != "while" and inner is not None and len(inner.invars) == len(ins):
            return flow(inner, ins)
    everything = set().union(*ins)
    return [everything for _ in eqn.outvars]


def _through_scan(eqn: Any, ins: list[set[str]]) -> list[set[str]]:
    jaxpr = eqn.params["jaxpr"]
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    # the inputs are constants, carry, slices; the outputs carry, slices. Slices lack an axis inside: so they are told apart
    # without the parameters of the primitive, which are JAX's own affair and change
    carry = sum(_same_rank(pair) for pair in zip(eqn.outvars, jaxpr.outvars, strict=True))
    consts = sum(_same_rank(pair) for pair in zip(eqn.invars, jaxpr.invars, strict=True)) - carry
    state = list(ins)
    while True:  # a carry feeds the next step, so what it depends on grows until it is stable
        outs = flow(jaxpr, state)
        grown = [a | b for a, b in zip(state[consts : consts + carry], outs[:carry], strict=True)]
        if grown == state[consts : consts + carry]:
            return outs
        state[consts : consts + carry] = grown


def _same_rank(pair: tuple[Any, Any]) -> bool:
    outer, inner = pair
    return len(outer.aval.shape) == len(inner.aval.shape)


def mermaid(program: Any) -> str:
    """Mermaid flowchart text: latent sites round, observed filled, deterministic dashed, plates as boxes."""
    rows, edges = program.sites(), parents(program)
    rows = {name: row for name, row in rows.items() if row.kind != "call"}
    ids = {name: f"s{i}" for i, name in enumerate(rows)}
    lines = ["flowchart TD"]
    tree: dict = {}
    for name, row in rows.items():
        node = tree
        for plate in row.plates:
            node = node.setdefault(("plate", plate), {})
        node[name] = row
    counter = iter(range(10_000))

    def emit(node: dict, indent: str) -> None:
        for key, value in node.items():
            if isinstance(value, SiteInfo):
                lines.append(indent + _node(ids[key], key, value))
            else:
                label = key[1].replace("[", " × ").rstrip("]")
                lines.append(f'{indent}subgraph p{next(counter)}["{label}"]')
                emit(value, indent + "  ")
                lines.append(f"{indent}end")

    emit(tree, "  ")
    lines += [f"  {ids[a]} --> {ids[b]}" for b in rows for a in sorted(edges.get(b, ())) if a in ids]
    styles = {
        "observed": "fill:#cfd8dc,stroke:#37474f",
        "deterministic": "stroke-dasharray:4 3",
        "intervened": "stroke-width:3px",
    }
    for kind, style in styles.items():
        members = [ids[name] for name, row in rows.items() if row.kind == kind]
        if members:
            lines += [f"  classDef {kind} {style}", f"  class {','.join(members)} {kind}"]
    return "\n".join(lines)


def _node(ident: str, name: str, row: SiteInfo) -> str:
    if row.kind == "factor":
        return f'{ident}["{name}"]'
    text = f"{name}<br/><i>{row.family}</i>" if row.family else name
    return f'{ident}(["{text}"])' if row.kind != "deterministic" else f'{ident}["{text}"]'
