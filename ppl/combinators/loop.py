"""`ppl.scan` and `ppl.fori_loop`: Markov chains and other loops. Sites of the body gain a leading time axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..distributions import is_traced
from ..interpreter import current


def scan(
    f: Callable, init: Any, xs: Any = None, length: int | None = None, *, reverse: bool = False, unroll: int | bool = 1
) -> tuple[Any, Any]:
    """`jax.lax.scan` for a body that holds sites: `f(carry, x) -> (carry, y)`.

    Sites in `f` keep one name; element t of their values belongs to element t of `xs`, also with `reverse=True`.

    Law: the density is the product over steps; step t of a simulation uses the key folded by t.

    Example:
        `ppl.scan(lambda z, _: (ppl.sample("z", dist.Normal(z, 1.0)),) * 2, 0.0, length=100)`
    """
    parent = current()
    if parent is None:
        return jax.lax.scan(f, init, xs, length, reverse=reverse, unroll=unroll)
    return parent.scan(f, init, xs, _length(xs, length), reverse=reverse, unroll=unroll)


def fori_loop(lower: int, upper: int, body_fun: Callable, init_val: Any) -> Any:
    """`jax.lax.fori_loop` for a body that holds sites: `body_fun(i, value) -> value`, with Python-integer bounds.

    Raises:
        ValueError: inside a model, when a bound is not a Python integer (the number of sites must be known).

    Example:
        `ppl.fori_loop(0, 3, lambda i, x: x + ppl.sample("step", dist.Normal(0.0, 1.0)), 0.0)`
    """
    if current() is None:
        return jax.lax.fori_loop(lower, upper, body_fun, init_val)
    if is_traced(lower) or is_traced(upper):
        raise ValueError(
            "ppl.fori_loop inside a model needs bounds that are Python integers, for they say how many choices there are. "
            "Run to a fixed bound, and leave out the rest with ppl.cond or jnp.where."
        )
    carry, _ = scan(lambda value, i: (body_fun(i, value), None), init_val, jnp.arange(int(lower), int(upper)))
    return carry


def _length(xs: Any, length: int | None) -> int:
    if any(jnp.ndim(x) == 0 for x in jax.tree.leaves(xs)):
        raise ValueError("ppl.scan walks along the leading axis of every array in `xs`, but one of them is a scalar.")
    sizes = {jnp.shape(x)[0] for x in jax.tree.leaves(xs)} | ({int(length)} if length is not None else set())
    if len(sizes) != 1:
        raise ValueError(
            f"ppl.scan needs one length, from `length` or the leading axes of `xs`, but found {sorted(sizes) or 'none'}."
        )
    return sizes.pop()
