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

from ..choices import flatten
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
    shapes = [jax.eval_shape(lambda i, a, body=body: body(i, a, {}), parent.inputs, operands)[1] for body in bodies]
    common = _union(shapes, [body.table for body in bodies], parent.prefix)

    def padded(body: Any) -> Callable:
        def run(inputs: Any, args: tuple) -> Any:
            out, record = body(inputs, args, {})
            return out, _pad(record, common)

        return run

    out, record = jax.lax.switch(index, [padded(body) for body in bodies], parent.inputs, operands)
    bodies[0].table = _join([body.table for body in bodies])
    bodies[0].absorb(record, "", None)
    return out


def _union(shapes: Sequence[Record], tables: Sequence[Table], prefix: str) -> Record:
    """The record that holds what any branch records; values of one site must have one shape."""
    rows: dict[str, SiteInfo] = {}
    for table in tables:
        for address, row in flatten(table).items():
            first = rows.setdefault(address, row)
            if first.shape != row.shape:
                raise ValueError(
                    f"site '{prefix}{address}' has shape {first.shape} in one branch of ppl.cond or ppl.switch and "
                    f"{row.shape} in another. Give the sites different names, or the same shape."
                )

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


def _join(tables: Sequence[Table]) -> Table:
    """Rows of all branches; a row is conditional unless every branch has it."""

    def join(parts: Sequence[Any]) -> Any:
        found = [p for p in parts if p is not None]
        if all(isinstance(p, dict) for p in found):
            names = list(dict.fromkeys(name for p in found for name in p))
            return {n: join([p.get(n) if p is not None else None for p in parts]) for n in names}
        row = found[0]
        conditional = len(found) < len(parts) or any(p.conditional for p in found)
        return replace(row, conditional=conditional)

    return join(list(tables))
