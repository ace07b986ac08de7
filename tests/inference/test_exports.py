"""Draws leave in the forms the field reads: files for ArviZ, data frames, and a stream on the disk while a run lasts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import inference as inf
import ppl
from inference import stream as streams
from ppl import dist, sample
from tests.inference.test_store import PLACEMENTS, kept, kill_and_resume, refused, run, same, unbroken
from tests.ppl.test_how_to_pages import code

ROOT = Path(__file__).parents[2]


@ppl.model
def inner():
    sample("m", dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2))


@ppl.model
def nested():
    """A nested program, a matrix, a discrete choice, and data."""
    sample("in", inner())
    x = ppl.deterministic("n", jnp.int32(3))
    sample("y", dist.Normal(x, 1.0))


@pytest.fixture(scope="module")
def posterior():
    return inf.mcmc(
        nested() | {"y": 2.5}, inf.NUTS(), key=jax.random.key(0), chains=2, draws=40, warmup=30, progress=False,
        keep_warmup=True, check=False,
    )  # fmt: skip


# -- frames --------------------------------------------------------------------------------------------------------------


def test_a_pandas_frame_has_one_row_a_draw(posterior):
    frame = posterior.to_pandas()
    assert list(frame.columns) == ["chain", "draw", "in.m[0, 0]", "in.m[0, 1]", "in.m[1, 0]", "in.m[1, 1]", "n"]
    assert len(frame) == 80 and frame["n"].dtype == np.int32
    row = frame[(frame["chain"] == 1) & (frame["draw"] == 7)].iloc[0]
    assert row["in.m[1, 0]"] == posterior["in.m"][1, 7, 1, 0]
    assert list(posterior.to_pandas("n").columns) == ["chain", "draw", "n"]
    with pytest.raises(KeyError, match="no site 'nu' in this posterior"):
        posterior.to_pandas("nu")


def test_a_polars_frame_is_the_same(posterior):
    pytest.importorskip("polars")
    theirs, mine = posterior.to_polars(), posterior.to_pandas()
    assert theirs.columns == list(mine.columns)
    for name in theirs.columns:
        np.testing.assert_array_equal(theirs[name].to_numpy(), mine[name].to_numpy())


def test_what_is_not_installed_is_said(posterior, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"^to_polars needs polars, which is not installed: pip install polars\.$"):
        posterior.to_polars()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"^Store: zarr=\.\.\. needs zarr, which is not installed: pip install zarr\.$"):
        run(inf.Store(tmp_path / "run", zarr=tmp_path / "run.zarr"))


# -- files for ArviZ -----------------------------------------------------------------------------------------------------


def tree_of(posterior):
    return posterior.to_datatree(dims={"in.m": ["row", "column"]}, coords={"row": ["a", "b"]})


def write(tree, kind, path):
    if kind == "zarr":
        tree.to_zarr(path, zarr_format=2)  # which every generation reads, and which has texts
    else:
        tree.to_netcdf(path)


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_there_and_back(posterior, tmp_path, kind):
    """Every group, with its names, labels and attributes; no difference between what was written and what is read."""
    pytest.importorskip({"netcdf": "h5py", "zarr": "zarr"}[kind])
    tree, path = tree_of(posterior), tmp_path / f"draws.{kind}"
    write(tree, kind, path)
    back = xarray.open_datatree(path, engine={"netcdf": "h5netcdf", "zarr": "zarr"}[kind])
    xarray.testing.assert_equal(back, tree)
    groups = {"posterior", "sample_stats", "log_likelihood", "observed_data", "warmup_posterior", "warmup_sample_stats"}
    assert set(back.children) == groups
    assert back["posterior"]["in.m"].dims == ("chain", "draw", "row", "column")
    assert back["sample_stats"]["diverging"].dtype == bool and back["posterior"]["n"].dtype == np.int32
    assert json.loads(back["posterior"].attrs["provenance"]) == posterior.provenance


OLDER = """
import json, sys, warnings
import arviz, xarray
assert arviz.__version__.startswith("0."), arviz.__version__
warnings.simplefilter("ignore")
if sys.argv[2] == "netcdf":
    data = arviz.from_netcdf(sys.argv[1])
else:
    data = arviz.InferenceData.from_datatree(xarray.open_datatree(sys.argv[1], engine="zarr"))
