"""Columns: named values as standardised numbers, the form in which networks read them.

A value is carried to unconstrained reals by its site's support (logs of positive numbers, logits of shares), a choice among a
few whole numbers to a one for each of them; then shifted and scaled by what draws of the program look like. Numbers of an
interval, such as places, stay as they are: logits of its ends, where people look, would be far from all that was ever seen.

```python
columns = Columns.of({"x": row, "y": row}, {"x": xs, "y": ys}, axes=1)     # rows of program.sites(), draws (S, n, ...)
columns({"x": x, "y": y}, axes=1)                                          # (n, columns.size)
```
What is far out is drawn in, logarithmically: so a heavy tail is seen, and does not drown the rest. What is missing (the masked
entries of a `ppl` data set, NaN) is read as the middle, and beside the numbers of every site stands whether it was there.
"""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from inference.fixed import Fixed
from ppl.choices import Partial
from ppl.distributions import bijector, integer_bounds, support_name
from ppl.site import SiteInfo

from .heads.supported import Still

FEW = 32  # whole numbers that get a column each
FAR = 3.0  # standard deviations, from where on numbers are drawn in
MOST = 1e4  # no number is farther out than so many, infinite ones too


class Column(eqx.Module):
    """How the values of one site are read."""

    name: str = eqx.field(static=True)
    support: Still | None = eqx.field(static=True)  # of continuous values; None: as they are
    few: tuple[int, int] | None = eqx.field(static=True)  # the least of few whole numbers, and how many there are

    @staticmethod
    def of(name: str, row: SiteInfo) -> "Column":
        """For the values of a site, by its row of `program.sites()`."""
        few = None if row.support is None else integer_bounds(row.support)
        if few is not None and np.ndim(few[0]) == np.ndim(few[1]) == 0 and 2 <= few[1] - few[0] < FEW:
            return Column(name, None, (int(few[0]), int(few[1] - few[0]) + 1))
        if row.support is None or row.discrete or support_name(row.support) == "interval":
            return Column(name, None, None)
        return Column(name, Still(row.support), None)

    def __call__(self, value: Any, axes: int) -> tuple[Array, Array]:
        """Numbers (*leading, k), NaN where there is none, and whether there is (*leading, 1); `axes` lead."""
        known = value.known if isinstance(value, Partial) else True
        value = jnp.asarray(value.value if isinstance(value, Partial) else value)
        lead, num = value.shape[:axes], math.prod(value.shape[axes:])
        known = jnp.broadcast_to(known, value.shape) & ~jnp.isnan(value.astype(float))
        known = jnp.all(jnp.reshape(known, (*lead, num)), -1, keepdims=True)
        if self.few is not None:
            numbers = (value.astype(int)[..., None] - self.few[0] == jnp.arange(self.few[1])).astype(float)
        elif self.support is not None:
            numbers = jnp.asarray(bijector(self.support.support).inv(value))
        else:
            numbers = value.astype(float)
        numbers = jnp.reshape(numbers, (*lead, math.prod(numbers.shape[axes:])))
        return jnp.where(known, numbers, jnp.nan), known


class Columns(eqx.Module):
    """See the file's docstring. `size` is how many numbers a row is read as."""

    columns: tuple[Column, ...]
    middle: Fixed  # (numbers,)
    spread: Fixed

    @staticmethod
    def of(rows: Mapping[str, SiteInfo], draws: Mapping[str, Any], axes: int = 0) -> "Columns":
        """For the values of these sites, which look like `draws`: leaves (S, *shape of a value), after `axes` axes of rows.

        The middle is the median, the spread half of what holds two thirds of the draws.
        """
        columns = tuple(Column.of(name, row) for name, row in rows.items())
        read = [np.asarray(column(draws[column.name], 1 + axes)[0], np.float64) for column in columns]
        numbers = np.concatenate([x.reshape(-1, x.shape[-1]) for x in read], -1)
        numbers = np.clip(numbers, -np.finfo(np.float32).max, np.finfo(np.float32).max)
        low, middle, high = np.nanquantile(numbers, [0.16, 0.5, 0.84], axis=0)
        spread = 0.5 * (high - low)
        few = spread < 1e-6 * np.nanstd(numbers, axis=0)  # most draws are the same
        middle, spread = np.where(few, np.nanmean(numbers, 0), middle), np.where(few, np.nanstd(numbers, 0), spread)
        spread = np.where(spread > 0.0, spread, 1.0)
        return Columns(columns, Fixed(jnp.asarray(middle, jnp.float32)), Fixed(jnp.asarray(spread, jnp.float32)))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites that are read, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def size(self) -> int:
        """How many numbers a row is read as."""
        return len(self.middle.value) + len(self.columns)

    def __call__(self, values: Mapping[str, Any], axes: int = 0) -> Array:
        """The numbers (*rows, size) of values whose first `axes` axes are rows, float32."""
        read = [column(values[column.name], axes) for column in self.columns]
        numbers = jnp.concatenate([x for x, _ in read], -1).astype(jnp.float32)
        there = jnp.concatenate([jnp.broadcast_to(known, (*known.shape[:-1], 1)) for _, known in read], -1)
        standard = jnp.clip((numbers - self.middle.value) / self.spread.value, -MOST, MOST)
        standard = jnp.where(jnp.isnan(numbers), 0.0, FAR * jnp.arcsinh(standard / FAR))
        return jnp.concatenate([standard, there.astype(jnp.float32)], -1)
