"""Table: an emulator of runs that somebody else made, such as the published design of a simulation campaign.

```python
emulator = tabulated((X, Y), key=key, names=("omega_m", "sigma_8"))      # X (n, d), Y (n,) or (n, *out)
emulator = tabulated(({"h": h, "k": k}, Y), key=key)                      # or a dictionary of columns (n, *shape)
print(emulator.report())
```
What it prints was measured on runs left out: errors, how many 95 % intervals hold the truth, the charts, the seconds.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .emulator import Emulator, Family
from .gaussian_process import GaussianProcess
from .runs import Runs


def tabulated(
    table: tuple[Any, Any], *, key: Array, names: tuple[str, ...] | None = None, family: Family | None = None
) -> Emulator:
    """The emulator of a table of inputs and outputs.

    - `table`: inputs (n, d), one column per argument, or a dictionary of columns (n, *shape), one argument each; and outputs
      (n, *out). A row with an output that is not finite is a failed run.
    - `names`: of the columns. `family`: what kind of emulator; a Gaussian process by default.

    Raises:
        ValueError: for arrays that do not fit one another, and a key that is none.

    Example:
        `tabulated((X, Y), key=jax.random.key(0))(0.3, 0.7)`
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError("emulate: key must be a typed key, for example jax.random.key(0).")
    return (GaussianProcess() if family is None else family).fit(key, runs_of(table, names))


def runs_of(table: tuple[Any, Any], names: tuple[str, ...] | None = None) -> Runs:
    """The runs of a table, as `tabulated` takes it."""
    if not isinstance(table, tuple | list) or len(table) != 2:
        raise ValueError(f"emulate: expected a table as a pair of inputs and outputs, got {type(table).__name__}.")
    x, y = table
    if not isinstance(x, Mapping):
        return Runs.of(x, y, names=names)
    if names is not None:
        raise ValueError("emulate: a dictionary of columns has its own names. Leave out names=.")
    parts = {name: np.asarray(column, np.float64) for name, column in x.items()}
    num = {name: part.shape[:1] for name, part in parts.items()}
    if len(set(num.values())) != 1 or () in num.values():
        raise ValueError(f"emulate: all columns must have a row for each run, got {num}.")
    rows = np.concatenate([part.reshape(len(part), -1) for part in parts.values()], -1)
    return Runs.of(rows, y, names=tuple(parts), shapes=tuple(part.shape[1:] for part in parts.values()))
