"""Caches of runs: what a simulator answered, by the exact bits of its arguments, so that no point is paid for twice.

```python
voltage = sur.simulator(run_cell, out, cache="runs.sqlite")      # a DiskCache; without cache= a MemoryCache
for arguments, outputs in voltage.cache.runs(): ...              # what is known, for whoever learns from it
```
The key of a run is a digest of dtype, shape and bytes of every argument: numbers that differ in the last bit are other
numbers. On disk the cache is one SQLite file: a JSON header (schema, version, function, outputs), and a row for each run:
key, arguments and outputs as .npy bytes, and why it failed if it did. Nothing in it is ever executed. Several processes may
use one file at a time. A row is written as soon as its batch is done, so that a kill costs at most one batch.

Law: what is found is what was put, bit for bit.
"""

import abc
import hashlib
import io
import json
import sqlite3
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCHEMA, VERSION = "evidentia.runs", 1
TABLES = {"evidentia_header", "evidentia_runs"}
PATIENCE = 60.0  # seconds to wait for another process that writes

Arrays = tuple[np.ndarray, ...]


class Kept(NamedTuple):
    """What is known of a run: its outputs, or none of them and why it failed."""

    outputs: Arrays
    failure: str | None = None


class Row(NamedTuple):
    """A run to be kept."""

    key: bytes
    arguments: Arrays
    kept: Kept


class RunCache(abc.ABC):
    """The contract. A cache holds the runs of one function."""

    @abc.abstractmethod
    def claim(self, function: str, outputs: Sequence[Any]) -> None:
        """Say whose runs these are; `outputs` have shape and dtype. Raises ValueError where others are held already."""

    @abc.abstractmethod
    def get(self, keys: Iterable[bytes]) -> dict[bytes, Kept]:
        """Those of the keys that are known."""

    @abc.abstractmethod
    def put(self, rows: Sequence[Row]) -> None:
        """Keep some runs."""

    @abc.abstractmethod
    def runs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Arguments and outputs of every run that did not fail, in the order in which they were put."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many runs are known, with those that failed."""


class MemoryCache(RunCache):
    """A cache that ends with the process."""

    def __init__(self) -> None:
        self._header: dict | None = None
        self._rows: dict[bytes, Row] = {}

    def claim(self, function, outputs):
        header = _header(function, outputs)
        self._header = self._header or header
        _same("this cache", self._header, header)

    def get(self, keys):
        return {key: self._rows[key].kept for key in keys if key in self._rows}

    def put(self, rows):
        self._rows |= {row.key: row for row in rows}

    def runs(self):
        return iter([(row.arguments, row.kept.outputs) for row in list(self._rows.values()) if row.kept.failure is None])

    def __len__(self):
        return len(self._rows)


