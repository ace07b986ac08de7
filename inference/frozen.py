"""States and records of lanes as named arrays, for files; and back.

```python
arrays = frozen(states)                # {"0/0": the first leaf of lane 0, "0/1": ...}
states = thawed(arrays, like, lanes)   # `like`: a state of the same structure and dtypes
arrays = joined(records)
record = part(arrays, like, lane=0)
```
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def frozen(states) -> dict[str, np.ndarray]:
    """The leaves of every lane's state; typed keys as words and the name of their kind."""
    out = {}
    for lane, state in enumerate(states):
        for i, x in enumerate(jax.tree.leaves(state)):
            out[f"{lane}/{i}"] = plain(x)
            if _is_key(x):
                out[f"{lane}/{i}/key"] = np.array(str(jax.random.key_impl(x)))
    return out


def thawed(arrays: Mapping[str, np.ndarray], like, lanes: int) -> list[Any]:
    """The states of so many lanes."""
    leaves, structure = jax.tree.flatten(like)

    def leaf(name: str, dtype):
        if f"{name}/key" in arrays:
            return jax.random.wrap_key_data(jnp.asarray(arrays[name]), impl=str(arrays[f"{name}/key"]))
        return arrays[name].view(dtype)  # NumPy's files forget the names of dtypes such as bfloat16

    return [
        jax.tree.unflatten(structure, [leaf(f"{lane}/{i}", x.dtype) for i, x in enumerate(leaves)]) for lane in range(lanes)
    ]


def joined(records) -> dict[str, np.ndarray]:
    """The leaves of every lane's chunks, joined; nothing of a lane that has none."""
    out = {}
    for lane, parts in enumerate(records):
        if parts:
            whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *parts)
            out.update({f"{lane}/{i}": x for i, x in enumerate(jax.tree.leaves(whole))})
    return out


def part(arrays: Mapping[str, np.ndarray], like, lane: int) -> Any:
    """What `joined` made of a lane's chunks; None if it had none."""
    if f"{lane}/0" not in arrays:
        return None
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, [arrays[f"{lane}/{i}"] for i in range(len(leaves))])


def plain(x) -> np.ndarray:
    """An array as NumPy has it; a typed key as its words."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def _is_key(x) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
