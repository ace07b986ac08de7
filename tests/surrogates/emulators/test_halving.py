"""Halving: the best of several networks is found, for a few trainings."""

import jax
import numpy as np
import pytest

from surrogates.emulators import halving
from surrogates.emulators.charts import Given, Log
from surrogates.emulators.ensemble import Ensemble
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.halving import Halving
from surrogates.emulators.runs import Runs

KEY = jax.random.key(0)
SMALL = Ensemble(members=8, steps=400)


def runs() -> Runs:
    x = np.linspace(0.0, 2.0, 32)
    return Runs.of(x[:, None], np.sin(5.0 * x)[:, None] * np.exp(-x)[:, None], names=("a",))


def test_the_best_is_found_and_few_steps_are_made(monkeypatch):
    """One network in four can bend as often as the curve does. Rounds of 100 and 200 steps, then 400."""
    made = []
    fit = Ensemble.fit
    monkeypatch.setattr(Ensemble, "fit", lambda self, key, runs: made.append((self.width, self.steps)) or fit(self, key, runs))
    family = Halving.over(SMALL, width=(1, 2, 3, 32))
    found = family.fit(KEY, runs())
    assert found.family.width == 32
    assert sorted(steps for _, steps in made) == [100] * 4 + [200] * 2 + [400]
    assert made[-1] == (32, 400)
    (first, rows), (second, _) = found.rounds
    assert (first, second) == (100, 200) and len(rows) == 4
    nats = [row[1] for row in rows]
    assert nats == sorted(nats, reverse=True)
    assert "width=32" in str(found.report()) and "200 steps" in str(found.report())
    np.testing.assert_array_equal(found(0.7), found.emulator(0.7))


def test_the_worst_half_instead_would_be_seen(monkeypatch):
    monkeypatch.setattr(halving, "_nats", lambda family, key, runs: -float(fit_nats(family, key, runs)))
    found = Halving.over(SMALL, width=(1, 32)).fit(KEY, runs())
    with pytest.raises(AssertionError):
        assert found.family.width == 32


def fit_nats(family, key, runs):
    return family.fit(key, runs).left_out.nats


def test_wrong_use_is_a_sentence():
    with pytest.raises(ValueError, match="two families or more"):
        Halving((SMALL,))
    with pytest.raises(ValueError, match="has no setting 'wide'.*width"):
        Halving.over(SMALL, wide=(1, 2))
    with pytest.raises(ValueError, match="same charts"):
        Halving((SMALL, Ensemble(charts=Given(a=Log.of))))
    with pytest.raises(ValueError, match="same"):
        Halving((SMALL, GaussianProcess()))
