"""The last stages of a run: the same numbers as those of a run that kept all of them."""

import jax
import numpy as np
import pytest

import ppl
from inference.resampling import Systematic, When
from inference.smc import window
from inference.smc.ancestor_tree import AncestorTree
from inference.smc.history import Folding, History, Paths
from inference.smc.particle_filter import particle_filter
from inference.smc.sample import smc
from inference.smc.tempering import tempering
from inference.smc.window import Window
from inference.store import Store
from ppl import dist, sample


@ppl.model
def walk(length):
    start = sample("start", dist.Normal(0.0, 1.0))

    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    ppl.scan(step, start, length=length)


LENGTH = 30
PROGRAM = walk(LENGTH) | {"y": np.sin(np.arange(LENGTH))}
METHOD = particle_filter(resample=When(Systematic(), ess=0.9))


def run(history, **settings):
    settings = {"particles": 64, "islands": 2, "progress": False, "check": False} | settings
    return smc(PROGRAM, METHOD, key=jax.random.key(0), history=history, **settings)


@pytest.fixture(scope="module")
def everything():
    return run(Paths())


@pytest.mark.parametrize("num", [1, 7, 100])
def test_the_window_is_the_end_of_all(everything, num):
    seen = run(Window(num))
    last = min(num, LENGTH)
    assert seen["z"].shape == (1, 128, last)
    np.testing.assert_array_equal(seen["z"], everything["z"][:, :, -last:])
    np.testing.assert_array_equal(seen["start"], everything["start"])
    np.testing.assert_array_equal(seen.run.filtered("z"), everything.run.filtered("z")[-last:])
    assert seen.log_evidence == everything.log_evidence
    assert seen.run.rows[0].kept[0].ancestors.shape == (last, 64)


def test_blocks_fold_as_one():
    """However stages are dealt out; and no more is held than the window."""
    whole = {"x": np.arange(20.0).reshape(10, 2)}
    for cuts in ([], [3], [1, 2, 9], [8]):
        held = None
        for block in np.split(whole["x"], cuts):
            held = Window(4).fold(held, {"x": block})
            assert held["x"].base is None and len(held["x"]) <= 4
        np.testing.assert_array_equal(held["x"], whole["x"][-4:])


def test_a_window_that_forgets_whose_child_one_is_would_be_seen(everything, monkeypatch):
    """Planted: paths are not followed back."""

    class Straight(Paths):
        def draws(self, path, population, kept, slots):
            return super().draws(path, population, kept._replace(ancestors=kept.ancestors * 0 + np.arange(64)), slots)

    monkeypatch.setattr(window, "Paths", Straight)
    seen = run(Window(7))
    assert (seen["z"] != everything["z"][:, :, -7:]).any()


def test_a_history_that_folds_says_how():
    assert issubclass(Window, Folding) and not hasattr(History, "fold")
    with pytest.raises(TypeError, match="abstract"):
        type("Forgetful", (Folding,), {"keep": lambda *_: (), "draws": lambda *_: {}})()


def test_wrong_use_is_told(tmp_path):
    for num in (0, -3, 2.0, True):
        with pytest.raises(
            ValueError, match=rf"^Window: the number of stages must be a whole number of at least 1, got {num}\.$"
        ):
            Window(num)
    for history in (Window(3), Paths(), AncestorTree()):
        sentence = rf"^smc: {type(history).__name__} keeps .* a program's ppl\.scan, but by this method .* Leave out history\."
        with pytest.raises(ValueError, match=sentence):
            smc(PROGRAM, tempering(), key=jax.random.key(0), history=history, progress=False)
    with pytest.raises(ValueError, match=r"is held in memory alone, so the run cannot be kept in a store"):
        run(Window(3), store=Store(tmp_path / "run"))
