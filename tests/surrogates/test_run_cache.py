"""Caches of runs: bit-exact, alive in a new process at no run, and a sentence for what is damaged or something else."""

import functools
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from surrogates.run_cache import DiskCache, Kept, MemoryCache, Row, keys_of
from surrogates.simulator import simulator
from tests.surrogates.host_functions import at_worst, decay, noted

ROOT, NUMBER, CURVE = Path(__file__).parents[2], jax.ShapeDtypeStruct((), float), jax.ShapeDtypeStruct((5,), float)


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    cache = MemoryCache() if request.param == "memory" else DiskCache(tmp_path / "runs.sqlite")
    cache.claim("f", (NUMBER,))
    return cache


def rows_of(*values):
    keys = keys_of([np.array(values)], len(values))
    return [Row(key, (np.asarray(x),), Kept((np.asarray(2 * x),))) for key, x in zip(keys, values, strict=True)]


def test_what_is_found_is_what_was_put(cache):
    put = [*rows_of(0.1, -0.0, 5e-324, np.inf), Row(b"bad", (np.ones((2, 0), np.int8),), Kept((), "it grows"))]
    cache.put(put)
    found = cache.get([b"none", *(row.key for row in put)])
    assert len(cache) == 5 and b"none" not in found and found[b"bad"] == ((), "it grows")
    for row in put[:4]:
        (old,), (new,) = row.kept.outputs, found[row.key].outputs
        assert new.dtype == old.dtype and new.shape == old.shape and new.tobytes() == old.tobytes()
    assert [x.item() for (x,), _ in cache.runs()] == [0.1, 0.0, 5e-324, np.inf]


def test_keys_tell_bits_types_and_shapes_apart():
    near = [
        np.float64(1.0),
        np.nextafter(1.0, 2.0),
        np.float32(1.0),
        np.int64(1),
        np.ones(1),
        np.float64(0.0),
        np.float64(-0.0),
    ]
    keys = {keys_of([np.asarray(x)[None]], 1)[0] for x in near}
    assert len(keys) == len(near)
    one, other = keys_of([np.array([1.0, 2.0]), np.array([[3.0, 4.0]])], 2)  # the second argument is shared
    assert [one, other] == keys_of([np.array([1.0, 2.0]), np.array([[3.0, 4.0]] * 2)], 2) and one != other
    assert keys_of([np.array([[1.0, 2.0]]), np.array([[3.0]])], 1) != keys_of([np.array([[1.0]]), np.array([[2.0, 3.0]])], 1)


RESTART = """
import functools, sys
import jax, jax.numpy as jnp
from surrogates.simulator import simulator
from tests.surrogates.host_functions import noted
sim = simulator(functools.partial(noted, sys.argv[1]), jax.ShapeDtypeStruct((), float), cache=sys.argv[2], name="noted")
print(jax.jit(jax.vmap(sim))(jnp.arange(4.0)).tolist(), *sim.counts[:5])
"""


def test_a_new_process_runs_nothing(tmp_path):
    notes, file = tmp_path / "notes", tmp_path / "runs.sqlite"
    sim = simulator(functools.partial(noted, str(notes)), NUMBER, cache=file, name="noted")
    jax.vmap(sim)(np.arange(4.0, dtype=np.float32))
    assert len(notes.read_text().splitlines()) == 4
    again = [sys.executable, "-c", RESTART, str(notes), str(file)]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stdout.split("] ") == ["[0.0, 1.0, 4.0, 9.0", "4 1 0 0 4\n"], done.stderr
    assert len(notes.read_text().splitlines()) == 4


def test_failures_are_kept_too(tmp_path):
    for runs in (2, 0):
        sim = simulator(at_worst, NUMBER, cache=tmp_path / "runs.sqlite")
        assert np.isnan(sim(-1.0)) and np.isnan(sim(11.0)) and sim.counts.run == runs
    held = DiskCache(tmp_path / "runs.sqlite")
    assert len(held) == 2 and list(held.runs()) == []


def test_two_at_once_may_use_one_file(tmp_path):
    one, other = (simulator(decay, CURVE, cache=tmp_path / "runs.sqlite") for _ in range(2))
    one(0.5, 2.0)
    other(0.5, 2.0)
    assert one.counts.run == 1 and other.counts.run == 0


def foreign(path):
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE invoices (amount REAL)")


def half(path):
    simulator(decay, CURVE, cache=path)(0.5, 2.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def altered(header):
    def write(path):
        simulator(decay, CURVE, cache=path)
        with sqlite3.connect(path) as file:
            file.execute("UPDATE evidentia_header SET json = ?", (header,))

    return write


OTHER = json.dumps({"schema": "evidentia.runs", "version": 1, "function": "grow", "outputs": [["<f8", [5]]]})
WRONG = {
    "text": (lambda path: path.write_text("these are no runs, and never were\n" * 40), "is damaged, or is no cache of runs"),
    "half": (half, "is damaged, or is no cache of runs"),
    "no header": (altered("{"), "is damaged, or is no cache of runs"),
    "another database": (foreign, "is no cache of runs: it holds something else, and was left as it is"),
    "another schema": (altered('{"schema": "x"}'), "is no cache of runs: it holds something else"),
    "newer": (altered('{"schema": "evidentia.runs", "version": 2}'), "newer version .schema 2; this reads up to 1.. Update"),
    "another function": (altered(OTHER), "holds runs of another simulator: its function is grow, and is decay here"),
    "a directory": (lambda path: path.mkdir(), "cannot be used as a cache of runs: unable to open"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_not_what_it_should_be(name, tmp_path):
    make, words = WRONG[name]
    path = tmp_path / "runs.sqlite"
    make(path)
    with pytest.raises(ValueError, match=words):
        simulator(decay, CURVE, cache=path)(0.5, 2.0)


def test_another_output_is_another_simulator(tmp_path):
    simulator(decay, CURVE, cache=tmp_path / "runs.sqlite")
    with pytest.raises(ValueError, match=r"its outputs are \[\['<f8', \[5\]\]\], and are \[\['<f4', \[5\]\]\] here"):
        simulator(decay, jax.ShapeDtypeStruct((5,), np.float32), cache=tmp_path / "runs.sqlite")
    shared = MemoryCache()
    simulator(decay, CURVE, cache=shared)
    with pytest.raises(ValueError, match="this cache holds runs of another simulator"):
        simulator(at_worst, CURVE, cache=shared)


def test_what_is_bound_belongs_to_the_name(tmp_path):
    def named(*args, **kwargs):
        return simulator(functools.partial(decay, *args, **kwargs), CURVE).name

    assert named(start=2.0) == "decay(start=2.0)" and named(start=np.ones(3)) != named(start=np.zeros(3))
    assert named(object()) == named(object()) == "decay(<object object>)"


def test_a_damaged_row_is_seen(tmp_path):
    sim = simulator(decay, CURVE, cache=tmp_path / "runs.sqlite")
    sim(0.5, 2.0)
    with sqlite3.connect(tmp_path / "runs.sqlite") as file:
        file.execute("UPDATE evidentia_runs SET outputs = x'00ff'")
    with pytest.raises(ValueError, match="is damaged, or is no cache of runs"):
        sim(0.5, 2.0)


def test_a_disk_that_takes_nothing_more_is_a_warning(tmp_path):
    sim = simulator(decay, CURVE, cache=tmp_path / "runs.sqlite")
    sim.cache._file.execute("PRAGMA query_only = 1")
    with pytest.warns(RuntimeWarning, match="1 runs were not kept. .*cannot be used as a cache of runs: attempt to write"):
        assert np.isfinite(sim(0.5, 2.0)).all()
