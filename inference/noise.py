"""Noise for kernels: from a key of a chain's own, or of one key that chains side by side share.

```python
key_move, key_accept = noise.split(key)
normal = noise.normal(key_move, position.shape, position.dtype)
```
Under `jax.vmap` a key for each chain is made and used by itself; with a shared key the noise of all chains is drawn at once,
and each takes its row. For a thousand particles and a cheap density that is a third of a move's time. A kernel that draws by
these functions alone says so: `shares`.
"""

from dataclasses import replace

import jax
from jax import Array

from ppl._keys import Key, Shared


def split(key: Key, num: int = 2) -> list[Key]:
    """`num` keys, as `jax.random.split`."""
    if isinstance(key, Shared):
        return [replace(key, key=one) for one in jax.random.split(key.key, num)]
    return list(jax.random.split(key, num))


def normal(key: Key, shape: tuple[int, ...], dtype) -> Array:
    """Standard normal, of this shape for each chain."""
    return _drawn(jax.random.normal, key, shape, dtype)


def exponential(key: Key, shape: tuple[int, ...], dtype) -> Array:
    """Exponential of rate 1, of this shape for each chain."""
    return _drawn(jax.random.exponential, key, shape, dtype)


def _drawn(draw, key: Key, shape: tuple[int, ...], dtype) -> Array:
    return key.mine(draw(key.key, (key.size, *shape), dtype)) if isinstance(key, Shared) else draw(key, shape, dtype)
