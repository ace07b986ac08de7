"""A chunk of a chain: `num` transitions in one compiled call, with what they recorded.

The number of transitions is an argument and the buffer has a fixed length, so warm-up, sampling and the last, shorter
chunk share one compiled program. Step i of chain c uses key fold_in(fold_in(key, c), i): chunk sizes and placements do
not change the draws.
"""

import jax
import jax.numpy as jnp
from jax import lax

BUFFER_VALUES = 4_000_000  # the buffer of a chunk holds at most this many numbers, or one draw of each chain


def buffer_length(dim: int, chains: int) -> int:
    """How many draws of `dim` numbers a chunk of a lane of `chains` can hold, for each of them."""
    return max(1, min(512, BUFFER_VALUES // (chains * (dim + 8))))


def chunk(kernel, target, state, key, chain, start, num, *, length: int):
    """Steps `start` to `start + num` of a chain; returns its state and (positions, info), `length` rows of which the
    first `num` are filled."""

    chain_key = jax.random.fold_in(key, chain)

    @jax.jit  # so that tracing for the shapes of `info` and tracing for the loop are one and the same
    def step(state, i):
        state, info = kernel.step(jax.random.fold_in(chain_key, i), state, target)
        return kernel.learn(i, state, info), info

    def body(j, carry):
        state, buffer = carry
        state, info = step(state, start + j)
        return state, jax.tree.map(lambda rows, row: rows.at[j].set(row), buffer, (state.position, info))

    _, info = jax.eval_shape(step, state, start)
    buffer = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), (state.position, info))
    return lax.fori_loop(jnp.zeros_like(num), num, body, (state, buffer))
