"""Runs: what a costly function returned, in arrays that have room for more.

```python
runs = Runs.of(x, y, names=("i0", "D"))          # x (n, d), y (n, *out)
runs = runs.room(64).add(more_x, more_y)         # 64 rows, of which runs.here says which are runs
args = runs.unpack(runs.x[0]); x = runs.pack(*args)
```
A row of x is the arguments of a call, flattened one after the other; `shapes` says how they are cut up again. Rows that are
not `here` have outputs of zeros: room that is still empty, or runs that failed, which `tried` tells apart. With room, a fit
after more runs has arrays of the same shapes, and nothing is compiled anew.

Law: unpack(pack(*args)) = args, and no row that is not `here` has any influence on what is fitted.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

Shapes = tuple[tuple[int, ...], ...]


def pack(shapes: Shapes, *args: Any) -> Array:
    """Arguments of these shapes as one row (d,).

    Raises:
        ValueError: for another number of arguments, or other shapes.
    """
    found = tuple(jnp.shape(a) for a in args)
    if found != shapes:
        raise ValueError(f"emulate: expected arguments of the shapes {list(shapes)}, as in the runs, got {list(found)}.")
    return jnp.concatenate([jnp.ravel(jnp.asarray(a, float)) for a in args]) if args else jnp.zeros(0)


def beyond(shapes: Shapes, low: Array, high: Array, args: Any) -> Array:
    """Whether any number of the arguments lies outside the ranges low to high (d,), a scalar."""
    x = pack(shapes, *args)
    return jnp.any((x < low) | (x > high))


def unpack(shapes: Shapes, x: Any) -> tuple[Array, ...]:
    """The arguments that make the row x (d,)."""
    ends = np.cumsum([math.prod(s) for s in shapes])
    return tuple(jnp.reshape(x[end - math.prod(s) : end], s) for s, end in zip(shapes, ends, strict=True))


def columns(names: tuple[str, ...], shapes: Shapes) -> tuple[str, ...]:
    """A name for each number of a row: `a` of a scalar, `b[0]`, `b[1]` of an array."""
    found = []
    for name, shape in zip(names, shapes, strict=True):
        found += [name] if shape == () else [f"{name}[{','.join(map(str, at))}]" for at in np.ndindex(shape)]
    return tuple(found)


class Runs(eqx.Module):
    """See the file's docstring; `Runs.of` is the door.

    - `x`: (n, d) inputs. `y`: (n, *out) outputs. `here`: (n,) where there is a run. `tried`: (n,) `here`, or a failed one.
    - `names`, `shapes`: of the arguments.
    """

    x: Array
    y: Array
    here: Array
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)
    tried: Array

    def __init__(self, x, y, here, names, shapes, tried=None) -> None:
        self.x, self.y, self.here = x, y, here
        self.names, self.shapes = tuple(names), tuple(tuple(s) for s in shapes)
        self.tried = here if tried is None else tried

    @staticmethod
    def of(x: Any, y: Any, *, names: tuple[str, ...] | None = None, shapes: Shapes | None = None) -> "Runs":
        """The runs of a function at the rows of x (n, d), which gave y (n, *out).

        A run with an output that is not finite has failed. Without `shapes`, each column is a scalar argument; without
        `names` they are x0, x1 and so on.

        Raises:
            ValueError: for arrays that do not fit, inputs that are not finite, and names or shapes that do not fit x.

        Example:
            `Runs.of(np.linspace(0, 1, 8)[:, None], np.sin(grid))`
        """
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if x.ndim != 2 or x.shape[1] == 0 or y.ndim == 0 or len(y) != len(x):
            raise ValueError(
                f"Runs: expected inputs (n, d) and as many outputs (n, *out), got {x.shape} and {y.shape}. One input alone is "
                "a column, x[:, None]."
            )
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise ValueError(f"Runs: inputs must be finite, got {x[row, column]} in row {row}, column {column}. Drop the row.")
        cut: Shapes = ((),) * x.shape[1] if shapes is None else tuple(tuple(s) for s in shapes)
        names = tuple(f"x{i}" for i in range(len(cut))) if names is None else tuple(names)
        if len(names) != len(cut) or sum(math.prod(s) for s in cut) != x.shape[1]:
            raise ValueError(
                f"Runs: the arguments {list(names)} of shapes {list(cut)} do not make the {x.shape[1]} columns of x. Give "
                "a name and a shape for each argument."
            )
        here = np.isfinite(y.reshape(len(y), -1)).all(1)
        y = np.where(here.reshape(-1, *[1] * (y.ndim - 1)), y, 0.0)
        return Runs(jnp.asarray(x, float), jnp.asarray(y, float), jnp.asarray(here), names, cut, jnp.ones(len(x), bool))

    @staticmethod
    def none(names: tuple[str, ...], shapes: Shapes, out: tuple[int, ...], room: int) -> "Runs":
        """No runs yet, of a function of these arguments that returns arrays of the shape `out`, and room for some."""
        size = sum(math.prod(s) for s in shapes)
        return Runs(jnp.zeros((room, size)), jnp.zeros((room, *out)), jnp.zeros(room, bool), names, shapes)

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each column of x."""
        return columns(self.names, self.shapes)

    @property
    def num(self) -> int:
        """How many runs there are, failed ones not among them."""
        return int(np.sum(np.asarray(self.here)))

    def room(self, num: int) -> "Runs":
        """The same runs in arrays of at least `num` rows."""
        more = max(num - len(self.x), 0)

        def longer(a):
            return jnp.concatenate([a, jnp.zeros((more, *a.shape[1:]), a.dtype)])

        x, y, here, tried = map(longer, (self.x, self.y, self.here, self.tried))
        return Runs(x, y, here, self.names, self.shapes, tried)

    def add(self, x: Any, y: Any) -> "Runs":
        """With the runs at x (m, d), which gave y (m, *out), in the first rows that are empty; where these are too few there
        is twice the room afterwards.

        Raises:
            ValueError: as `Runs.of`, and where x or y have other shapes than those here.
        """
        new = Runs.of(x, y, names=self.names, shapes=self.shapes)
        if new.y.shape[1:] != self.y.shape[1:]:
            raise ValueError(
                f"Runs.add: the runs have outputs of shape {self.y.shape[1:]}, got {new.y.shape[1:]}. A function must return "
                "one shape for all arguments."
            )
        empty = np.flatnonzero(~np.asarray(self.tried))
        if len(empty) < len(new.x):
            return self.room(max(2 * len(self.x), len(self.x) - len(empty) + len(new.x))).add(x, y)
        rows = empty[: len(new.x)]
        fields = ((getattr(self, name), getattr(new, name)) for name in ("x", "y", "here", "tried"))
        x, y, here, tried = (old.at[rows].set(more) for old, more in fields)
        return Runs(x, y, here, self.names, self.shapes, tried)

    def pack(self, *args: Any) -> Array:
        """Arguments as a row (d,)."""
        return pack(self.shapes, *args)

    def unpack(self, x: Any) -> tuple[Array, ...]:
        """The arguments that make a row (d,)."""
        return unpack(self.shapes, x)
