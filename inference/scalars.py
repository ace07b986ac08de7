"""The scalars of a posterior, by the names that ArviZ gives them, read a few at a time.

```python
names(posterior.draws)                                   # ["mu", "theta[0]", "theta[1]", ...]
for some, table in tables(posterior.draws, picks):       # table (chain, draw, scalar), in double precision
```

Draws that lie on the disk (see `stream`) are read in blocks of draws, so memory is bounded by what is asked for.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ppl.choices import flatten

VALUES = 1 << 22  # numbers held at a time


def names(draws) -> list[str]:
    """The names of all scalars: `mu`, `theta[3]`, `L[0, 1]`."""
    return [label for site, x in flatten(draws).items() for label in labels(site, np.shape(x)[2:])]


def labels(site: str, shape: Sequence[int]) -> list[str]:
    """The names of the scalars of one site."""
    return [f"{site}[{', '.join(map(str, index))}]" if index else site for index in np.ndindex(*shape)]


def tables(draws, picks: np.ndarray, values: int = VALUES) -> Iterator[tuple[list[str], np.ndarray]]:
    """The scalars with the numbers `picks` (increasing, counted as `names` does), in tables of at most `values` numbers, or
    of one scalar: their names, and an array (chain, draw, scalar)."""
    first = 0
    for site, x in flatten(draws).items():
        chains, num, *shape = np.shape(x)
        own = picks[(picks >= first) & (picks < first + int(np.prod(shape)))] - first
        first += int(np.prod(shape))
        some = max(1, values // max(1, chains * num))
        own_labels = labels(site, shape) if len(own) else []
        for at in range(0, len(own), some):
            part = own[at : at + some]
            yield [own_labels[i] for i in part], _columns(x, part)


def _columns(x: Any, part) -> np.ndarray:
    """Some scalars of one site, (chain, draw, scalar)."""
    x = np.asarray(x) if isinstance(x, jax.Array) else x
    chains, num, *shape = np.shape(x)
    size = int(np.prod(shape))
    rows = max(1, VALUES // max(1, chains * size))
    blocks = [np.asarray(x[:, at : at + rows]).reshape(chains, -1, size)[..., part] for at in range(0, num, rows)]
    return np.concatenate(blocks, axis=1).astype(np.float64)
