"""Noise for kernels: from a key of a chain's own, or of one key that chains side by side share.

```python
normal, exponential = noise.normal_and_exponential(key, position.size, position.dtype)
```
Under `jax.vmap` a key for each chain is made and used by itself; with a shared key the noise of all chains is drawn at once,
and each takes its row. For a thousand particles and a cheap density that is a third of a move's time. A kernel that draws by
these functions alone says so: `shares`.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from ppl._keys import Key, Shared


def normal_and_exponential(key: Key, dim: int, dtype) -> tuple[Array, Array]:
    """What a Metropolis step wants for each chain: standard normals (dim,) to propose, and an exponential of rate 1 to decide.

    Of one call of the generator, which is most of what such noise costs to compile. Both are quantiles of uniforms on (-1, 1).
    """
    least = -1.0 + float(jnp.finfo(dtype).epsneg)  # at -1 both are infinite
    if isinstance(key, Shared):
        uniforms = key.mine(jax.random.uniform(key.key, (key.size, dim + 1), dtype, least, 1.0))
    else:
        uniforms = jax.random.uniform(key, (dim + 1,), dtype, least, 1.0)
    return 2**0.5 * lax.erf_inv(uniforms[:-1]), -lax.log(0.5 * (1.0 + uniforms[-1]))


def common(key: Key) -> Array:
    """A key for what is drawn once for all chains side by side: where all take as many steps, none waits for another."""
    return key.key if isinstance(key, Shared) else key
