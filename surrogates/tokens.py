"""Tokens: data as a set of vectors, the form in which a trunk knows them.

Sites of which there is one value a row (a covariate and its response, a series) make one token a row, of all their values
together; every other site makes one token of its own. Rows have no order: where it matters, its number is a site.

```python
reader = Reader.of(rows, wholes, width=64, key=key)
tokens, there = reader({"x": x, "y": y, "sigma": sigma})        # (n + 1, 64), (n + 1,)
```
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl.site import SiteInfo

from .columns import Columns
from .trunk import MLP, Linear


class Reader(eqx.Module):
    """See the file's docstring. `rows` is None where no site has rows."""

    rows: Columns | None
    wholes: tuple[Columns, ...]
    embed: tuple[MLP, ...]  # of rows first, then of each whole

    @staticmethod
    def of(rows: Columns | None, wholes: tuple[Columns, ...], *, width: int, key: Array) -> "Reader":
        """Networks of one hidden layer, from the numbers of a row or a site to a token."""
        sizes = [columns.size for columns in ((rows,) if rows else ()) + wholes]
        keys = jax.random.split(key, max(len(sizes), 1))
        make = jax.jit(lambda keys: tuple(MLP.of(k, size, width, width) for k, size in zip(keys, sizes, strict=False)))
        return Reader(rows, wholes, make(keys))

    @staticmethod
    def for_sites(
        table: Mapping[str, SiteInfo], told: tuple[str, ...], rows: tuple[str, ...], draws: Any, *, width: int, key: Array
    ) -> "Reader":
        """Of the sites `told`, `rows` of them with rows; their data look like `draws`, leaves (S, *shape)."""
        of_rows = Columns.of({name: table[name] for name in rows}, draws, axes=1) if rows else None
        wholes = tuple(Columns.of({name: table[name]}, draws) for name in told if name not in rows)
        return Reader.of(of_rows, wholes, width=width, key=key)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites that are read."""
        return sum((columns.names for columns in self.wholes), self.rows.names if self.rows else ())

    def __call__(self, data: Mapping[str, Any], known: Array | None = None) -> tuple[Array, Array]:
        """Tokens (n, width) of data by address, and which of them are there (n,); `known` (rows,) says which rows are."""
        parts, there, embed = [], [], list(self.embed)
        if self.rows is not None:
            numbers = self.rows(data, axes=1)
            parts.append(embed.pop(0)(numbers))
            there.append(jnp.ones(len(numbers), bool) if known is None else known)
        for columns, network in zip(self.wholes, embed, strict=True):
            parts.append(network(columns(data))[None])
            there.append(jnp.ones(1, bool))
        return jnp.concatenate(parts), jnp.concatenate(there)


class Seeds(eqx.Module):
    """Tokens that ask, the same for all data: (num, width), learned."""

    tokens: Array

    @staticmethod
    def of(num: int, width: int, *, key: Array) -> "Seeds":
        return Seeds(jax.random.normal(key, (num, width), jnp.float32))


class Writer(eqx.Module):
    """From the tokens that were asked to the raw numbers of one law, by all of them together."""

    linear: Linear
    start: Array

    @staticmethod
    def of(num: int, width: int, start: Array, *, key: Array) -> "Writer":
        """Begins as `start` (size,), whatever the tokens are."""
        return Writer(Linear.of(key, num * width, len(start), 0.0), jnp.asarray(start, jnp.float32))

    def __call__(self, tokens: Array) -> Array:
        return self.start + self.linear(jnp.ravel(tokens))
