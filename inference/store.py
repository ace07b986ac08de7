"""Store: a directory that keeps a long run, so that it may be interrupted, killed, resumed and extended.

```python
posterior = inf.mcmc(program, inf.NUTS(), key=key, draws=10_000, store=Store("runs/schools", every=30.0))
```

Law: whatever ended a run (Ctrl-C, `kill -9`, a spent budget, a power cut), the same line run again gives the draws of the
unbroken run, bit for bit. What is lost is what was done since the last checkpoint.

The directory holds, for checkpoint number n = 1, 2, ...,

    draws-00000n-<checksum>.npz         what every lane recorded since checkpoint n - 1
    checkpoint-00000n-<checksum>.npz    the lanes' states after it; only the last two are kept

The draws are written first, and a file appears whole or not at all (see `checkpoints`). So checkpoint n exists only if all
draws up to it do, and a kill at any moment leaves the one before.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from .checkpoints import NAME, PARTIAL, draws, header, latest, numbered, probe, put, read, remove
from .diagnostics import SamplingWarning
from .frozen import frozen, joined, part, thawed
from .stream import Stream, library

try:
    import fcntl
except ImportError:  # not on Windows: there nobody looks whether another process writes
    fcntl = None

LOCK = ".lock"
PENDING = 1 << 24  # bytes of draws that are written before `every` seconds have passed, so that memory stays bounded


@dataclass(frozen=True)
class Store:
    """Where a run is kept, and how often: `mcmc(..., store=Store("runs/schools"))`.

    - `path`: a directory of the run's own; it is made if need be.
    - `every`: seconds between checkpoints, at most: 16 MB of draws make one too. 0: one after every chunk, of a tenth of
      a second or less.
    - `zarr`: a path, such as "schools.zarr": named draws and statistics are written there too, as they are made, for ArviZ
      and xarray to open; and the posterior that is returned reads them from there when asked, so that memory stays
      bounded however long the run. Needs zarr.

    The same line run again continues where the directory stands, and returns the whole posterior; with more `draws` it
    extends a finished run; on a finished run it only reads. Draws that have been written are dropped from memory until
    the end, when they are read back to be returned.

    Raises:
        ValueError: when the directory holds another run or foreign files, is damaged beyond its last two checkpoints, is
            in use by another process, or cannot be written to.
    Warns:
        SamplingWarning: when a damaged checkpoint was passed over for the one before, or one could not be written: then
            the run goes on in memory, and the last good checkpoint stays.
    """

    path: str | os.PathLike
    every: float = 30.0
    zarr: str | os.PathLike | None = None

    def __post_init__(self):
        if not self.every >= 0:
            raise ValueError(f"Store: every must be a number of seconds, 0 or more, got {self.every!r}.")

    def planned(self) -> int | None:
        """How many draws, or steps, the run that is kept here was to have when it was last written; None: there is none."""
        found = latest(Path(self.path))
        return None if found is None else found[1].get("draws")

    def open(self, identity: Mapping[str, str], like, lanes: int, warmup: int, draws: int) -> "Kept":
        """The store opened for the run that `identity` describes, of `lanes` lanes that are to take `warmup` steps, or fewer,
        and `draws` more; `like` is a pytree (state, record), of which only the structure and the dtypes count."""
        zarr = None if self.zarr is None else Path(self.zarr)
        if zarr is not None:
            library()  # or a sentence, before anything is made
        return Kept(Path(self.path), self.every, zarr, dict(identity), like, lanes, warmup, draws)


class Kept:
    """An opened store: what it holds (`done` steps per lane, `seconds` spent, the length of the `warmup` as far as is known),
    and, as `run`'s keeper, the writing of more."""

    def __init__(
        self, path: Path, every: float, zarr: Path | None, identity: dict[str, str], like, lanes: int, warmup: int, draws: int
    ):  # fmt: skip
        self.path, self.every, self.zarr, self.identity = path, every, zarr, identity
        (self._state, self._record), self.draws = like, draws
        self.done, self.seconds, self.warmup, self._number, self._arrays = [0] * lanes, 0.0, warmup, 0, {}
        self._lock, self._open, self._begun, self._failing = None, True, time.monotonic(), False
        self._last, self._pending, self.stream, self._refused = self._begun, 0, None, ""
        unwritable = self._enter()
        try:
            if found := latest(path):
                self._number, held, self._arrays = found
                _compare(path, held["identity"], identity)
                self.done, self.seconds = held["done"], held["seconds"]
                self.warmup = held.get("warmup", warmup)
            if min(self.done) < self.warmup + draws:
                if unwritable is not None:
                    raise _unwritable(path, unwritable)
                self._prepare()
        except OSError as error:
            self.close()
            raise _unwritable(path, error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Give the directory free; nothing is written from now on."""
        self._open = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- what is there -------------------------------------------------------------------------------------------------

    def states(self) -> list[Any] | None:
        """The lanes' states; None at the beginning of a run."""
        self._begun = time.monotonic()
        if self._number == 0:
            return None
        saved, self._arrays = self._arrays, {}
        return thawed(saved, self._state, len(self.done))

    def whole(self, records: list[list[Any]], steps: int) -> list[list[Any]]:
        """`records`, those not written, after those that were; the first `steps` steps are there, and perhaps more."""
        parts, taken = [[] for _ in records], [0] * len(records)
        for *_, held in self._records() if self._number else ():
            if min(taken) >= steps:
                return parts
            for lane, record in enumerate(held):
                if record is not None:
                    parts[lane].append(record)
                    taken[lane] += jax.tree.leaves(record)[0].shape[1]
        return [before + new for before, new in zip(parts, records, strict=True)]

    def _records(self, after: int = 0) -> Iterator[tuple[Path, int, list[Any]]]:
        """The files of draws after number `after`: file, number, and a record for every lane, or None."""
        try:
            for number, file in enumerate(draws(self.path, self._number), 1):
                if number > after:
                    arrays = read(file)
                    yield file, number, [part(arrays, self._record, lane) for lane in range(len(self.done))]
        except (ValueError, OSError) as error:
            raise ValueError(
                f"store: {error}, though it was whole when the run began. Restore the file from a copy and run the same line "
                "again."
            ) from error

    # -- the stream ----------------------------------------------------------------------------------------------------

    def end_warmup(self, length: int) -> None:
        """The warm-up has this length; no lane has taken more steps yet."""
        self.warmup = length
        if self.stream is not None:
            self.stream.warmup = length

    def stream_to(self, keep_warmup: bool, named: Callable) -> None:
        """Bring the stream to where the files are, and from now on fold into it what is written; see `Stream`."""
        if self.zarr is None:
            return
        self.stream = Stream(self.zarr, self.identity, len(self.done), self.warmup, keep_warmup, named)
        file = numbered(self.path, "draws").get(self.stream.seen)
        if self.stream.seen and (self.stream.seen > self._number or file is None or file.name != self.stream.file):
            self.stream.restart()  # the files that it has seen are gone
        self._follow()

    def streamed(self, steps: int) -> dict[str, dict[str, Any]]:
        """The stream's groups, of the first `steps` steps."""
        assert self.stream is not None
        if self.stream.level < steps:
            self._follow()  # there may be room by now
        if self.stream.level < steps:
            raise ValueError(
                f"store: {self.stream.path} could not be written ({self._refused}). The draws are safe in {self.path}: free "
                "some space and run the same line again."
            )
        return self.stream.read(steps)

    def _follow(self) -> None:
        if self.stream is None:
            return
        try:
            for file, number, records in self._records(self.stream.seen):
                self.stream.take(file.name, number, records)
        except OSError as error:
            self._refused = error.strerror or str(error)
            with suppress(OSError):
                self.stream.rewind()

    # -- what is added -------------------------------------------------------------------------------------------------

    def due(self, record) -> bool:
        """Whether it is time for a checkpoint, or much is held in memory, to which `record` is added."""
        self._pending += sum(x.nbytes for x in jax.tree.leaves(record))
        return self._open and (time.monotonic() - self._last >= self.every or self._pending > PENDING)

    def save(self, states, records, done) -> None:
        """Write a checkpoint, and empty the lists of records that are now on disk. A disk that refuses is warned of."""
        if not self._open or done == self.done:
            return
        number = self._number + 1
        try:
            if self._failing:
                self._discard()
            put(self.path, "draws", number, joined(records))
            put(self.path, "checkpoint", number, {"header": header(**self._standing(done)), **frozen(states)})
        except OSError as error:
            self._complain(error)
            with suppress(OSError):
                self._discard()
        else:
            self._number, self.done, self._failing = number, list(done), False
            for parts in records:
                parts.clear()
            with suppress(OSError):
                remove(self.path, "checkpoint", lambda n: n < number - 1)
            self._follow()
        self._last, self._pending = time.monotonic(), 0

    def _standing(self, done) -> dict[str, Any]:
        seconds = self.seconds + time.monotonic() - self._begun
        return {
            "identity": self.identity, "done": list(done), "seconds": seconds, "warmup": self.warmup, "draws": self.draws
        }  # fmt: skip

    def _complain(self, error: OSError) -> None:
        """Once per trouble, not at every attempt."""
        if not self._failing:
            warnings.warn(
                f"store: no checkpoint could be written to {self.path} ({error.strerror or error}). The run goes on in "
                f"memory, and is tried again every {self.every:g} s; the last good checkpoint, of {min(self.done)} steps "
                "per chain, stays. Free some space, or save the posterior elsewhere at the end.",
                SamplingWarning,
                stacklevel=4,
            )
        self._failing = True

    # -- at the door ---------------------------------------------------------------------------------------------------

    def _enter(self) -> OSError | None:
        """Make the directory and lock it. Returns why that could not be done: reading may still be possible."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"store: {self.path} is a file; name a directory of the run's own.")
        if self.path.is_dir():
            foreign = sorted(f.name for f in self.path.iterdir() if not f.name.startswith(".") and not NAME.fullmatch(f.name))
            if foreign:
                raise ValueError(
                    f"store: {self.path} holds files that are no part of a run, such as {foreign[0]}. Name a directory of the "
                    "run's own."
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / LOCK, "wb")
        except OSError as error:
            return error
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(
                f"store: another run is using {self.path}. Wait until it has ended, or name another directory."
            ) from None
        except OSError:  # a file system without locks
            pass
        return None

    def _prepare(self) -> None:
        """Remove what is newer than the last good checkpoint, and see that the disk takes bytes."""
        self._discard()
        probe(self.path)

    def _discard(self) -> None:
        for kind in ("checkpoint", "draws"):
            remove(self.path, kind, lambda n: n > self._number)
        (self.path / PARTIAL).unlink(missing_ok=True)


def _compare(path: Path, held: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse to continue another run."""
    for name in [*here, *held]:
        there, mine = held.get(name, "none"), here.get(name, "none")
        if there != mine:
            values = "" if mine.startswith("sha256:") else f" ({there} there, {mine} here)"
            raise ValueError(
                f"store: {path} holds another run: its {name} is not the same{values}. Name another directory in Store(...), "
                "or delete that one to begin anew."
            )


def _unwritable(path: Path, error: OSError) -> ValueError:
    return ValueError(
        f"store: {path} cannot be written to ({error.strerror or error}). Name another directory, or see to its permissions "
        "and the room on its disk."
    )
