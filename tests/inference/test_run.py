"""The loop: lanes stay level, records are whole, budgets are read."""

import numpy as np
import pytest

from inference.run import run, seconds


def count(lane, state, start, num):
    """A 'compiled program' that counts, with a buffer longer than what is asked for."""
    row = np.arange(start, start + 50)[None]
    return state + int(num), (row, {"lane": np.full((1, 50), lane)})


@pytest.mark.parametrize("workers", [1, 3])
def test_every_lane_takes_every_step_once(workers):
    outcome = run(count, [0, 0, 0], 1234, start=7, most=50, workers=workers)
    assert outcome.done == [1234] * 3 == outcome.states and outcome.reason is None
    for lane, records in enumerate(outcome.records):
        steps = np.concatenate([r[0] for r in records], axis=1)[0]
        np.testing.assert_array_equal(steps, np.arange(7, 7 + 1234))
        assert all((r[1]["lane"] == lane).all() for r in records)


def test_lanes_stay_level_when_time_runs_out():
    outcome = run(count, [0] * 5, 10**9, most=50, budget=0.1)
    assert outcome.reason == "budget" and min(outcome.done) > 0
    assert max(outcome.done) - min(outcome.done) <= 50


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5 min", 300), ("1.5h", 5400), (3, 3), (None, np.inf)])
def test_budgets(text, expected):
    assert seconds(text) == expected
