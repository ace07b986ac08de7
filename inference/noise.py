"""Noise for kernels: from a key of a chain's own, or of one key that chains side by side share.

```python
normal = noise.normal(key, position.shape, position.dtype)
```
Under `jax.vmap` a key for each chain is made and used by itself; with a shared key the noise of all chains is drawn at once,
and each takes its row. For a thousand particles and a cheap density that is a third of a move's time. A kernel that draws by
this function alone says so: `shares`.
"""

import jax
from jax import Array

from ppl._keys import Key, Shared


def normal(key: Key, shape: tuple[int, ...], dtype) -> Array:
    """Standard normal, of this shape for each chain."""
    if isinstance(key, Shared):
        return key.mine(jax.random.normal(key.key, (key.size, *shape), dtype))
    return jax.random.normal(key, shape, dtype)
