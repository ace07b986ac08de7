"""Runs that are kept: whatever ends one, the same line run again gives the draws of the unbroken run, bit for bit."""

import errno
import functools
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference import checkpoints
from inference import store as files
from inference.mcmc import nuts
from inference.store import Store
from ppl import dist, sample
from tests.inference.targets import SIGMA, Y, schools
from tests.inference.test_mcmc import Interrupt, sigint  # noqa: F401
from tests.ppl.test_how_to_pages import code

ROOT = Path(__file__).parents[2]
PLACEMENTS = {"threads": inf.Threads(), "vectorized": inf.Vectorized()}
GIVEN = inf.NUTS(step_size=0.5, metric=inf.metrics.Diagonal(jnp.ones(10)))  # nothing to learn: no warm-up needed


def run(store=None, program=None, kernel=None, **settings):
    """Two chains of the eight schools. Draws come before warm-up in no chunk: 60 steps take several."""
    settings = {"key": jax.random.key(0), "chains": 2, "draws": 200, "warmup": 60, "progress": False} | settings
    program = schools(SIGMA) | {"y": Y} if program is None else program
    return inf.mcmc(program, inf.NUTS() if kernel is None else kernel, check=False, store=store, **settings)


@functools.cache
def unbroken(placement="threads", draws=200):
    return run(placement=PLACEMENTS[placement], draws=draws)


def same(one, other):
    """Bit for bit: draws, statistics, and those of the warm-up."""
    for group in ("draws", "stats", "warmup_stats"):
        mine, theirs = getattr(one, group), getattr(other, group)
        assert mine.keys() == theirs.keys()
        for name, x in mine.items():
            assert x.dtype == theirs[name].dtype
            np.testing.assert_array_equal(x, theirs[name], err_msg=f"{group}: {name}")


def kept(path, kind="*"):
    """The files of a kind, oldest first."""
    return sorted(Path(path).glob(f"{kind}-*.npz"))


class Slow:
    """A progress bar that says what is done, and takes its time."""

    def __init__(self, nap=0.02):
        self.nap = nap

    def begin(self, total, done):
        self.left = total - done
        print("left", self.left, flush=True)

    def update(self, num, record, first):
        self.left -= num
        print("left", self.left, flush=True)
        time.sleep(self.nap)

    def change(self, total):
        pass

    def end(self):
        pass


# -- nothing in the way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_finished_run_is_extended_and_read(tmp_path, placement):
    store, settings = Store(tmp_path / "new" / "run", every=0), {"placement": PLACEMENTS[placement]}
    same(run(store, draws=90, **settings), run(draws=90, **settings))
    same(run(store, **settings), unbroken(placement))
    before = [(f.name, f.stat().st_mtime_ns) for f in kept(store.path)]
    whole = run(store, keep_warmup=True, **settings)
    same(whole, unbroken(placement))
    assert whole.warmup_draws["z"].shape == (2, 60, 8)
    np.testing.assert_array_equal(run(store, draws=40, **settings)["z"], unbroken(placement)["z"][:, :40])
    assert [(f.name, f.stat().st_mtime_ns) for f in kept(store.path)] == before


def test_seconds_and_gradients_are_those_of_all_parts(tmp_path):
    run(Store(tmp_path, every=0), draws=50, progress=Slow())
    first, whole = run(Store(tmp_path), draws=50), run(Store(tmp_path))
    assert whole.provenance["sampling_seconds"] > first.provenance["sampling_seconds"] > 0.02
    assert whole.provenance["gradients"] == unbroken().provenance["gradients"]


def test_memory_is_given_back_at_checkpoints(tmp_path, monkeypatch):
    most, save = [], files.Kept.save

    def spy(self, states, records, done):
        most.append(max(map(len, records)))
        save(self, states, records, done)
        assert not any(records)

    monkeypatch.setattr(files.Kept, "save", spy)
    run(Store(tmp_path, every=0), draws=3000)
    assert max(most) <= 1 and len(kept(tmp_path, "checkpoint")) == 2


