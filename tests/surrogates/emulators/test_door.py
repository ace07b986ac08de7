"""The door: runs that are never more than were allowed, that go where the posterior is, and that survive what goes wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning
from inference.ledger import spent_on
from ppl import dist, sample
from surrogates.emulators.design import fresh
from surrogates.emulators.door import Emulated, emulate
from surrogates.powered import Tempered
from tests.surrogates.emulators.polynomials import Polynomials

KEY = jax.random.key(4)
CUBIC = Polynomials(3)
FEW = Tempered(particles=200)


class Counted:
    """A cubic on the host, which counts; it fails above `above`, and is interrupted after `most` points."""

    may_fail = True

    def __init__(self, above=np.inf, most=np.inf):
        self.asked, self.batches, self.above, self.most = 0, [], above, most

    def __call__(self, x):
        return jax.pure_callback(self._host, jax.ShapeDtypeStruct((2,), x.dtype), x, vmap_method="expand_dims")

    def _host(self, x):
        x = np.asarray(x)
        self.asked += x.size
        self.batches.append(np.ravel(x))
        y = np.stack([x**3 - x, 2.0 * x], -1)
        return np.where(x[..., None] > self.above, np.nan, y).astype(x.dtype)


@ppl.model
def cubic(fn):
    x = sample("x", dist.Uniform(-2.0, 2.0))
    sample("y", dist.Normal(ppl.call("cubic", fn, x), 0.05))


def conditioned(fn):
    return cubic(fn) | {"y": np.array([1.2**3 - 1.2, 2.4], np.float32)}


SHARED = Counted()  # what is compiled for one function serves all tests of it


def counted() -> Counted:
    SHARED.asked, SHARED.batches = 0, []
    return SHARED


def quiet(*args, **settings) -> Any:
    return emulate(*args, **({"key": KEY, "family": CUBIC, "progress": False} | settings))


def test_a_plain_function():
    truth = Counted()
    emulator = quiet(truth, over={"x": dist.Uniform(-2.0, 2.0)}, budget=20)
    assert truth.asked == 20 == emulator.true_calls and emulator.failed == 0
    assert len(set(np.concatenate(truth.batches))) == 20
    x = jnp.linspace(-2.0, 2.0, 9)
    np.testing.assert_allclose(jax.vmap(emulator)(x), np.stack([x**3 - x, 2 * x], -1), atol=1e-4)
    assert emulator.predict(0.5).mean.shape == (2,) and not emulator.outside(0.5)


def test_runs_go_where_the_posterior_is_and_are_never_more_than_the_budget():
    truth = counted()
    program = conditioned(truth)
    emulator = quiet(program, "cubic", budget=18, powers=FEW)
    first, *rounds = truth.batches
    assert truth.asked == 18 == emulator.true_calls
    assert len(first) == 8 and [len(r) for r in rounds] == [4, 4, 2]
    assert np.ptp(first) > 3.0  # over the prior
    later = np.concatenate(rounds)
    assert np.abs(later - 1.2).max() < 0.3, later  # sd of the posterior is 0.02, of its fourth root 0.04
    assert len(set(np.concatenate(truth.batches))) == 18
    cheap = program.intervene({"cubic": emulator})
    assert spent_on(cheap) == 18
    at = {"x": jnp.float32(1.1)}
    assert cheap.log_density(at) == pytest.approx(float(program.log_density(at)), abs=0.05)


def test_a_program_without_data_is_spread_over_its_prior():
    truth = Counted()
    emulator = quiet(cubic(truth), budget=11)
    assert truth.asked == 11 == emulator.true_calls and np.ptp(np.concatenate(truth.batches)) > 3.0


def test_runs_that_fail_are_counted_and_left_out():
    truth = Counted(above=1.0)
    emulator = quiet(truth, over={"x": dist.Uniform(-2.0, 2.0)}, budget=16)
    assert emulator.true_calls == truth.asked == 16
    assert emulator.failed == int(np.sum(np.concatenate(truth.batches) > 1.0)) > 0
    assert emulator(0.5)[0] == pytest.approx(0.5**3 - 0.5, abs=1e-4)
    assert "of which failed" in repr(emulator)
    with pytest.raises(ValueError, match=r"^emulate: all 9 runs failed: nothing can be fitted"):
        quiet(Counted(above=-5.0), over={"x": dist.Uniform(-2.0, 2.0)}, budget=9)


def test_an_interruption_keeps_what_was_run(monkeypatch):
    truth = counted()
    from surrogates.emulators import door

    def interrupted(*args):
        if truth.asked >= 12:
            raise KeyboardInterrupt
        return fresh(*args)

    monkeypatch.setattr(door, "fresh", interrupted)
    with pytest.warns(SamplingWarning, match=r"^Interrupted: 12 of 40 runs were made\."):
        emulator = quiet(conditioned(truth), budget=40, powers=FEW)
    assert emulator.true_calls == 12 and emulator(0.5)[1] == pytest.approx(1.0, abs=1e-3)


def test_an_interruption_before_anything_was_run_is_one(monkeypatch):
    from surrogates.emulators import door

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "fresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quiet(conditioned(Counted()), budget=40)


class Bar:
    def __init__(self):
        self.said = []

    def begin(self, total, done):
        self.said.append(("begin", total))

    def update(self, num, record, first):
        self.said.append((first, num, record))

    def change(self, total):
        raise AssertionError

    def end(self):
        self.said.append("end")


def test_progress_tells_calls_used_and_left():
    bar = Bar()
    quiet(conditioned(counted()), budget=14, powers=FEW, progress=bar)
    assert bar.said == [("begin", 14), (0, 8, 6), (8, 4, 2), (12, 2, 0), "end"]


def test_points_of_few_values_are_run_once():
    """There are two of them, and a budget for more."""
    truth = Counted()
    emulator = quiet(truth, over={"x": dist.Bernoulli(0.5)}, budget=10, family=Polynomials(1))
    assert truth.asked == 2 == emulator.true_calls


def test_the_same_key_runs_the_same_points():
    truth = counted()
    for _ in range(2):
        quiet(conditioned(truth), budget=12, powers=FEW)
    found = np.concatenate(truth.batches)
    np.testing.assert_array_equal(found[:12], found[12:])


def test_an_emulated_function_is_a_pytree():
    emulator = quiet(Counted(), over={"x": dist.Uniform(-2.0, 2.0)}, budget=8)
    assert isinstance(emulator, Emulated)
    slope = jax.jit(jax.grad(lambda e, x: e(x)[0], argnums=1))(emulator, 0.5)
    assert slope == pytest.approx(3 * 0.25 - 1, abs=1e-3)


def test_tables_and_the_default_family():
    x = np.linspace(0.0, 3.0, 12)[:, None]
    emulator = emulate((x, np.sin(x[:, 0])), key=KEY)
    assert emulator(1.0) == pytest.approx(np.sin(1.0), abs=1e-3)


def test_what_is_wrong_at_the_door_is_said():
    over = {"x": dist.Uniform(0.0, 1.0)}
    for make, sentence in (
        (lambda: quiet(3, budget=4), r"expected a program, a function or a table \(inputs, outputs\), got int"),
        (lambda: quiet(jnp.sin, budget=4), "say how the arguments vary"),
        (lambda: quiet(cubic, budget=4), "Call the model with its arguments first"),
        (lambda: quiet(conditioned(Counted()), over=over, budget=4), "Leave out over="),
        (lambda: quiet(jnp.sin, over=over, budget=0), "budget must be a whole number of runs, at least 1, got 0"),
        (lambda: quiet(jnp.sin, over=over), "budget must be a whole number of runs, at least 1, got None"),
        (lambda: quiet(jnp.sin, over=over, budget=4, key=3), "key must be one typed key"),
        (lambda: quiet(jnp.sin, over=over, budget=4, power=0.0), "power must be above 0 and at most 1, got 0.0"),
        (lambda: quiet(lambda x: np.sin(x), over=over, budget=4), r"it is one for the host: wrap it, sur\.simulator"),
        (lambda: quiet(lambda x: (x, x), over=over, budget=4), "the function must return one array"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()


@pytest.mark.slow
def test_an_emulator_is_corrected_to_the_exact_posterior():
    from surrogates.correct import correct

    truth = Counted()
    program = conditioned(truth)
    emulator = quiet(program, budget=16, family=Polynomials(2), powers=FEW)
    posterior = correct(program, program.intervene({"cubic": emulator}), key=KEY)
    x = np.linspace(-2, 2, 40_001)
    p = np.exp(-0.5 * ((x**3 - x - 0.528) ** 2 + (2 * x - 2.4) ** 2) / 0.05**2)
    mean = np.sum(p * x) / np.sum(p)
    sd = np.sqrt(np.sum(p * x**2) / np.sum(p) - mean**2)
    assert isinstance(posterior, inf.Posterior) and posterior.ledger.calls["design"] == 16
    assert truth.asked == posterior.ledger.total
    assert abs(posterior["x"].mean() - mean) < 4 * sd / (posterior.ledger.ess or 1.0) ** 0.5
