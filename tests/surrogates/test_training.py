"""Training: how the rate falls, budgets, stores, several devices, Muon, half precision, and what is shown."""

import io
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from inference import compiled
from inference.fixed import Fixed
from inference.optimise.ascent import ascent
from inference.progress import Silent
from inference.vi.free import Free
from ppl import dist, sample
from surrogates.training import annealed, muon, trained
from surrogates.trunk import Linear, Trunk

KEY = jax.random.key(0)


@ppl.model
def source():
    return sample("x", dist.Normal(2.0, 1.0))


@inf.expectation
def log_score(cases, net):
    choices, _ = ppl.draw(cases)
    return dist.Normal(net, 1.0).log_prob(choices["x"])


def test_the_rate_rises_for_a_twentieth_and_ends_at_zero():
    optimizer = annealed(100, optax.sgd(1.0))
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(100):
        update, state = optimizer.update(jnp.ones(()), state)
        rates.append(-float(jnp.asarray(update)))
    assert np.argmax(rates) in (4, 5, 6) and max(rates) > 0.95
    assert rates[0] < 0.05 and rates[-1] < 0.01 and (np.diff(rates[6:]) < 0.0).all()


def test_a_budget_compiles_one_program():
    before = set(compiled._programs)
    own = inf.expectation(lambda cases, net: dist.Normal(net, 1.0).log_prob(ppl.draw(cases)[0]["x"]))  # no other test's
    net, fit = trained(own, source(), jnp.zeros(()), key=KEY, budget=1.0, batch=8, progress=False)
    assert len(set(compiled._programs) - before) == 1
    assert fit["net"] == net and np.isfinite(fit.values).all()


def test_steps_and_budget_are_one_or_the_other():
    with pytest.raises(ValueError, match="say steps=, or a budget="):
        trained(log_score, source(), jnp.zeros(()), key=KEY, steps=10, budget="1s")


# -- several devices ---------------------------------------------------------------------------------------------------------


class Small(eqx.Module):
    """Predicts the last of four numbers from the others."""

    unit: Fixed
    reads: Linear
    trunk: Trunk
    seed: jax.Array
    writes: Linear

    def law(self, x):
        tokens = self.reads(x[:, None] / self.unit.value)
        return dist.Normal(self.writes(self.trunk(self.seed, tokens, jnp.ones(len(x), bool)))[0, 0], 1.0)


@ppl.model
def four():
    sample("x", dist.Normal(sample("mu", dist.Normal(0.0, 2.0)), 1.0).expand([4]))


@inf.expectation
def of_last(cases, net):
    choices, _ = ppl.draw(cases)
    return net.law(choices["x"][:3]).log_prob(choices["x"][3])


def small(width: int = 8) -> Small:
    trunk = Trunk.of(width, 2, 2, key=KEY, precision=jnp.float32)
    seed = jax.random.normal(KEY, (1, width))
    return Small(Fixed(jnp.array(2.0)), Linear.of(KEY, 1, width), trunk, seed, Linear.of(KEY, width, 1))


TRAINED = partial(trained, of_last, four(), small(), key=KEY, steps=20, batch=64, progress=False)


@pytest.fixture(scope="module")
def alone():
    return TRAINED()


def test_eight_devices_train_the_network_of_one(alone):
    """The same keys: what differs is the order of sums, 1e-7 of the gradient a step; Adam's first steps are of the gradient's
    sign, so where it is about zero they may differ, by no more than the rate."""
    net, fit = TRAINED(placement=inf.Sharded())
    np.testing.assert_allclose(fit.values, alone[1].values, rtol=1e-4)
    for x, y in zip(jax.tree.leaves(net), jax.tree.leaves(alone[0]), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)
        assert len(x.sharding.device_set) == 1


def test_each_device_draws_and_scores_its_share():
    """An eighth of the work, and the optimiser, which all have. What crosses is the gradient, and no case."""
    given = {"cases": four(), "net": small()}

    def program(placement):
        return ascent(of_last, Free("maximize", given, "net"), given, KEY, 64, annealed(20), placement)[0].wait()

    one, each = (program(placement) for placement in (None, inf.Sharded()))
    assert each.cost_analysis()["flops"] < 0.2 * one.cost_analysis()["flops"]
    assert "all-reduce" in each.as_text() and "all-gather" not in each.as_text()


