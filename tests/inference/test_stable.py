"""The warm-up that ends when the chains agree: what they have to agree in, and that a resumed run ends it at the same step."""

import shutil
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest

import inference as inf
from inference import store as files
from inference.mcmc.adaptation.stable import UntilStable
from inference.mcmc.adaptation.warmup import Schedule
from inference.mcmc.programs import Lanes
from tests.inference.targets import COVARIANCE, MEAN, correlated
from tests.inference.test_store import Store, same

WARMUP = "mcmc: warmup must be a whole number of at least 0, or UntilStable(...)"


class Info(NamedTuple):
    lp: np.ndarray
    diverging: np.ndarray


def reached(positions, lp=None, diverging=False, rule=UntilStable()):  # noqa: B008
    lp = positions.sum(axis=2) if lp is None else lp
    return rule.reached(positions, Info(lp, np.broadcast_to(diverging, lp.shape)))


def test_what_the_chains_have_to_agree_in():
    random = np.random.default_rng(0)
    x = random.normal(size=(4, 400, 3))
    assert reached(x)
    assert not reached(x[:1])  # one chain has none to agree with
    apart = 0.6 * np.arange(4)[:, None, None] * np.array([0, 0, 1])
    assert not reached(x + apart, lp=x.sum(axis=2))  # in a coordinate alone
    assert not reached(x, lp=(x + apart).sum(axis=2))  # in the log density alone
    assert reached(x + apart * (np.arange(400) < 200)[None, :, None])  # early on they may be anywhere
    assert not reached(np.cumsum(x, axis=1))  # few effective draws, and drifting
    assert not reached(np.repeat(x[:, :40], 10, axis=1), rule=UntilStable(rhat=9.0))  # few effective draws
    slow = np.repeat(random.normal(size=(4, 1000, 3)), 6, axis=1)
    assert not reached(slow)  # 2000 effective draws, and a sixth of all
    assert reached(slow[:, ::3])
    assert not reached(x, diverging=random.uniform(size=(4, 400)) < 0.03)
    assert reached(x, diverging=np.arange(400) < 100)  # early on they may diverge
    still = x * np.array([1, 0, 1])
    assert reached(still, lp=x.sum(axis=2))  # a coordinate that never moves, such as a discrete one, says nothing
    assert not reached(np.zeros((4, 400, 3)))
    assert not reached(x * np.array([1, 1, 1, 0])[:, None, None])  # a chain that is stuck


def test_of_many_chains_some_are_looked_at():
    x = np.random.default_rng(1).normal(size=(1024, 200, 2))
    assert reached(x) and not reached(x + (np.arange(1024) % 16)[:, None, None])


@pytest.mark.parametrize(("most", "times"), [(100, 0), (237, 0), (238, 1), (1000, 7), (5000, 14)])
def test_what_is_left_of_a_stable_warm_up_polishes_the_step_size(most, times):
    """The metric is frozen after the look, not before: then the search for the step size begins anew."""
    looks = list(UntilStable(most).looks())
    assert len(looks) == times and all(num == 200 for num, _ in looks[:1])
    for num, length in looks:
        early, last = Schedule().borders(length)
        assert early < num < last <= num + 2 and last < length < most


def sampled(**settings):
    return inf.mcmc(correlated(), inf.NUTS(), key=jax.random.key(0), progress=False, check=False, **{"draws": 300} | settings)


def test_the_default_ends_early_and_is_right():
    posterior = sampled(draws=1000, keep_warmup=True)
    length = posterior.provenance["warmup"]
    assert 200 < length < 500 and posterior.shape == (4, 1000)
    assert posterior.warmup_stats["lp"].shape == posterior.warmup_draws["x"].shape[:2] == (4, length)
    assert np.unique(posterior.stats["step_size"][0]).size == 1  # nothing is learned after it
    x = posterior["x"].reshape(-1, len(MEAN))
    assert (np.abs(x.mean(axis=0) - MEAN) < 5 * np.sqrt(np.diag(COVARIANCE) / 1000)).all()


@pytest.mark.slow
def test_a_whole_number_is_the_length_and_one_chain_takes_all():
    assert sampled(warmup=700).provenance["warmup"] == 700
    assert sampled(warmup=UntilStable(300), chains=1).provenance["warmup"] == 300
    assert sampled(warmup=UntilStable(600, ess=1e9)).provenance["warmup"] == 600


class Enough(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [150, 230, 400])
def test_a_run_that_was_broken_off_ends_its_warm_up_at_the_same_step(tmp_path, monkeypatch, at):
    """Broken off in the warm-up, between the look and its end, and after it."""
    save = files.Kept.save

    def breaking(self, states, records, done):
        save(self, states, records, done)
        if min(done) >= at:
            raise Enough

    with monkeypatch.context() as patch, pytest.raises(Enough):
        patch.setattr(files.Kept, "save", breaking)
        sampled(store=Store(tmp_path, every=0))
    whole = sampled()
    same(sampled(store=Store(tmp_path, every=0)), whole)
    assert whole.provenance["warmup"] < 400


@pytest.mark.slow
def test_a_run_whose_first_chain_had_not_begun(tmp_path, monkeypatch):
    save = files.Kept.save

    def breaking(self, states, records, done):
        if done[0] == 0 and done[1] > 0:
            save(self, states, records, done)
            raise Enough

    def late(lane, step=Lanes.step):
        return lambda self, at, *args: (time.sleep(0.5 * (at == lane)), step(self, at, *args))[1]

    with monkeypatch.context() as patch, pytest.raises(Enough):
        patch.setattr(Lanes, "step", late(0))
        patch.setattr(files.Kept, "save", breaking)
        sampled(store=Store(tmp_path, every=0))
    same(sampled(store=Store(tmp_path)), sampled())


@pytest.mark.slow
def test_a_finished_run_is_only_read_and_a_longer_one_extends_it(tmp_path, monkeypatch):
    short = sampled(store=Store(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(files, "put", None)
        same(sampled(store=Store(tmp_path)), short)
    same(sampled(store=Store(tmp_path), draws=500), sampled(draws=500))


@pytest.mark.slow
def test_a_stream_knows_where_the_draws_begin(tmp_path):
    pytest.importorskip("zarr")
    whole, store = sampled(), Store(tmp_path / "run", every=0, zarr=tmp_path / "x.zarr")
    for streamed in (sampled(store=store, draws=200), sampled(store=store)):  # the second is told by the store
        assert streamed.warmup_stats["lp"].shape == (4, whole.provenance["warmup"])
    np.testing.assert_array_equal(streamed["x"], whole["x"])
    shutil.rmtree(tmp_path / "x.zarr")  # made again
    np.testing.assert_array_equal(sampled(store=store)["x"], whole["x"])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: UntilStable(0), "UntilStable: most must be a whole number of at least 1, got 0."),
        (lambda: UntilStable(rhat=1), "UntilStable: rhat must be above 1, for example 1.03, got 1."),
        (lambda: UntilStable(ess=-1), "UntilStable: ess must be a number of draws, 0 or more, got -1."),
        (
            lambda: sampled(warmup=UntilStable),
            "mcmc: warmup must be a whole number of at least 0, or UntilStable(...), got UntilStable.",
        ),
        (
            lambda: sampled(warmup="long"),
            "mcmc: warmup must be a whole number of at least 0, or UntilStable(...), got 'long'.",
        ),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence
