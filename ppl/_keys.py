"""Random keys folded by address: the noise of a site depends on its name and loop index, never on the order of sites.

Law: two sites of one program never share a key; replaying a program with the same key gives every site the same noise,
whatever else was added or removed (coupling, antithetics and counterfactuals need just that).
"""

import zlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax import Array


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["axis", "size"])
@dataclass(frozen=True)
class Shared:
    """One key for `size` runs side by side, under a `jax.vmap` whose axis is called `axis`; each has noise of its own.

    Noise for all runs is drawn at once, which for many small runs (particles) is several times as fast as a key for each.
    """

    key: Array
    axis: str
    size: int

    def own(self) -> Array:
        """A key for this run alone."""
        return jax.random.fold_in(self.key, jax.lax.axis_index(self.axis))

    def mine(self, draws: Array) -> Array:
        """Of draws for all runs (size, ...), the one of this run."""
        return draws[jax.lax.axis_index(self.axis)]


Key = Array | Shared


def fold(key: Any, data: Any) -> Any:
    """`jax.random.fold_in`, for shared keys too."""
    return replace(key, key=jax.random.fold_in(key.key, data)) if isinstance(key, Shared) else jax.random.fold_in(key, data)


def fold_name(key: Any, name: str) -> Any:
    """The key of the site called `name`. Stable across processes (crc32, unlike Python's salted `hash`)."""
    return fold(key, name_hash(name))


def name_hash(name: str) -> int:
    """The number that stands for a name in keys; the interpreter refuses two names of one program that share it."""
    return zlib.crc32(name.encode())


def check_key(key: Any, who: str) -> Any:
    """Return `key` if it is one typed key, else raise a ValueError that says how to make one."""
    if isinstance(key, Shared):
        return key
    if not isinstance(key, jax.Array) or not jax.numpy.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"{who} needs a typed random key such as jax.random.key(0), but got {_what(key)}.")
    if key.shape != ():
        raise ValueError(
            f"{who} needs one random key, but got an array of keys of shape {key.shape}. "
            "Map over it with jax.vmap, or pass one of them."
        )
    return key


def _what(x: object) -> str:
    if isinstance(x, jax.Array):
        return f"an array of dtype {x.dtype} and shape {x.shape}"
    return f"{type(x).__name__} {x!r}"