def test_cases_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="100 samples a step cannot be shared out evenly among 8 devices; ask for 104"):
        trained(log_score, source(), jnp.zeros(()), key=KEY, steps=3, batch=100, placement=inf.Sharded(), progress=False)
    threads: Any = inf.Threads()
    with pytest.raises(ValueError, match="shared out among devices by Sharded.., got Threads"):
        trained(log_score, source(), jnp.zeros(()), key=KEY, steps=3, placement=threads, progress=False)


# -- budgets and stores ------------------------------------------------------------------------------------------------------


class StopAfter(Silent):
    """Presses Ctrl-C after so many chunks."""

    def __init__(self, chunks: int):
        self.left = chunks

    def update(self, num, record, first):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_budget_that_was_broken_off_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """The number of steps is remembered: a second measurement would say another."""
    measured = iter([300, 400])
    monkeypatch.setattr("surrogates.training._steps", lambda *_: next(measured))
    fit = partial(trained, log_score, source(), jnp.zeros(()), key=KEY, batch=8)
    whole, of_whole = fit(steps=300, progress=False)
    store = inf.Store(tmp_path / "run", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(budget="1min", store=store, progress=StopAfter(2))
    assert store.planned() == 300
    net, again = fit(budget="1min", store=store, progress=False)
    np.testing.assert_array_equal(again.values, of_whole.values)
    assert len(again.values) == 300 and net == whole
    with pytest.raises(ValueError, match="holds a run of 300 steps.*Say steps=300"):
        fit(steps=500, store=store)
    assert next(measured) == 400  # nobody asked again


# -- Muon --------------------------------------------------------------------------------------------------------------------


def test_muon_moves_the_matrices_of_the_trunk_and_adam_the_rest():
    """Stacked biases have two axes, as matrices do, and stacked matrices three: neither is taken for the other."""
    shapes = {"net.trunk.blocks.out.weight": (3, 8, 8), "net.trunk.blocks.out.bias": (3, 8), "net.seeds.tokens": (4, 8)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    slope = {name: jax.random.normal(KEY, shape) for name, shape in shapes.items()}
    optimizer = muon(1e-3)
    updates: Any = optimizer.update(slope, optimizer.init(params), params)[0]
    for matrix in updates["net.trunk.blocks.out.weight"]:  # a rate of 1e-3 * 0.2 * sqrt(8), singular values near 1
        stretched = jnp.linalg.svd(matrix / (1e-3 * 0.2 * 8**0.5), compute_uv=False)
        assert 0.6 < stretched.min() and stretched.max() < 1.3
    for name in ("net.trunk.blocks.out.bias", "net.seeds.tokens"):  # Adam's first step is of the gradient's sign
        steps = -updates[name] * jnp.sign(slope[name])
        np.testing.assert_allclose(steps, steps.mean(), rtol=1e-2)
        assert 1e-3 < steps.mean() < 1.5e-3  # with Nesterov's momentum


def test_muon_trains_and_leaves_constants_alone():
    net, _ = TRAINED(optimizer=muon())
    changed = jax.tree.map(lambda new, old: not np.array_equal(new, old), net, small())
    assert not changed.unit.value
    assert all(jax.tree.leaves(eqx.tree_at(lambda net: net.unit, changed, None)))


# -- half precision ----------------------------------------------------------------------------------------------------------


def test_half_precision_scores_as_single_does():
    """On CPUs, too. Products of 8 bits err by 2^-9 each; blocks that do something, so that it can be seen."""
    keys = iter(jax.random.split(KEY, 100))
    whole = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), small(16))
    half = eqx.tree_at(lambda net: net.trunk, whole, Trunk(whole.trunk.blocks, jnp.dtype(jnp.bfloat16)))
    score = jax.jit(jax.value_and_grad(partial(of_last.estimate, samples=200), argnums=2))
    (one, slope), (two, other) = (score(KEY, four(), net) for net in (whole, half))
    assert one != two and float(two) == pytest.approx(float(one), abs=2e-2)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(other))
    slope, other = (jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (slope, other))
    assert jnp.linalg.norm(slope - other) < 0.03 * jnp.linalg.norm(slope)


# -- what is shown -----------------------------------------------------------------------------------------------------------


def test_a_terminal_shows_the_score_and_the_time_left(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    trained(log_score, source(), jnp.zeros(()), key=KEY, steps=2000, batch=8)
    assert "objective -1." in stream.getvalue() and "left" in stream.getvalue()
    assert "2000/2000" in stream.getvalue()
