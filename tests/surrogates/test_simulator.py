"""Simulators: the host's function bit for bit under every transformation, one call a batch, sentences for what goes wrong."""

import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.run_cache import MemoryCache
from surrogates.simulator import Simulator, simulator
from tests.surrogates.host_functions import at_worst, decay, with_jax

ROOT, CURVE, NUMBER = Path(__file__).parents[2], jax.ShapeDtypeStruct((5,), float), jax.ShapeDtypeStruct((), float)
RATES = np.linspace(0.1, 1.0, 6)
FAILS = (jax.errors.JaxRuntimeError, ValueError)  # a sentence said in the middle of a compiled program comes out as JAX's own


def curves(rates, start) -> np.ndarray:
    """What the function says by itself, in the precision of the test."""
    dtype = jnp.zeros(()).dtype
    return np.stack([decay(dtype.type(rate), dtype.type(start)) for rate in rates]).astype(dtype)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["eager", "jit", "remat"])
def test_the_output_is_the_functions_bit_for_bit(wrap, precision):
    sim = simulator(decay, CURVE)
    for rate in RATES[:2]:
        out = wrap(sim)(rate, 2.0)
        assert isinstance(out, jax.Array) and out.dtype == precision
        np.testing.assert_array_equal(out, curves([rate], 2.0)[0])
    assert sim.counts[:5] == (2, 2, 2, 0, 0)