found = {
    "groups": sorted(data.groups()),
    "dims": data.posterior["in.m"].dims,
    "rows": [str(x) for x in data.posterior["row"].values],
    "diverging": data.sample_stats["diverging"].shape,
    "mean": float(arviz.summary(data, round_to="none").loc["in.m[a, 0]", "mean"]),
    "elpd": float(arviz.loo(data).elpd_loo),
}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_the_older_arviz_opens_them(posterior, tmp_path, kind):
    """In an environment of its own, whose Python the variable ARVIZ_0 names: arviz<1 excludes what the newer one needs."""
    python = os.environ.get("ARVIZ_0")
    if python is None:
        pytest.skip("ARVIZ_0 names no Python with arviz<1")
    path = tmp_path / "draws"
    write(tree_of(posterior), kind, path)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", OLDER, path, kind], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["groups"] == sorted(tree_of(posterior).children)
    assert found["dims"] == ["chain", "draw", "row", "column"] and found["rows"] == ["a", "b"]
    assert found["diverging"] == [2, 40]
    assert found["mean"] == pytest.approx(posterior["in.m"][..., 0, 0].mean(), rel=1e-4)
    assert found["elpd"] == pytest.approx(float(dist.Normal(3.0, 1.0).log_prob(2.5)), rel=1e-4)


@pytest.mark.slow
def test_the_page_on_exports(tmp_path, monkeypatch, capsys):
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    exec(compile(code("exports.md"), "exports.md", "exec"), {})
    assert "'chain', 'draw', 'mu', 'z[0]'" in capsys.readouterr().out


# -- the stream ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("zarr")
    return inf.Store(tmp_path / "run", every=0, zarr=tmp_path / "draws.zarr")


