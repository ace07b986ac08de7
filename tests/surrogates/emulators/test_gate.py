"""The gate in nats: what it passes, what it does not, and that its bound holds as often as it says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from surrogates.emulators import gate
from surrogates.emulators.gate import accuracy, judged
from surrogates.powered import Tempered
from tests.inference.counting import Counting

KEY = jax.random.key(6)
FEW = Tempered(particles=300)


@ppl.model
def location(fn):
    sample("y", dist.Normal(ppl.call("f", fn, sample("x", dist.Normal(0.0, 1.0))), 0.1))


def program(fn):
    return location(fn) | {"y": jnp.float32(0.5)}


def test_an_exact_surrogate_passes_and_a_shifted_one_does_not():
    """A shift by a standard deviation changes the log likelihood by a normal number of sd 1, where the prior is flat."""
    truth = Counting(lambda x: x)
    target = program(truth)
    good = accuracy(target, target.intervene({"f": lambda x: x}), key=KEY, powers=FEW)
    assert good and good.sd < 1e-3 and good.bound < 1e-3 and good.share == pytest.approx(1.0, abs=1e-3)
    assert truth.asked == good.calls == 32 and good.failed == 0
    bad = accuracy(target, target.intervene({"f": lambda x: x + 0.1}), key=KEY, powers=FEW)
    assert not bad and 0.6 < bad.sd < 1.4 and bad.bound > 1.0  # of 32 draws: within 4 errors of 1
    assert "does not pass" in str(bad) and "passes" in str(good) and "sd" in str(good)


def test_a_constant_is_no_error():
    truth = -np.abs(np.linspace(-3, 3, 40))
    assert judged(truth, truth + 7.0).bound < 1e-9


def test_errors_far_below_the_best_are_allowed():
    """0.1 + 0.05 D: three nats at points that are 100 nats below, none elsewhere."""
    truth = np.append(np.zeros(35), np.full(5, -100.0))
    surrogate = truth + np.append(np.zeros(35), np.full(5, 3.0))
    assert judged(truth, surrogate).scaled < 1.0
    assert judged(np.zeros(40), surrogate - truth).scaled > 1.0


def test_what_the_truth_calls_impossible_does_not_pass():
    verdict = judged(np.append(np.zeros(30), -np.inf), np.zeros(31))
    assert not verdict and verdict.failed == 1 and verdict.sd == math.inf
    nothing = judged(np.full(20, np.nan), np.zeros(20))
    assert not nothing and nothing.failed == 20 and nothing.bound == math.inf


def coverage(level: float, num: int = 4000) -> float:
    """How often a fresh error is within the bound, of 32 others and itself."""
    rng = np.random.default_rng(0)
    errors = rng.standard_t(3, size=(num, 33))
    bounds = [gate.conformal_quantile(np.abs(row[:32]), level) for row in errors]
    return float(np.mean(np.abs(errors[:, 32]) <= bounds))


def test_the_bound_holds_as_often_as_it_says():
    """32 of 33 places: 0.970, within 4 errors of 4000 repetitions; a bound at 80 % is seen not to hold at 95 %."""
    expected = 32 / 33
    assert abs(coverage(gate.LEVEL) - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
    assert coverage(0.8) < 0.9


def test_too_few_calls_are_refused():
    target = program(lambda x: x)
    with pytest.raises(ValueError, match=r"^accuracy: calls must be a whole number of at least 19, .* got 18\.$"):
        accuracy(target, target, key=KEY, calls=18)
