"""`ppl.vmap`: independent repetition, the plate. Sites of the body gain a leading axis."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from ..interpreter import current


def vmap(fun: Callable, in_axes: Any = 0, out_axes: Any = 0, *, axis_size: int | None = None) -> Callable:
    """`jax.vmap` for functions that hold sites: each lane makes its own choices.

    Sites in `fun` keep one name; their values, data and choices have a leading axis, whatever `in_axes` says. With no
    mapped argument give `axis_size`.

    Law: the density is the product over lanes; lane i of a simulation uses the key folded by i.

    Example:
        `ppl.vmap(lambda s: ppl.sample("y", dist.Normal(mu, s)))(sigma)`
    """

    @wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        parent = current()
        if parent is None:
            return jax.vmap(fun, in_axes, out_axes, axis_size=axis_size)(*args, **kwargs)
        axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes  # as jax.vmap takes them
        probe = jax.vmap(wraps(fun)(lambda *a, **k: jnp.zeros(())), axes, axis_size=axis_size)
        length = jax.eval_shape(probe, *args, **kwargs).shape[0]
        body = parent.pure(fun)
        out, record = jax.vmap(body, (0, axes, 0), (out_axes, 0), axis_size=length)(parent.inputs.lanes(length), args, kwargs)
        body.absorb(record, "vmap", length)
        return out

    return mapped
