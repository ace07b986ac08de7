"""Stream: the draws of a kept run as a zarr group that ArviZ and xarray open, written while the run lasts.

```python
posterior = inf.mcmc(program, inf.NUTS(), key=key, draws=1_000_000, store=inf.Store("runs/schools", zarr="schools.zarr"))
posterior["theta"]                                        # read from the disk when asked for
xarray.open_datatree("schools.zarr", engine="zarr")       # by anyone, also while the run lasts or after it was killed
```

Law: the stream is a fold over the numbered files of draws that the store keeps (see `store`), and remembers how far it has
come: n draws of every chain are there, without gaps or duplicates, whatever ended the run; a stream that was deleted is
made again. What readers go by, the group's consolidated metadata, is one file that is replaced whole after each step of the
fold.

Layout: groups `posterior`, `sample_stats`, `warmup_sample_stats` (and `warmup_posterior`, if asked for) of arrays (chain,
draw, ...), named as ArviZ names them. Format 2, which both generations of zarr and of ArviZ read.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ppl.choices import flatten, nest

NUMBERS = 1 << 17  # to a zarr chunk, which holds draws of one chain
PROGRESS = "evidentia"  # the attribute that says how far the fold has come


class Stream:
    """An opened stream of a run with `lanes` lanes and `warmup` steps before the first draw.

    - `named(positions)`: named draws (chain, draw, ...) of positions (chain, draw, dim).
    - `identity`: what tells the run from others.

    `seen` is the number of the last file that was folded in, `level` the steps that every chain has here.
    """

    def __init__(self, path, identity: Mapping[str, str], lanes: int, warmup: int, keep_warmup: bool, named: Callable):
        self.path, self.warmup, self.keep_warmup, self.named = Path(path), warmup, keep_warmup, named
        self._identity = {**identity, "choice of keep_warmup": str(keep_warmup)}
        self._root: Any = _opened(self.path)
        self._lanes = lanes
        self.rewind()

    def rewind(self) -> None:
        """Go back to what is on the disk."""
        held = json.loads(self._root.attrs.get(PROGRESS, "{}"))
        if held:
            self._compare(held["identity"])
        self._stand(held.get("file", ""), held.get("seen", 0), held.get("level", 0), held.get("taken", [0] * self._lanes))

    def restart(self) -> None:
        """Begin anew: what is there will be written over."""
        self._stand("", 0, 0, [0] * self._lanes)

    def _stand(self, file: str, seen: int, level: int, taken: list[int]) -> None:
        self.file, self.seen, self.level, self._taken = file, seen, level, list(taken)
        self._closed = (file, seen, list(taken))  # the last file that need not be read again
        self._ends: list[tuple[str, int, list[int]]] = []  # the files after it
        self._parts: list[Any] = [None] * self._lanes  # per lane, what is read but not written: steps `level` to `_taken`
        self._commit()

    def take(self, file: str, number: int, records: list[Any]) -> None:
        """Fold in the next file: a record per lane, (positions, info) with steps on axis 1, or None."""
        for lane, record in enumerate(records):
            if record is not None:
                self._read(lane, record)
        self._ends.append((file, number, list(self._taken)))
        if (num := min(self._taken) - self.level) > 0:
            self._write(jax.tree.map(lambda *lanes: np.concatenate([x[:, :num] for x in lanes]), *self._parts))
            self._parts = [jax.tree.map(lambda x: x[:, num:].copy(), part) for part in self._parts]
            self.level += num
        while self._ends and max(self._ends[0][2]) <= self.level:
            self._closed = self._ends.pop(0)
        self.file, self.seen = file, number
        self._commit()

    def read(self, steps: int) -> dict[str, dict[str, Any]]:
        """The groups by name, as nested dicts of `xarray.DataArray`s that read from the disk when they are asked; of the
        steps that are here, the first `steps`."""
        import xarray

        out = {}
        for group in self._root.group_keys():
            data = xarray.open_dataset(self.path, engine="zarr", group=group, consolidated=True, cache=False)
            most = self.warmup if group.startswith("warmup_") else steps - self.warmup
            out[group] = nest({str(site): x.isel(draw=slice(0, most)) for site, x in data.data_vars.items()})
        return out

    def _read(self, lane: int, record) -> None:
        fresh = max(0, self.level - self._taken[lane])  # the steps before these are written
        new, old = jax.tree.map(lambda x: x[:, fresh:], record), self._parts[lane]
        self._parts[lane] = new if old is None else jax.tree.map(lambda *x: np.concatenate(x, axis=1), old, new)
        self._taken[lane] += record[0].shape[1]

    def _write(self, block) -> None:
        """Steps from `level` on: those of the warm-up to their groups, the others to theirs."""
        positions, info = block
        border = max(0, min(self.warmup - self.level, positions.shape[1]))
        parts = (
            ("warmup_", slice(0, border), self.level, self.keep_warmup),
            ("", slice(border, None), self.level + border - self.warmup, True),
        )
        for kind, rows, at, with_draws in parts:
            if positions[:, rows].shape[1]:
                self._append(kind + "sample_stats", {name: x[:, rows] for name, x in info._asdict().items()}, at)
                if with_draws:
                    self._append(kind + "posterior", flatten(self.named(positions[:, rows])), at)

    def _append(self, name: str, columns: Mapping[str, Any], at: int) -> None:
        """Rows (chain, draw, ...) from draw number `at` on."""
        group, chains, end = self._root.require_group(name), 0, at
        for site, values in columns.items():
            values = np.asarray(values)
            chains, end = values.shape[0], at + values.shape[1]
            _put(group, site, values, ["chain", "draw", *(f"{site}_dim_{i}" for i in range(values.ndim - 2))], at)
        _put(group, "chain", np.arange(chains), ["chain"])
        _put(group, "draw", np.arange(at, end), ["draw"], at)

    def _commit(self) -> None:
        file, seen, taken = self._closed
        held = {"identity": self._identity, "file": file, "seen": seen, "level": self.level, "taken": taken}
        self._root.attrs[PROGRESS] = json.dumps(held)
        library().consolidate_metadata(self._root.store, zarr_format=2)

    def _compare(self, held: Mapping[str, str]) -> None:
        for name, mine in self._identity.items():
            if held.get(name) != mine:
                raise ValueError(
                    f"store: {self.path} holds the draws of another run: its {name} is not the same. Name another path in "
                    "Store(..., zarr=...), or delete that one to write it anew."
                )


def _opened(path: Path):
    """The group at `path`, made if need be."""
    if path.exists() and not (path / ".zgroup").exists():
        raise ValueError(f"store: {path} is there, and is no stream of draws. Name another path in Store(..., zarr=...).")
    path.parent.mkdir(parents=True, exist_ok=True)
    return library().open_group(path, mode="a", zarr_format=2, use_consolidated=False)


def _put(group, name: str, values: np.ndarray, dims: list[str], at: int = 0) -> None:
    """Write `values` into an array, which is made or grown if need be, from index `at` of its axis of draws on."""
    axis = dims.index("draw") if "draw" in dims else 0
    shape = (*values.shape[:axis], at + values.shape[axis], *values.shape[axis + 1 :])
    if name not in group:
        rows = max(1, NUMBERS // max(1, int(np.prod(values.shape[axis + 1 :]))))
        chunks = (*[1] * axis, rows, *(max(1, n) for n in values.shape[axis + 1 :]))
        # no fill value: xarray would read whole numbers as floats, with NaN in its place
        array = group.create_array(name, shape=shape, chunks=chunks, dtype=values.dtype, fill_value=None)
        array.attrs["_ARRAY_DIMENSIONS"] = dims
    array = group[name]
    if array.shape[axis] < shape[axis]:
        array.resize(shape)
    array[(*[slice(None)] * axis, slice(at, at + values.shape[axis]))] = values


def library() -> Any:
    """The library, or a sentence that says what to install."""
    try:
        import zarr  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("Store: zarr=... needs zarr, which is not installed: pip install zarr.") from None
    return zarr
