"""`ppl.cond` and `ppl.switch`: stochastic branches.

Sites of one name in several branches are one choice and must agree in shape. A site that only the branch not taken visits
has no density, and its value is a placeholder of zeros: choices keep one structure whatever branch runs.

Law: the density is that of the branch taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .. import distributions
from ..interpreter import Record, current
from ..site import SiteInfo, Table


def cond(pred: Any, true_fun: Callable, false_fun: Callable, *operands: Any) -> Any:
    """`jax.lax.cond` for branches that hold sites.

    Raises:
        ValueError: when a site has different shapes in the two branches.

    Example:
        `ppl.cond(z > 0, lambda: ppl.sample("y", dist.Normal(0.0, 1.0)), lambda: 0.0)`
    """
    if current() is None:
        return jax.lax.cond(pred, true_fun, false_fun, *operands)
    return switch(jnp.asarray(pred).astype(int), [false_fun, true_fun], *operands)


def switch(index: Any, branches: Sequence[Callable], *operands: Any) -> Any:
    """`jax.lax.switch` for branches that hold sites; `index` is clamped to the branches there are.

    Example:
        `ppl.switch(k, [slow, fast, still], x)`
    """
    parent = current()
    if parent is None:
        return jax.lax.switch(index, branches, *operands)
    bodies = [parent.pure(branch) for branch in branches]
    shapes = [jax.eval_shape(lambda i, a, body=body: body(i, a, {}), parent.inputs, operands) for body in bodies]
    _same_result([out for out, _ in shapes], branches)
    table = _join([body.table for body in bodies], parent.prefix)
    common = _union([record for _, record in shapes])

    def padded(body: Any) -> Callable:
        def run(inputs: Any, args: tuple) -> Any:
            out, record = body(inputs, args, {})
            return out, _pad(record, common)

        return run

    out, record = jax.lax.switch(index, [padded(body) for body in bodies], parent.inputs, operands)
    bodies[0].table = table
    bodies[0].absorb(record, "", None)
    return out


def _same_result(results: Sequence[Any], branches: Sequence[Callable]) -> None:
    """Raise unless all branches return the same structure of the same shapes (JAX promotes or explains the dtypes)."""
    forms = [(jax.tree.structure(result), [x.shape for x in jax.tree.leaves(result)]) for result in results]
    for form, result, branch in zip(forms, results, branches, strict=True):
        if form != forms[0]:
            names = [getattr(b, "__name__", type(b).__name__) for b in (branches[0], branch)]
            raise ValueError(
                "the branches of ppl.cond or ppl.switch must return values of the same structure and shapes, but "
                f"{names[0]} returns {_form(results[0])} and {names[1]} returns {_form(result)}."
            )


def _form(result: Any) -> str:
    return str(jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", result)).replace("'", "")


def _union(shapes: Sequence[Record]) -> Record:
    """The record that holds what any branch records."""

    def join(a: Any, b: Any) -> Any:
        if isinstance(a, dict) and isinstance(b, dict):
            return {k: join(a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in a | b}
        return jax.tree.map(lambda x, y: jax.ShapeDtypeStruct(x.shape, jnp.result_type(x, y)), a, b)

    trees: dict = {}
    totals: dict = {}
    for record in shapes:
        trees = join(trees, record.trees)
        totals = join(totals, record.totals)
    return Record(trees, totals)


def _pad(record: Record, common: Record) -> Record:
    def fill(like: Any, have: Any) -> Any:
        if isinstance(like, dict):
            have = have if isinstance(have, dict) else {}
            return {k: fill(like[k], have.get(k)) for k in like}
        if have is None:
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)
        return jax.tree.map(lambda s, x: jnp.asarray(x, s.dtype), like, have)

    return Record(fill(common.trees, record.trees), fill(common.totals, record.totals))


def _join(tables: Sequence[Table], prefix: str) -> Table:
    """Rows of all branches; a row is conditional unless every branch has it."""
    out: Table = {}
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table[name] for table in tables if name in table]
        groups = [row for row in found if isinstance(row, dict)]
        if groups and len(groups) < len(found):
            raise ValueError(
                f"site '{prefix}{name}' is a nested program in one branch of ppl.cond or ppl.switch and a single value in "
                "another. Give the sites different names."
            )
        if groups:
            out[name] = _join([table.get(name, {}) for table in tables], f"{prefix}{name}.")
        else:
            out[name] = _join_rows(found, f"{prefix}{name}", missing=len(found) < len(tables))
    return out


def _join_rows(rows: Sequence[SiteInfo], address: str, *, missing: bool) -> SiteInfo:
    """One row for a site that several branches visit: it is one choice, so what matters of it must agree."""
    first = rows[0]
    for row in rows[1:]:
        for what in ("shape", "kind", "discrete", "unconstrained"):
            if getattr(row, what) != getattr(first, what):
                raise ValueError(
                    f"site '{address}' has {_SAY[what]} {_value(first, what)} in one branch of ppl.cond or ppl.switch and "
                    f"{_value(row, what)} in another. Give the sites different names, or the same {_SAY[what]}."
                )
    row = first
    if not all(distributions.same_support(other.support, first.support) for other in rows):
        row = replace(row, support=None, support_name="by branch")
    if any(other.family != first.family for other in rows):
        row = replace(row, family=" | ".join(dict.fromkeys(other.family for other in rows)))
    return replace(row, conditional=missing or any(other.conditional for other in rows))


_SAY = {"shape": "shape", "kind": "kind", "discrete": "type", "unconstrained": "unconstrained shape"}


def _value(row: SiteInfo, what: str) -> Any:
    return {True: "discrete", False: "continuous"}[row.discrete] if what == "discrete" else getattr(row, what)
