"""Numbered files of arrays, each of them whole or recognisably damaged.

A file of kind k and number n is called `k-00000n-<checksum>.npz`. It is written under a passing name, flushed to the disk,
and renamed, so that a kill at any moment leaves either the whole file or none; bytes that do not have the checksum in the
file's name are damaged. Arrays only, no pickle: nothing in a file is executed when it is read.

```python
put(directory, "draws", 7, {"x": np.arange(3)})
read(numbered(directory, "draws")[7])["x"]
put(directory, "checkpoint", 7, {"header": header(done=[100]), "state": state})
number, found, arrays = latest(directory)           # found["done"] == [100]
```
"""

import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from .diagnostics import SamplingWarning

NAME = re.compile(r"(draws|checkpoint)-(\d{6,})-([0-9a-f]{8})\.npz")
PARTIAL = ".partial"
SCHEMA, VERSION = "evidentia.run", 1


def put(path: Path, kind: str, number: int, arrays: dict[str, Any]) -> None:
    """Write a file of the run: under a passing name first, so that a file of this name is always whole."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    with buffer.getbuffer() as data:  # given back, whatever comes: a buffer that is still lent complains when it is freed
        write(path / PARTIAL, data)
        name = f"{kind}-{number:06d}-{zlib.crc32(data):08x}.npz"
    os.replace(path / PARTIAL, path / name)
    with suppress(OSError):  # the renaming reaches the disk with the directory, where the file system can do that
        directory = os.open(path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write(file: Path, data) -> None:
    """Write bytes, through to the disk."""
    with open(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def probe(path: Path) -> None:
    """Raises OSError where a directory takes no files."""
    write(path / PARTIAL, b"room for a file?")
    (path / PARTIAL).unlink()


def read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file. Raises ValueError when it is damaged."""
    data = file.read_bytes()
    _check(file, zlib.crc32(data))
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def verify(file: Path) -> None:
    """Raises ValueError when the file is damaged; reads it piece by piece."""
    checksum = 0
    with open(file, "rb") as data:
        while piece := data.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    _check(file, checksum)


def _check(file: Path, checksum: int) -> None:
    if f"-{checksum:08x}." not in file.name:
        raise ValueError(f"{file} is damaged: its checksum is {checksum:08x}, not the one in its name")


def numbered(path: Path, kind: str) -> dict[int, Path]:
    """The files of one kind by number."""
    found = [(NAME.fullmatch(file.name), file) for file in sorted(path.iterdir())] if path.is_dir() else []
    return {int(match[2]): file for match, file in found if match is not None and match[1] == kind}


def remove(path: Path, kind: str, unwanted: Callable[[int], bool]) -> None:
    """Remove the files of one kind whose numbers are unwanted."""
    for number, file in numbered(path, kind).items():
        if unwanted(number):
            file.unlink(missing_ok=True)


def header(**standing) -> np.ndarray:
    """Where a run stands (plain values), as the array `header` of a checkpoint."""
    return np.array(json.dumps({"schema": SCHEMA, "version": VERSION, **standing}))


def latest(path: Path):
    """Number, header and arrays of the newest checkpoint that is whole, as are all draws before it; None: none was made."""
    checkpoints, damage = numbered(path, "checkpoint"), []
    for number in sorted(checkpoints, reverse=True):
        try:
            arrays = read(checkpoints[number])
            found = json.loads(str(arrays.pop("header")))
            for file in draws(path, number):
                verify(file)
        except (ValueError, OSError) as error:
            damage.append(str(error))
            continue
        if found["version"] > VERSION:
            raise ValueError(
                f"store: {path} was written by a newer version (schema {found['version']}; this one reads up to {VERSION}). "
                "Update evidentia."
            )
        if damage:
            warnings.warn(
                f"store: {damage[0]}. The run continues from the checkpoint before it, of {min(found['done'])} steps per "
                "chain; what came after is made anew.",
                SamplingWarning,
                stacklevel=6,
            )
        return number, found, arrays
    if damage or numbered(path, "draws").keys() - {1}:  # draws 1 alone: killed before the first checkpoint
        why = damage[0] if damage else f"{path} has draws, but its checkpoints are missing"
        raise ValueError(
            f"store: {why}, and no checkpoint before it can be used. Restore the files from a copy, or delete {path} to "
            "begin anew."
        )
    return None


def draws(path: Path, number: int) -> Iterator[Path]:
    """The files of draws up to a number, in order. Raises ValueError where one is missing."""
    files = numbered(path, "draws")
    for n in range(1, number + 1):
        if n not in files:
            raise ValueError(f"{path}/draws-{n:06d}-*.npz is missing")
        yield files[n]