class DiskCache(RunCache):
    """A cache in the file `path`, which is made where there is none.

    Raises:
        ValueError: when claimed, for a file that is damaged, that is something else, that is newer than this version, or that
            holds the runs of another function; when asked, for one that was damaged since.

    Warns:
        RuntimeWarning: where runs cannot be written, as on a full disk: the run goes on, and they are not kept.

    Example:
        `DiskCache("runs.sqlite")`
    """

    def __init__(self, path: Any) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file: sqlite3.Connection | None = None

    def claim(self, function, outputs):
        header = _header(function, outputs)
        with self._opened("BEGIN IMMEDIATE") as file:
            tables = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                file.execute("CREATE TABLE evidentia_header (json TEXT NOT NULL)")
                file.execute(
                    "CREATE TABLE evidentia_runs "
                    "(key BLOB PRIMARY KEY, arguments BLOB NOT NULL, outputs BLOB NOT NULL, failure TEXT)"
                )
                file.execute("INSERT INTO evidentia_header VALUES (?)", (json.dumps(header),))
            held = self._held(file) if not tables or tables >= TABLES else {}
        _same(str(self.path), held, header)

    def get(self, keys):
        with self._opened("BEGIN") as file:
            ask = "SELECT key, outputs, failure FROM evidentia_runs WHERE key = ?"
            found = [row for key in keys for row in file.execute(ask, (key,))]
        return {key: Kept(self._arrays(outputs), failure) for key, outputs, failure in found}

    def put(self, rows):
        told = [(r.key, _bytes(r.arguments), _bytes(r.kept.outputs), r.kept.failure) for r in rows]
        try:
            with self._opened("BEGIN IMMEDIATE") as file:
                file.executemany("INSERT OR REPLACE INTO evidentia_runs VALUES (?, ?, ?, ?)", told)
        except ValueError as error:
            warnings.warn(f"{len(rows)} runs were not kept. {error}", RuntimeWarning, stacklevel=2)

    def runs(self):
        with self._opened("BEGIN") as file:
            ask = "SELECT arguments, outputs FROM evidentia_runs WHERE failure IS NULL ORDER BY rowid"
            found = file.execute(ask).fetchall()
        return ((self._arrays(arguments), self._arrays(outputs)) for arguments, outputs in found)

    def __len__(self):
        with self._opened("BEGIN") as file:
            return file.execute("SELECT count(*) FROM evidentia_runs").fetchone()[0]

    def __repr__(self) -> str:
        return f"DiskCache({str(self.path)!r})"

    @contextmanager
    def _opened(self, begin: str) -> Iterator[sqlite3.Connection]:
        """The file, in one transaction; what SQLite says goes into a sentence."""
        with self._lock:
            try:
                if self._file is None:  # one connection, used by one thread at a time; it begins no transaction by itself
                    self._file = sqlite3.connect(self.path, PATIENCE, isolation_level=None, check_same_thread=False)
                self._file.execute(begin)
                try:
                    yield self._file
                    self._file.execute("COMMIT")
                except BaseException:
                    if self._file.in_transaction:
                        self._file.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise ValueError(
                    f"{self.path} cannot be used as a cache of runs: {error}. Look at the directory, at the permissions, at "
                    "the space on the disk, and whether another process holds the file."
                ) from error
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error

    def _held(self, file: sqlite3.Connection) -> dict:
        try:
            held = json.loads(file.execute("SELECT json FROM evidentia_header").fetchone()[0])
            return held if isinstance(held, dict) else {}
        except (TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def _arrays(self, told: bytes) -> Arrays:
        stream, found = io.BytesIO(told), []
        try:
            while stream.tell() < len(told):
                found.append(np.lib.format.read_array(stream, allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise self._damaged(error) from error
        return tuple(found)

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} is damaged, or is no cache of runs ({error}). Name another file, or restore this one from a copy."
        )


def keys_of(columns: Sequence[np.ndarray], num: int) -> list[bytes]:
    """The keys of `num` runs, from arguments with a leading axis of that length, or of length one where all share them."""
    digests = [[_digest(row) for row in column] for column in columns]
    return [hashlib.sha256(b"".join(told[i % len(told)] for told in digests)).digest() for i in range(num)]


def _digest(x: Any) -> bytes:
    x = np.asarray(x)
    return hashlib.sha256(f"{x.dtype.str}{x.shape}:".encode() + x.tobytes()).digest()


def _header(function: str, outputs: Sequence[Any]) -> dict:
    told = [[np.dtype(x.dtype).str, list(x.shape)] for x in outputs]
    return {"schema": SCHEMA, "version": VERSION, "function": function, "outputs": told}


def _same(where: str, held: dict, own: dict) -> None:
    """Raise ValueError unless the runs that are held are those of the function that asks."""
    if held.get("schema") != SCHEMA:
        raise ValueError(f"{where} is no cache of runs: it holds something else, and was left as it is. Name another file.")
    if not isinstance(held.get("version"), int) or held["version"] > VERSION:
        raise ValueError(
            f"{where} was written by a newer version (schema {held.get('version')}; this reads up to {VERSION}). Update "
            "evidentia."
        )
    for part in ("function", "outputs"):
        if held.get(part) != own[part]:
            raise ValueError(
                f"{where} holds runs of another simulator: its {part} {_verb(part)} {held.get(part)}, and {_verb(part)} "
                f"{own[part]} here. Give each simulator a cache of its own, or the name= that it had."
            )


def _verb(part: str) -> str:
    return "are" if part.endswith("s") else "is"


def _bytes(arrays: Arrays) -> bytes:
    stream = io.BytesIO()
    for x in arrays:
        np.lib.format.write_array(stream, np.ascontiguousarray(x).reshape(x.shape), allow_pickle=False)
    return stream.getvalue()
