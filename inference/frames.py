"""Draws as a data frame: one row a draw, columns `chain`, `draw`, and the scalars as ArviZ names them.

```python
posterior.to_pandas()                 # chain, draw, mu, tau, theta[0], theta[1], ...
posterior.to_polars("mu", "theta")    # those of some sites
```
"""

from typing import Any

import numpy as np

from ppl.choices import flatten

from .scalars import labels


def columns(posterior: Any, sites: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The columns of a frame by name, each (chain x draw,): of the sites `sites`, or of all."""
    chains, draws = posterior.shape
    out = {"chain": np.repeat(np.arange(chains), draws), "draw": np.tile(np.arange(draws), chains)}
    for site in sites or flatten(posterior.draws):
        values = np.asarray(posterior[site])
        table = values.reshape(chains * draws, -1)
        out.update(zip(labels(site, values.shape[2:]), table.T, strict=True))
    return out


def pandas(posterior: Any, sites: tuple[str, ...]):
    """A pandas DataFrame of `columns`."""
    from pandas import DataFrame

    return DataFrame(columns(posterior, sites))


def polars(posterior: Any, sites: tuple[str, ...]):
    """A polars DataFrame of `columns`."""
    try:
        from polars import DataFrame  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("to_polars needs polars, which is not installed: pip install polars.") from None
    return DataFrame(columns(posterior, sites))
