"""Speaker: whatever tells the next token, asked for all unfinished sentences at once.

```python
Stateful(next, first)             # a network with a state: next(state, token) returns log probabilities and the new state
Prefixes(fn, length=20)           # fn(tokens, num): a function of all that was said
OnHost(fn, length=20)             # fn(prefixes): outside JAX
```
A program speaks one sentence. Where many of them run side by side, under `vmap`, the speaker is asked once for all, so that
those which have ended can be left out.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap


class Speaker(eqx.Module):
    """The contract of whatever tells the next token. `first`: log probabilities (kinds,) of the first token, and a state.

    Log probabilities need not be normalised.
    """

    first: eqx.AbstractVar[tuple[jax.Array, Any]]

    @abc.abstractmethod
    def many(self, silent, states, tokens) -> tuple[jax.Array, Any]:
        """After each of (N,) tokens: log probabilities (N, kinds) of the next one, and the states. Those that are `silent`
        (N,) need no answer; whatever is returned for them is not used."""


class Stateful(Speaker):
    """A model with a state, such as a recurrent network's, or a transformer's keys and values.

    - `next`: `next(state, token)` returns log probabilities (kinds,) and the new state; a function, or a module with arrays.
    - `first`: the log probabilities of the first token, and the state before it.
    - `at_once`: how many sentences are evaluated together. Unfinished ones come first, and groups of finished ones are left
      out.

    Example:
        `Stateful(lambda hidden, token: gru(hidden, embed[token]), (log_probs, hidden))`
    """

    next: Callable
    first: tuple[jax.Array, Any]
    at_once: int = eqx.field(static=True, default=1024)

    def many(self, silent, states, tokens):
        return in_groups(self.next, self.at_once, silent, states, tokens, like=self.first)


class Prefixes(Speaker):
    """A model that looks at all that was said.

    - `fn`: `fn(tokens, num)` returns log probabilities (kinds,) of token number `num`, after the first `num` of `tokens`
      (length,); the others are zero.
    - `length`: how long sentences get at most. `at_once`: see `Stateful`.

    Example:
        `Prefixes(lambda tokens, num: transformer(tokens)[num], length=20)`
    """

    fn: Callable
    length: int = eqx.field(static=True)
    at_once: int = eqx.field(static=True, default=1024)

    @property
    def first(self):
        blank = jnp.zeros(self.length, jnp.int32)
        return self.fn(blank, jnp.int32(0)), (blank, jnp.int32(0))

    def many(self, silent, states, tokens):
        def one(state, token):
            said, num = written(state, token)
            return self.fn(said, num), (said, num)

        return in_groups(one, self.at_once, silent, states, tokens, like=self.first)


class OnHost(Speaker):
    """A model outside JAX.

    - `fn`: `fn(prefixes)` gets a list of integer arrays, the unfinished sentences, and returns log probabilities
      (len(prefixes), kinds), NumPy's or a list. It should be a pure function; it may well remember what it was asked.
    - `length`: how long sentences get at most.

    Raises:
        ValueError: when the answer is not of that shape.

    Example:
        `OnHost(lambda prefixes: np.stack([log_probs_after(p) for p in prefixes]), length=20)`
    """

    fn: Callable
    length: int = eqx.field(static=True)
    log_probs: jax.Array

    def __init__(self, fn: Callable, length: int) -> None:
        self.fn, self.length = fn, length
        self.log_probs = jnp.asarray(_asked(fn, [np.zeros(0, np.int32)], None)[0])

    @property
    def first(self):
        return self.log_probs, (jnp.zeros(self.length, jnp.int32), jnp.int32(0))

    def many(self, silent, states, tokens):
        said, num = jax.vmap(written)(states, tokens)
        shape = jax.ShapeDtypeStruct((len(tokens), *self.log_probs.shape), self.log_probs.dtype)

        def host(silent, said, num):
            silent, said, num = (np.asarray(x) for x in (silent, said, num))
            out = np.zeros(shape.shape, shape.dtype)
            if not silent.all():
                prefixes = [row[:n] for row, n in zip(said[~silent], num[~silent], strict=True)]
                out[~silent] = _asked(self.fn, prefixes, shape.shape[1])
            return out

        return jax.pure_callback(host, shape, silent, said, num, vmap_method="sequential"), (said, num)


def _asked(fn: Callable, prefixes: list, kinds: int | None) -> np.ndarray:
    found = np.asarray(fn(prefixes), float)
    if found.ndim != 2 or len(found) != len(prefixes) or kinds not in (None, found.shape[1]):
        raise ValueError(
            f"OnHost: the model was given {len(prefixes)} prefixes and returned shape {found.shape}; it should return log "
            f"probabilities of shape ({len(prefixes)}, {'kinds' if kinds is None else kinds}), one row a prefix."
        )
    return found


def written(state, token):
    """All that was said, (length,) and its number, with one token more."""
    said, num = state
    return said.at[num].set(token, mode="drop"), num + 1


def in_groups(next: Callable, at_once: int, silent, states, tokens, like):
    """`next` of each, the silent ones last, in groups of `at_once`; groups that are all silent are left out."""
    size = len(tokens)
    blank = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.result_type(x)), like)

    def group(part):
        silent, states, tokens = part
        new = jax.eval_shape(jax.vmap(next), states, tokens)

        def answer():
            return jax.vmap(next)(states, tokens)

        def nothing():
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), new)

        return lax.cond(jnp.all(silent), nothing, answer)

    if size <= at_once:
        found = group((silent, states, tokens))
    else:
        num = -(-size // at_once)
        order = jnp.argsort(silent, stable=True)
        padded = jnp.pad(order, (0, num * at_once - size), mode="edge")
        parts = jax.tree.map(lambda x: x[padded].reshape(num, at_once, *x.shape[1:]), (silent, states, tokens))
        back = jnp.argsort(order)
        found = jax.tree.map(lambda x: x.reshape(num * at_once, *x.shape[2:])[back], lax.map(group, parts))
    return jax.tree.map(lambda x, y: x.astype(y.dtype), found, blank)


def spoken(speaker: Speaker, silent, state, token) -> tuple[jax.Array, Any]:
    """One sentence's log probabilities and state after a token. Under `vmap` the speaker is asked once, for all of them."""
    arrays, rest = eqx.partition(speaker, eqx.is_array)

    def plain(arrays, *asked):
        return eqx.combine(arrays, rest).many(*asked)

    together = custom_vmap(plain)

    @together.def_vmap
    def _(size, batched, arrays, *asked):
        asked = jax.tree.map(lambda x, own: x if own else jnp.broadcast_to(x, (size, *x.shape)), asked, tuple(batched[1:]))
        if any(jax.tree.leaves(batched[0])):  # models that differ
            axes = jax.tree.map(lambda own: 0 if own else None, batched[0])
            found = jax.vmap(plain, (axes, 0, 0, 0))(arrays, *asked)
        else:
            inner = asked[0].shape[1]
            found = together(arrays, *jax.tree.map(lambda x: x.reshape(size * inner, *x.shape[2:]), asked))
            found = jax.tree.map(lambda x: x.reshape(size, inner, *x.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    found = together(arrays, *jax.tree.map(lambda x: jnp.asarray(x)[None], (silent, state, token)))
    log_probs, state = jax.tree.map(lambda x: x[0], found)
    first = jnp.shape(speaker.first[0])
    if log_probs.shape != first:
        raise ValueError(
            f"language_model: the speaker's log probabilities of the first token have shape {first}, but those of the next "
            f"{log_probs.shape}. They must be of the same tokens."
        )
    return log_probs, state
