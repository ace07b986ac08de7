"""What makes two runs the same run: everything that the draws depend on, told by values and by compiled text.

A model or a kernel is the same when it computes the same: JAX's lowering of it is compared, not its source. So a comment
may change, and a constant inside a model or a helper function may not. What the text does not show is the inside of
functions that run on the host (`jax.pure_callback`).
"""

import hashlib
import re
from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..frozen import plain
from ..kernel import CHAINS


def opened(store, kernel, target, init, placement, key, lanes, rule, warmup: int, draws: int):
    """A context with the store opened for this run; with None where there is no store.

    Raises:
        ValueError: when the store holds another run, or cannot be used.
    """
    if store is None:
        return nullcontext()
    move = _move(kernel, target, init, key, len(lanes[0]))
    (state, (position, _)) = like = move.out_info
    identity = {
        "key": f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}",
        "number of chains": str(sum(map(len, lanes))),
        "length of warm-up": str(rule),
        "precision": str(position.dtype),
        "placement": f"{type(placement).__name__}, {len(lanes)} lanes",
        "JAX": f"{jax.__version__} on {jax.devices()[0].device_kind}",
        "data": values(jax.tree.leaves(target)),
        "model": digest(_density(target), repr(target.slots)),
        "choice of first positions": values(init),
        "kernel": values(kernel),
        "kernel's code": digest(move.lower().as_text(), str(jax.tree.structure(state))),
    }
    return store.open(identity, like, len(lanes), warmup, draws)


def _density(target) -> str:
    """The text of the target's log density; data are its arguments."""
    arrays, rest = eqx.partition(target, eqx.is_array)
    density = jax.jit(lambda arrays, position: eqx.combine(arrays, rest).log_density(position))
    return density.lower(arrays, jnp.zeros(target.dim)).as_text()


def _move(kernel, target, init, key, chains: int):
    """A chain's beginning and first step, traced: (state, record), with the record as `chunk` has it. Of a kernel that looks
    at the other chains, those of all."""
    arrays, rest = eqx.partition((kernel, target, init), eqx.is_array)

    def move(arrays, key):
        kernel, target, init = eqx.combine(arrays, rest)
        state = kernel.init(key, target, init.position(key, target))
        state, info = kernel.step(key, state, target)
        return kernel.learn(jnp.int32(1), state, info), (state.position, info)

    if kernel.together:
        together = jax.vmap(move, in_axes=(None, 0), axis_name=CHAINS)
        return jax.jit(lambda arrays, key: together(arrays, jax.random.split(key, chains))).trace(arrays, key)
    return jax.jit(move).trace(arrays, key)


def values(tree) -> str:
    """A digest of a pytree's structure and of the value of every leaf: the same in every process."""
    leaves, structure = jax.tree.flatten(tree)
    parts: list[Any] = [str(structure)]
    for x in leaves:
        if eqx.is_array_like(x):
            x = plain(x)
            parts += [f"{x.dtype}{x.shape}", x.tobytes()]
        else:
            parts.append(repr(x))
    return digest(*parts)


def digest(*parts: str | bytes) -> str:
    """A digest of texts, in which functions are named, not addressed: addresses change from process to process."""
    total = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else re.sub(r" at 0x[0-9a-f]+", "", part).encode()
        total.update(b"%d:" % len(part) + part)
    return "sha256:" + total.hexdigest()