BATCHES = {
    "vmap": (lambda sim: jax.vmap(sim, (0, None))(RATES, 2.0), 1),
    "vmap of jit": (lambda sim: jax.vmap(jax.jit(sim), (0, None))(RATES, 2.0), 1),
    "jit of vmap": (lambda sim: jax.jit(jax.vmap(sim, (0, None)))(RATES, 2.0), 1),
    "in_axes=1": (lambda sim: jax.vmap(lambda x: sim(x[0], x[1]), 1)(jnp.stack([RATES, jnp.full(6, 2.0)])), 1),
    "out_axes=1": (lambda sim: jax.vmap(sim, (0, None), 1)(RATES, 2.0).T, 1),
    "nested": (lambda sim: jax.vmap(jax.vmap(sim, (0, None)), (0, None))(RATES.reshape(2, 3), 2.0).reshape(6, 5), 1),
    "nested, crosswise": (lambda sim: jax.vmap(jax.vmap(sim, (None, 0)), (0, None))(RATES, jnp.full(3, 2.0))[:, 1], 1),
    "lax.map": (lambda sim: jax.lax.map(lambda rate: sim(rate, 2.0), jnp.asarray(RATES)), 6),
    "lax.map, batches": (lambda sim: jax.lax.map(lambda rate: sim(rate, 2.0), jnp.asarray(RATES), batch_size=3), 2),
    "scan": (lambda sim: jax.lax.scan(lambda c, rate: (c, sim(rate, 2.0)), 0.0, jnp.asarray(RATES))[1], 6),
    "vmap of scan": (
        lambda sim: jax.vmap(lambda r: jax.lax.scan(lambda c, x: (c, sim(x, 2.0)), 0.0, r)[1])(RATES.reshape(3, 2)).reshape(
            6, 5
        ),
        2,
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_one_call_of_the_host_a_batch(name):
    ask, calls = BATCHES[name]
    sim = simulator(decay, CURVE)
    np.testing.assert_array_equal(ask(sim), curves(RATES, 2.0))
    assert (sim.counts.calls, sim.counts.run, sim.counts.failed) == (calls, 6, 0)


def test_shared_arguments_are_not_repeated():
    """What no axis is mapped over reaches the host once, however many lanes there are; so does an empty batch, never."""
    seen = []

    class Spy(MemoryCache):
        def get(self, keys):
            seen.append(len(list(keys)))
            return super().get(keys)

    sim = simulator(lambda x, grid: x * grid.sum(), NUMBER, cache=Spy())
    text = str(jax.make_jaxpr(jax.vmap(sim, (0, None)))(jnp.ones(7), jnp.ones(100)))
    assert "1,100]" in text and "7,100]" not in text
    np.testing.assert_array_equal(jax.vmap(sim, (0, None))(jnp.arange(3.0), jnp.ones(100)), [0.0, 100.0, 200.0])
    assert jax.vmap(sim, (0, None))(jnp.zeros(0), jnp.ones(100)).shape == (0,) and seen == [3]


def test_pytrees_and_settings():
    sim = simulator(functools.partial(lambda x, scale: {"a": x * scale, "b": [x > 0]}, scale=3), {"a": CURVE, "b": [NUMBER]})
    with pytest.raises(FAILS, match=r"it returned an array of shape \(\), where float64\[5\] was expected"):
        sim(2.0)
    sim = simulator(lambda x: {"a": np.full(5, x), "b": [x > 0]}, {"a": CURVE, "b": [NUMBER]})
    out = jax.jit(jax.vmap(sim))(jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(out["a"][1], -jnp.ones(5))
    np.testing.assert_array_equal(out["b"][0], [1.0, 0.0])


def test_every_point_is_paid_for_once():
    sim = simulator(decay, CURVE)
    twice = jax.vmap(sim, (0, None))(np.concatenate([RATES, RATES]), 2.0)
    np.testing.assert_array_equal(twice[:6], twice[6:])
    assert sim.counts[:5] == (12, 1, 6, 0, 6)
    jax.jit(sim)(RATES[0], 2.0)
    assert sim.counts[:5] == (13, 2, 6, 0, 7)
    sim(np.nextafter(np.float32(RATES[0]), np.float32(1.0)), 2.0)  # the last bit is another number
    assert sim.counts.run == 7


def test_failed_runs_are_rows_of_nan_counted_with_their_reason():
    sim = simulator(at_worst, NUMBER)
    out = jax.jit(jax.vmap(sim))(jnp.array([-1.0, 1.0, 11.0, -1.0]))
    np.testing.assert_array_equal(out, [np.nan, 2.0, np.nan, np.nan])
    assert sim.counts.run == 3 and sim.counts.failed == 2
    assert sim.failures == {"ArithmeticError: no steady state at -1": 1, "it returned numbers that are not finite": 1}
    assert "3 runs (2 failed)" in repr(sim) and "failed 1 times: ArithmeticError" in repr(sim)
    sim(-1.0)
    assert sim.counts.run == 3  # a failure is known, too


def test_a_shape_that_is_wrong_once_is_a_failed_run():
    """A solver that stops early returns a part of its curve."""
    sim = simulator(lambda x: np.ones(5 if x < 1 else 3), CURVE)
    sim(0.0)
    assert np.isnan(sim(2.0)).all()
    assert list(sim.failures) == ["it returned an array of shape (3,), where float64[5] was expected."]


def never(x):
    raise AssertionError("it was run")


BAD = {
    "no function": (lambda: simulator(3, CURVE), "expected a function, got int"),
    "no output": (lambda: simulator(decay, (5,)), "out must be jax.ShapeDtypeStruct"),
    "integers": (lambda: simulator(decay, jax.ShapeDtypeStruct((5,), int)), "Numbers are floating"),
    "limit": (lambda: simulator(decay, CURVE, limit=-1), "limit must be a whole number of runs, or None, got -1"),
    "cache": (lambda: simulator(decay, CURVE, cache=3), "cache must be a path or a RunCache, got int"),
    "executor": (lambda: simulator(decay, CURVE, executor=4), "expected Processes\\(4\\), or a concurrent.futures.Executor"),
    "no argument": (lambda: simulator(never, CURVE)(), "'never': it needs an argument at least"),
    "a key": (lambda: simulator(never, CURVE)(jax.random.key(0)), "argument 0 must be an array of numbers, got PRNGKeyArray"),
    "text": (lambda: simulator(never, CURVE)(1.0, "a"), "argument 1 must be an array of numbers, got str"),
    "beyond the limit": (lambda: simulator(never, CURVE, limit=0)(1.0), "limit=0 runs, 0 were made, and 1 more are asked for"),
    "wrong shape": (lambda: simulator(lambda x: x, CURVE)(1.0), r"an array of shape \(\), where float64\[5\] was expected"),
    "nothing": (lambda: simulator(lambda x: None, CURVE)(1.0), "it returned NoneType, where"),
    "ragged": (lambda: simulator(lambda x: [[1.0], [1.0, 2.0]], CURVE)(1.0), "it returned list, where"),
    "complex": (lambda: simulator(lambda x: 1j * np.ones(5), CURVE)(1.0), "it returned ndarray, where"),
    "another pytree": (lambda: simulator(lambda x: [x], (NUMBER, NUMBER))(1.0), "it returned list, where"),
}


@pytest.mark.parametrize("name", BAD)
def test_sentences(name):
    ask, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        ask()


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.vmap, lambda f: jax.jit(lambda x: jax.lax.map(f, x))], ids=["jit", "vmap", "map"]
)
def test_sentences_come_out_of_compiled_programs(wrap):
    """No hang, and the next call is as good as any."""
    sim = simulator(lambda x: np.zeros(5) + x.sum(), CURVE, limit=1)
    x = jnp.arange(2.0)
    with pytest.raises(FAILS, match="limit=1 runs, . were made, and . more are asked for"):
        for _ in range(2):
            jax.block_until_ready(wrap(sim)(x + _))
    sim.limit = 9
    assert np.isfinite(wrap(sim)(x)).all()


def test_jax_inside_is_refused():
    """It could wait for ever for the threads that wait for it (jax#24255, jax#5934)."""
    for ask in (lambda sim: sim(1.0), lambda sim: jax.jit(sim)(1.0), lambda sim: jax.vmap(sim)(jnp.ones(3))):
        with pytest.raises(FAILS, match="it runs JAX, which a function on the host must not"):
            jax.block_until_ready(ask(simulator(with_jax, NUMBER)))
    returns = simulator(lambda x: ONE, NUMBER)
    with pytest.raises(ValueError, match="it runs JAX, which a function on the host must not"):
        returns(1.0)


ONE = jnp.ones(())


def test_a_simulator_inside_of_a_simulator():
    """Inside of a run all is NumPy's; one that asks for itself without end has failed, and does not wait for itself."""
    inner = simulator(decay, CURVE)
    outer = simulator(lambda x: inner(x, 2.0).sum(), NUMBER)
    assert jax.jit(outer)(0.5) == pytest.approx(float(curves([0.5], 2.0).sum(dtype=float)))

    endless = simulator(lambda x: endless(x), NUMBER)
    assert np.isnan(jax.jit(endless)(1.0)) and any("Recursion" in why for why in endless.failures)


def test_threads_that_ask_for_one_point_share_the_run():
    begun, go = threading.Event(), threading.Event()

    def slow(x):
        begun.set()
        assert go.wait(60.0)
        return x + 1.0

    sim, out, one = simulator(slow, NUMBER), [], jnp.ones(())
    ask = jax.jit(sim).lower(one).compile()  # (of a jitted function a second thread waits for the first one's first call)
    threads = [threading.Thread(target=lambda: out.append(float(ask(one)))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60.0)
    threads[1].start()
    while sim.counts.asked < 2 and threads[1].is_alive():
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join(60.0)
    assert out == [2.0, 2.0] and sim.counts.run == 1


GRADIENTS = {
    "grad": lambda f: jax.grad(f)(1.0),
    "jit of grad": lambda f: jax.jit(jax.grad(f))(1.0),
    "grad of jit": lambda f: jax.grad(jax.jit(f))(1.0),
    "jvp": lambda f: jax.jvp(f, (1.0,), (1.0,)),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f))(jnp.ones(2)),
    "grad of vmap": lambda f: jax.grad(lambda x: jax.vmap(f)(x).sum())(jnp.ones(2)),
    "grad of scan": lambda f: jax.grad(lambda x: jax.lax.scan(lambda c, _: (c + f(x), None), 0.0, length=2)[0])(1.0),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_is_refused_with_what_to_do(name):
    sim = simulator(decay, CURVE, name="voltage")
    with pytest.raises(
        ValueError, match="simulator 'voltage': a gradient was asked for.*RandomWalk.*Slice.*delayed_acceptance"
    ):
        GRADIENTS[name](lambda x: sim(x, 2.0).sum())
    assert sim.counts.asked == 0


def test_gradients_of_the_rest_are_as_ever():
    sim = simulator(decay, CURVE)
    total = curves([0.5], 2.0).sum()
    assert jax.grad(lambda z: z * sim(0.5, 2.0).sum())(3.0) == pytest.approx(total)
    both = jax.jit(jax.grad(lambda x, z: z * sim(jax.lax.stop_gradient(x), 2.0).sum(), (0, 1)))(0.5, 3.0)
    assert both[0] == 0.0 and both[1] == pytest.approx(total)


# -- in models ---------------------------------------------------------------------------------------------------------------


def cell(sim: Simulator) -> ppl.Program:
    """A curve of unknown rate, with noise of 0.1: nothing slower than 0 can be computed."""

    @ppl.model
    def model():
        rate = sample("rate", dist.Normal(0.5, 1.0))
        sample("y", dist.Normal(ppl.call("curve", sim, rate, 2.0), 0.1))

    return model() | {"y": decay(0.7, 2.0)}


def positive(rate, start):
    if rate < 0.0:
        raise ArithmeticError("it grows")
    return decay(rate, start)


@pytest.mark.filterwarnings("ignore::inference.SamplingWarning")
@pytest.mark.parametrize("placement", [None, inf.Threads(2)], ids=["by default", "threads"])
def test_chains(placement):
    """One call of the host for all chains of a round; with chains in threads one for each, at once. The posterior is right."""
    sim = simulator(positive, CURVE)
    steps = {"warmup": 100, "draws": 200}
    posterior = inf.mcmc(
        cell(sim), inf.RandomWalk(), key=jax.random.key(1), chains=4, placement=placement, progress=False, **steps
    )
    rounds, together = sum(steps.values()), placement is None
    assert sim.counts.asked == sim.counts.calls * (4 if together else 1)
    assert 0 <= sim.counts.calls / (1 if together else 4) - rounds <= 10  # and some to find first positions
    assert sim.counts.cached + sim.counts.run == sim.counts.asked
    assert set(sim.failures) <= {"ArithmeticError: it grows"}
    assert (posterior["rate"] > 0.0).all()
    # the posterior by quadrature; a chain's mean has an error of some sd / sqrt(800 / 10)
    grid = np.linspace(0.01, 2.0, 400)
    log_p = [-0.5 * ((r - 0.5) ** 2 + np.sum((decay(r, 2.0) - decay(0.7, 2.0)) ** 2) / 0.01) for r in grid]
    weight = np.exp(log_p - np.max(log_p))
    mean = np.average(grid, weights=weight)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=weight))
    assert abs(np.mean(posterior["rate"]) - mean) < 5.0 * sd / np.sqrt(80.0)


@pytest.mark.filterwarnings("ignore::inference.SamplingWarning")
def test_particles():
    """Sequential Monte Carlo asks for all particles at once, and particles that fail die."""
    sim = simulator(positive, CURVE)
    run = inf.smc(cell(sim), inf.tempering(inf.RandomWalk(), moves=3), key=jax.random.key(2), particles=64, progress=False)
    assert sim.counts.asked == 64 * sim.counts.calls
    assert sim.counts.failed > 0 and np.isfinite(run.log_evidence)


def test_large_arguments_on_two_cores():
    """A million numbers there and back, in two threads at once, in a new process (jax#25861). Larger pieces may hang."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    script = ["-m", "tests.surrogates.large_arguments", "1000000", "65536"]
    done = subprocess.run([sys.executable, *script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["True", "True"], done.stderr