class Walk(NamedTuple):
    position: jax.Array
    key: jax.Array
    few: jax.Array
    odd: jax.Array
    n: jax.Array


class Seen(NamedTuple):
    lp: jax.Array
    odd: jax.Array


class RandomWalk(inf.Kernel):
    """A kernel whose state holds a typed key, a bfloat16, a bool and a whole number, all of which matter."""

    def init(self, key, target, position):
        return Walk(position, key, jnp.bfloat16(1.1), jnp.bool_(False), jnp.int32(0))

    def step(self, key, state, target):
        own = jax.random.split(state.key)[0]
        move = jax.random.normal(own, state.position.shape) + state.few + state.n
        position = jnp.where(state.odd, 0.5 * state.position, state.position) + move
        state = Walk(position, own, -state.few / 3 + jnp.bfloat16(1), ~state.odd, (state.n + 1) % 7)
        return state, Seen(target.log_density(position), state.odd)


def test_states_of_every_kind_come_back(tmp_path):
    settings = {"kernel": RandomWalk(), "warmup": 0}
    for draws in (20, 77, 300):
        whole = run(Store(tmp_path), draws=draws, **settings)
    same(whole, run(draws=300, **settings))


# -- cut short -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("sigint")
@pytest.mark.filterwarnings("ignore::inference.SamplingWarning")
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_ctrl_c_then_the_same_line_again(tmp_path, placement):
    store, settings = Store(tmp_path, every=1e6), {"placement": PLACEMENTS[placement], "draws": 20_000}
    said = r"^Interrupted: \d+ of 20000 draws per chain were made\. Run the same line again to continue\.$"
    with pytest.warns(inf.SamplingWarning, match=said):
        part = inf.mcmc(
            schools(SIGMA) | {"y": Y},
            inf.NUTS(),
            key=jax.random.key(0),
            chains=2,
            warmup=60,
            store=store,
            progress=Interrupt(5000),
            **settings,
        )
    assert 1 < part.shape[1] < 20_000
    same(run(store, **settings), unbroken(placement, 20_000))


@pytest.mark.usefixtures("sigint")
def test_ctrl_c_in_the_warm_up_loses_nothing(tmp_path):
    store = Store(tmp_path, every=1e6)
    with pytest.raises(KeyboardInterrupt):
        run(store, warmup=5000, progress=Interrupt(16))
    assert len(kept(tmp_path, "checkpoint")) == 1
    same(run(store, warmup=5000), run(warmup=5000))


def test_a_spent_budget_then_the_same_line_again(tmp_path):
    store, settings = Store(tmp_path, every=0.05), {"kernel": GIVEN, "warmup": 0, "draws": 4000}
    part = run(store, budget=0.5, progress=Slow(0.2), **settings)
    assert part.shape[1] < 4000
    same(run(store, **settings), run(**settings))


def test_a_program_that_fails_loses_nothing(tmp_path):
    class Failing(Slow):
        def update(self, num, record, first):
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        run(Store(tmp_path, every=1e6), progress=Failing())
    assert len(kept(tmp_path, "checkpoint")) == 1
    same(run(Store(tmp_path)), unbroken())


SCRIPT = """
import sys
from tests.inference import test_store as t
path, out, placement, draws, nap, *zarr = sys.argv[1:]
store = t.Store(path, every=0, zarr=zarr[0] if zarr else None)
whole = t.run(store, placement=t.PLACEMENTS[placement], draws=int(draws), progress=t.Slow(float(nap)))
whole.save(out)
"""


def start(path, placement, draws, nap, *zarr):
    """The run in a process of its own, and the steps that are left once it samples."""
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(path),
        str(path) + ".result",
        placement,
        str(draws),
        str(nap),
        *map(str, zarr),
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    return process, said(process)


def said(process) -> int | None:
    assert process.stdout is not None
    line = process.stdout.readline()
    return int(line.split()[1]) if line else None


