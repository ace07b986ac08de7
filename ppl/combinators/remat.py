"""`ppl.remat`: recompute a part of a program in the backward pass instead of storing it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax

from ..interpreter import current


def remat(fun: Callable, *, policy: Any = None) -> Callable:
    """`jax.checkpoint` for a function that holds sites: less memory for gradients, a second forward pass.

    Law: values and densities are unchanged.

    Example:
        `ppl.scan(ppl.remat(step), 0.0, xs)`
    """

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        parent = current()
        if parent is None:
            return jax.checkpoint(fun, policy=policy)(*args, **kwargs)
        body = parent.pure(fun)
        out, record = jax.checkpoint(body, policy=policy)(parent.inputs, args, kwargs)
        body.absorb(record, "", None)
        return out

    return wrapped