def opened(store):
    """What anyone reads; a warning would be an error here."""
    return xarray.open_datatree(store.zarr, engine="zarr")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("placement", ["threads", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_a_stream_holds_the_draws_of_the_run(store, placement):
    """Bit for bit, written in parts, extended, and read in part."""
    settings, whole = {"placement": PLACEMENTS[placement]}, unbroken(placement)
    for draws in (1, 90, 200, 200):
        posterior = run(store, draws=draws, **settings)
        assert posterior.shape == (2, draws)
    same(posterior, whole)
    same(run(store, draws=40, **settings), run(draws=40, **settings))
    tree = opened(store)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "z_dim_0") and "warmup_posterior" not in tree.children
    np.testing.assert_array_equal(tree["posterior"]["draw"], np.arange(200))
    groups = {"posterior": whole.draws, "sample_stats": whole.stats, "warmup_sample_stats": whole.warmup_stats}
    for group, mine in groups.items():
        for name, x in mine.items():
            assert tree[group][name].dtype == x.dtype
            np.testing.assert_array_equal(tree[group][name], x)


def test_a_streamed_posterior_answers_as_one_in_memory(store, tmp_path):
    one, two = run(store), unbroken()
    assert not isinstance(one.draws["z"], np.ndarray) and isinstance(one["z"], np.ndarray)
    assert repr(one).splitlines()[0] == repr(two).splitlines()[0]
    assert repr(one.summary()).splitlines()[:-1] == repr(two.summary()).splitlines()[:-1]
    assert [str(f) for f in one.check().findings] == [str(f) for f in two.check().findings]
    xarray.testing.assert_equal(one.to_datatree(), two.to_datatree())
    mine, theirs = ([p.sample(jax.random.key(1)), p.predict(key=jax.random.key(1))] for p in (one, two))
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert one.to_pandas().equals(two.to_pandas())
    one.save(tmp_path / "one.npz")
    same(inf.Posterior.load(tmp_path / "one.npz"), two)


def test_a_stream_that_is_gone_or_new_is_made_from_the_store(store):
    run(inf.Store(store.path, every=0), draws=90)
    same(run(store), unbroken())
    shutil.rmtree(store.zarr)
    same(run(store), unbroken())
    again = inf.Store(store.path, zarr=store.path.parent / "with.zarr")
    assert run(again, keep_warmup=True).warmup_draws["z"].shape == (2, 60, 8)
    np.testing.assert_array_equal(opened(again)["warmup_posterior"]["z"], run(keep_warmup=True).warmup_draws["z"])


def test_a_stream_follows_a_store_that_went_back(store):
    """The last checkpoint is damaged: its draws are made anew, in files of other lengths under the same numbers."""
    for draws in (50, 100, 150):
        run(inf.Store(store.path, zarr=store.zarr), draws=draws)
    for kind in ("draws", "checkpoint"):
        kept(store.path, kind)[-1].write_bytes(b"nothing")
    with pytest.warns(inf.SamplingWarning, match="is damaged"):
        run(inf.Store(store.path), draws=110)  # without the stream, which does not see it
    same(run(inf.Store(store.path, zarr=store.zarr)), unbroken())


def test_gaps_in_a_stream_would_be_seen(store, monkeypatch):
    """Planted: what the faster lane has ahead of the slower one is dropped."""
    take = streams.Stream.take

    def forgetful(self, *what):
        take(self, *what)
        self._parts = [None if part is None else jax.tree.map(lambda x: x[:, :0], part) for part in self._parts]

    monkeypatch.setattr(streams.Stream, "take", forgetful)
    with pytest.raises((AssertionError, ValueError)):
        same(run(store), unbroken())


def test_a_stream_of_another_run_is_refused(store):
    run(store, draws=10)
    sentence = (
        f"store: {store.zarr} holds the draws of another run: its key is not the same. Name another path in "
        "Store(..., zarr=...), or delete that one to write it anew."
    )
    refused(lambda: run(inf.Store(store.path.parent / "other", zarr=store.zarr), key=jax.random.key(1)), sentence)
    sentence = f"store: {store.path} is there, and is no stream of draws. Name another path in Store(..., zarr=...)."
    refused(lambda: run(inf.Store(store.path.parent / "third", zarr=store.path)), sentence)


def test_a_stream_that_cannot_be_written_costs_no_draws(store, monkeypatch):
    """A disk that is full for a while, in the middle of a block; and one that stays full."""
    count, put = [0], streams._put

    def full(failing):
        def refuse(*what):
            count[0] += 1
            if count[0] in failing:
                raise OSError(28, os.strerror(28))
            put(*what)

        return refuse

    with monkeypatch.context() as patch:
        patch.setattr(streams, "_put", full({3, 14}))
        same(run(store, draws=90), run(draws=90))
        assert count[0] > 14
        patch.setattr(streams, "_put", full(range(10**6)))
        refused(
            lambda: run(store),
            f"store: {store.zarr} could not be written (No space left on device). The draws are safe in {store.path}: free "
            "some space and run the same line again.",
        )
    same(run(store), unbroken())


def test_a_rule_looks_at_a_stream(store):
    settings = {"draws": 20_000, "until": inf.TargetESS(100)}
    same(run(inf.Store(store.path, zarr=store.zarr), **settings), run(**settings))


@pytest.mark.slow
def test_a_stream_of_a_killed_run(store):
    """After a kill it opens, and holds the first draws of the run; after the resumption all of them."""
    whole, seen = unbroken("threads", 20_000), []

    def after_kill():
        if (store.zarr / ".zmetadata").exists() and "posterior" in (tree := opened(store)).children:
            z = tree["posterior"]["z"].values
            np.testing.assert_array_equal(z, whole["z"][:, : z.shape[1]])
            seen.append(z.shape[1])

    same(kill_and_resume(store.path, "threads", 3, 20_000, 0.1, store.zarr, within=1.5, after_kill=after_kill), whole)
    assert seen and 0 < max(seen) < 20_000
    np.testing.assert_array_equal(opened(store)["posterior"]["z"], whole["z"])


BIG = """
import sys
import jax, jax.numpy as jnp
import inference as inf, ppl
from ppl import dist, sample

@ppl.model
def wide():
    sample("x", dist.Normal(jnp.zeros(2000), 1.0).to_event(1))

def run(draws, name):
    zarr = f"{sys.argv[1]}/{name}.zarr" if sys.argv[2] == "stream" else None
    kernel, settings = inf.RandomWalk(step_size=0.05, metric=inf.metrics.Diagonal(jnp.ones(2000))), dict(chains=2, warmup=0)
    store = inf.Store(f"{sys.argv[1]}/{name}", zarr=zarr)
    return inf.mcmc(wide(), kernel, key=jax.random.key(0), draws=draws, store=store, progress=False, **settings)

def peak():  # of this process; ru_maxrss would begin with that of the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

run(10_000, "small")  # what writing 16 MB at a time costs, whatever the length of the run
before = peak()
posterior = run(40_000, "large")
print(peak() - before, *posterior.shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of a process")
def test_memory_stays_bounded(store):
    """A run of 160 MB of draws, then one of 640 MB: held in memory the peak grows by as much, streamed by a fraction."""

    def grown(kind):
        path = store.path / kind
        path.mkdir(parents=True)
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", BIG, path, kind], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        kilobytes, *shape = map(int, done.stdout.split())
        assert shape == [2, 40_000]
        return kilobytes / 1000

    assert grown("stream") < 300 < 450 < grown("memory")