def kill_and_resume(path, placement, kills, draws, nap, *zarr, within=0.5, after_kill=lambda: None):
    """Kill the run at random moments, then let it end. What a process has announced, the next one must have."""
    moments = random.Random(20)
    process, left = start(path, placement, draws, nap, *zarr)
    for _ in range(kills):
        time.sleep(moments.uniform(0.0, within))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed: let it last longer"
        while (now := said(process)) is not None:
            left = now
        after_kill()
        process, now = start(path, placement, draws, nap, *zarr)
        assert now is not None and left is not None and now <= left
        left = now
    assert process.wait() == 0
    return inf.Posterior.load(str(path) + ".result")


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    same(kill_and_resume(tmp_path / "run", "threads", kills=2, draws=4000, nap=0.1), unbroken("threads", 4000))


@pytest.mark.slow
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_killed_twenty_times_and_resumed(tmp_path, placement):
    same(kill_and_resume(tmp_path / "run", placement, kills=20, draws=40_000, nap=0.1), unbroken(placement, 40_000))


class Crash(BaseException):
    """The power is cut: from here on no file operation does anything."""


def cut_power(monkeypatch, after):
    """Fail all file operations past number `after`; the first to fail writes half of what it should."""
    count, write, replace, unlink = [0], checkpoints.write, os.replace, Path.unlink

    def guard(operation, *args, **kwargs):
        count[0] += 1
        if count[0] == after + 1 and operation is write:
            write(args[0], bytes(args[1])[: len(args[1]) // 2])
        if count[0] > after:
            raise Crash
        return operation(*args, **kwargs)

    monkeypatch.setattr(checkpoints, "write", functools.partial(guard, write))
    monkeypatch.setattr(os, "replace", functools.partial(guard, replace))
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: guard(unlink, *args, **kwargs))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("after", range(3, 17))
def test_power_cut_at_every_operation(tmp_path, monkeypatch, after):
    """Three operations at the door; then write and rename draws, write and rename the checkpoint, and, from the third
    checkpoint on, remove an old one."""
    with monkeypatch.context() as patch:
        cut_power(patch, after)
        with pytest.raises(Crash):
            run(Store(tmp_path, every=0), draws=60)
    same(run(Store(tmp_path), draws=60), unbroken(draws=60))


def test_a_checkpoint_before_its_draws_would_be_seen(tmp_path, monkeypatch):
    """Planted: the checkpoint is written first, and the power cut in between."""
    put, held = files.put, []

    def swapped(path, kind, number, arrays):
        if kind == "draws":
            held.append((path, kind, number, arrays))
        else:
            put(path, kind, number, arrays)
            if number == 3:
                raise Crash
            put(*held.pop())

    with monkeypatch.context() as patch:
        patch.setattr(files, "put", swapped)
        with pytest.raises(Crash):
            run(Store(tmp_path, every=0))
    with pytest.warns(
        inf.SamplingWarning, match=r"draws-000003-\*\.npz is missing\. The run continues from the checkpoint before"
    ):
        whole = run(Store(tmp_path))
    same(whole, unbroken())


def test_states_of_another_moment_would_be_seen(tmp_path, monkeypatch):
    """Planted: the states that are saved are those before the last record."""
    old, frozen = [], files.frozen

    def stale(states):
        old.append(list(states))
        return frozen(old[-2] if len(old) > 1 else states)

    with monkeypatch.context() as patch:
        patch.setattr(files, "frozen", stale)
        run(Store(tmp_path, every=0), draws=100)
    with pytest.raises(AssertionError):
        same(run(Store(tmp_path)), unbroken())


# -- disks that refuse ---------------------------------------------------------------------------------------------------


def full(monkeypatch, failing):
    """A disk on which the write operations of these numbers fail, half-way."""
    count, write = [0], checkpoints.write

    def refuse(file, data):
        count[0] += 1
        if count[0] in failing:
            write(file, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)

    monkeypatch.setattr(checkpoints, "write", refuse)


def test_a_full_disk_costs_no_draws(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.warns(inf.SamplingWarning) as caught:
        full(patch, range(6, 10**6))
        same(run(Store(tmp_path, every=0)), unbroken())
    assert [str(w.message) for w in caught] == [
        f"store: no checkpoint could be written to {tmp_path} (No space left on device). The run goes on in memory, and is "
        "tried again every 0 s; the last good checkpoint, of 16 steps per chain, stays. Free some space, or save the "
        "posterior elsewhere at the end."
    ]
    assert len(kept(tmp_path, "draws")) == 2 and not (tmp_path / ".partial").exists()
    same(run(Store(tmp_path)), unbroken())


def test_a_disk_that_was_full_for_a_while(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.warns(inf.SamplingWarning, match="No space left"):
        full(patch, {4, 6, 7, 12})  # draws and checkpoints alike
        same(run(Store(tmp_path, every=0)), unbroken())
    same(run(Store(tmp_path)), unbroken())


def test_a_full_disk_at_the_beginning(tmp_path, monkeypatch):
    full(monkeypatch, {1})
    refused(
        lambda: run(Store(tmp_path)),
        f"store: {tmp_path} cannot be written to (No space left on device). Name another directory, or see to its permissions "
        "and the room on its disk.",
    )


def refused(what, sentence):
    with pytest.raises(ValueError) as caught:
        what()
    assert str(caught.value) == sentence


def test_directories_that_will_not_do(tmp_path):
    file = tmp_path / "file"
    file.write_text("a letter")
    refused(lambda: run(Store(file)), f"store: {file} is a file; name a directory of the run's own.")
    refused(
        lambda: run(Store(file / "run")),
        f"store: {file / 'run'} cannot be written to (Not a directory). Name another directory, or see to its permissions and "
        "the room on its disk.",
    )
    refused(
        lambda: run(Store(tmp_path)),
        f"store: {tmp_path} holds files that are no part of a run, such as file. Name a directory of the run's own.",
    )
    assert os.listdir(tmp_path) == ["file"]


def test_stores_that_are_none():
    refused(lambda: run("runs"), 'mcmc: store must be a Store, for example Store("runs/schools"), got str.')
    refused(lambda: Store("runs", every=-1), "Store: every must be a number of seconds, 0 or more, got -1.")


def test_two_runs_at_a_time(tmp_path):
    class Second(Slow):
        def begin(self, total, done):
            with pytest.raises(ValueError) as caught:
                run(Store(tmp_path))
            self.said = str(caught.value)

        def update(self, num, record, first):
            pass

    second = Second()
    same(run(Store(tmp_path), progress=second), unbroken())
    assert second.said == f"store: another run is using {tmp_path}. Wait until it has ended, or name another directory."


# -- another run ---------------------------------------------------------------------------------------------------------


@ppl.model
def other_schools(sigma):
    """As `schools`, but for the prior of tau."""
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(4.0))

    def school(s):
        z = sample("z", dist.Normal(0.0, 1.0))
        return sample("y", dist.Normal(mu + tau * z, s))

    return ppl.vmap(school)(sigma)


OTHERS = {
    "key": ({"key": jax.random.key(1)}, " (threefry2x32 [0, 0] there, threefry2x32 [0, 1] here)"),
    "number of chains": ({"chains": 3}, " (2 there, 3 here)"),
    "length of warm-up": ({"warmup": 50}, " (60 there, 50 here)"),
    "placement": ({"placement": inf.Vectorized()}, " (Threads, 2 lanes there, Vectorized, 1 lanes here)"),
    "model": ({"program": other_schools(SIGMA) | {"y": Y}}, ""),
    "data": ({"program": schools(SIGMA) | {"y": Y.at[3].add(1e-5)}}, ""),
    "choice of first positions": ({"init": inf.Uniform(radius=1.0)}, ""),
    "kernel": ({"kernel": inf.NUTS(max_depth=9)}, ""),
    "kernel ": ({"kernel": inf.adapted(inf.NUTS(), target_acceptance=0.81)}, ""),
    "kernel  ": ({"kernel": inf.NUTS(step_size=0.1)}, ""),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished")
    run(Store(path), draws=10)
    return path


def another(path, name, values):
    return (
        f"store: {path} holds another run: its {name} is not the same{values}. Name another directory in Store(...), or "
        "delete that one to begin anew."
    )


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(finished, name):
    settings, values = OTHERS[name]
    before = os.listdir(finished)
    refused(lambda: run(Store(finished), **settings), another(finished, name.strip(), values))
    assert os.listdir(finished) == before


def test_another_precision_is_refused(finished, x64):
    refused(lambda: run(Store(finished)), another(finished, "precision", " (float32 there, float64 here)"))


def test_another_version_of_the_kernel_is_refused(finished, monkeypatch):
    monkeypatch.setattr(nuts, "DIVERGENCE", 999.0)
    refused(lambda: run(Store(finished)), another(finished, "kernel's code", ""))


def test_another_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "VERSION", 99)
        run(Store(tmp_path), draws=10)
    refused(
        lambda: run(Store(tmp_path)),
        f"store: {tmp_path} was written by a newer version (schema 99; this one reads up to 1). Update evidentia.",
    )


# -- damage --------------------------------------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.fixture
def three(tmp_path):
    """A run of three checkpoints."""
    for draws in (50, 100, 150):
        run(Store(tmp_path), draws=draws)
    return tmp_path


@pytest.mark.parametrize("damage", [truncate, flip])
@pytest.mark.parametrize("kind", ["draws", "checkpoint"])
def test_a_damaged_last_checkpoint_costs_its_own_steps_only(three, kind, damage):
    file = kept(three, kind)[-1]
    damage(file)
    found = r"[0-9a-f]{8}, not the one in its name\. The run continues from the checkpoint before it, of 160 steps per chain; "
    with pytest.warns(
        inf.SamplingWarning, match=f"^store: {file} is damaged: its checksum is {found}what came after is made anew\\.$"
    ):
        same(run(Store(three)), unbroken())
    same(run(Store(three)), unbroken())


def test_damage_that_cannot_be_mended(three):
    first = kept(three, "draws")[0]
    whole = first.read_bytes()
    remedy = f"and no checkpoint before it can be used. Restore the files from a copy, or delete {three} to begin anew."
    flip(first)
    refused(
        lambda: run(Store(three)),
        f"store: {first} is damaged: its checksum is {checksum(first)}, not the one in its name, {remedy}",
    )
    first.unlink()
    refused(lambda: run(Store(three)), f"store: {three}/draws-000001-*.npz is missing, {remedy}")
    first.write_bytes(whole)
    same(run(Store(three)), unbroken())
    for file in kept(three, "checkpoint"):
        truncate(file)
    file = kept(three, "checkpoint")[-1]
    refused(
        lambda: run(Store(three)),
        f"store: {file} is damaged: its checksum is {checksum(file)}, not the one in its name, {remedy}",
    )
    for file in kept(three, "checkpoint"):
        file.unlink()
    refused(lambda: run(Store(three)), f"store: {three} has draws, but its checkpoints are missing, {remedy}")


def test_draws_that_vanish_while_the_run_lasts(tmp_path):
    class Vanish(Slow):
        def end(self):
            kept(tmp_path, "draws")[1].unlink()

    refused(
        lambda: run(Store(tmp_path, every=0), progress=Vanish()),
        f"store: {tmp_path}/draws-000002-*.npz is missing, though it was whole when the run began. Restore the file from a "
        "copy and run the same line again.",
    )


def checksum(file):
    return f"{zlib.crc32(file.read_bytes()):08x}"


@pytest.mark.slow
def test_the_page_on_long_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inf, "Store", Store, raising=False)
    space: dict = {}
    exec(compile(code("long_runs.md"), "long_runs.md", "exec"), space)
    assert space["longer"].shape == (4, 2000) and space["enough"].shape[1] < 100_000
    said = capsys.readouterr().out
    assert "the smallest effective sizes are" in said and "the mean of mu is known to 0.0" in said
    assert "store: runs/schools holds another run: its data is not the same. Name another" in said
