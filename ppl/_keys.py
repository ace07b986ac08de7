"""Random keys folded by address: the noise of a site depends on its name and loop index, never on the order of sites.

Law: two sites of one program never share a key; replaying a program with the same key gives every site the same noise,
whatever else was added or removed (coupling, antithetics and counterfactuals need just that).
"""

import zlib

import jax
from jax import Array


def fold_name(key: Array, name: str) -> Array:
    """The key of the site called `name`. Stable across processes (crc32, unlike Python's salted `hash`)."""
    return jax.random.fold_in(key, name_hash(name))


def name_hash(name: str) -> int:
    """The number that stands for a name in keys; the interpreter refuses two names of one program that share it."""
    return zlib.crc32(name.encode())


def check_key(key: object, who: str) -> Array:
    """Return `key` if it is one typed key, else raise a ValueError that says how to make one."""
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
