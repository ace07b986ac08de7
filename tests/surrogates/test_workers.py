"""Workers: the same answers wherever runs are made; a run that hangs or dies fails alone."""

import functools
import os
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surrogates.simulator import simulator
from surrogates.workers import InThisProcess, On, Processes
from tests.surrogates.host_functions import at_worst, decay, noted, with_jax

NUMBER, CURVE = jax.ShapeDtypeStruct((), float), jax.ShapeDtypeStruct((5,), float)
RATES = np.linspace(0.1, 1.0, 6, dtype=np.float32)


@pytest.fixture(scope="module")
def processes():
    return Processes(2, timeout=30.0)


def test_processes_say_what_this_process_says(processes, tmp_path):
    here = jax.vmap(simulator(decay, CURVE), (0, None))(RATES, 2.0)
    sim = simulator(decay, CURVE, executor=processes)
    np.testing.assert_array_equal(jax.jit(jax.vmap(sim, (0, None)))(RATES, 2.0), here)
    assert sim.counts[:5] == (6, 1, 6, 0, 0)
    sim = simulator(functools.partial(noted, str(tmp_path / "notes")), NUMBER, executor=processes)
    for start in (0.0, 10.0):  # two batches, the same processes
        jax.vmap(sim)(start + jnp.arange(4.0))
    ids = {line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()}
    assert 1 <= len(ids) <= 2 and str(os.getpid()) not in ids


def test_a_run_that_dies_or_hangs_fails_alone():
    """And is not kept: it may do better another time. What raises, or says NaN, will not."""
    sim = simulator(at_worst, NUMBER, executor=Processes(2, timeout=4.0))
    sim(1.0)  # the module is imported now
    out = jax.jit(jax.vmap(sim))(jnp.array([1.0, 5.0, 2.0, -1.0, 6.0, 11.0, 3.0]))
    np.testing.assert_array_equal(out, [2.0, np.nan, 4.0, np.nan, np.nan, np.nan, 6.0])
    assert sim.failures == {
        "its process died": 1,
        "no answer within 4 s": 1,
        "ArithmeticError: no steady state at -1": 1,
        "it returned numbers that are not finite": 1,
    }
    assert len(sim.cache) == 5
    np.testing.assert_array_equal(jax.vmap(sim)(jnp.array([4.0, 7.0])), [8.0, 14.0])  # in new processes


def test_jax_may_run_elsewhere(processes):
    assert simulator(with_jax, NUMBER, executor=processes)(1.0) == pytest.approx(np.sin(1.0), rel=1e-6)


def local(x):
    def inner(x):
        return x

    return inner


@pytest.mark.parametrize("fn", [lambda x: x, local(1), functools.partial(local(1), 2)], ids=["lambda", "local", "partial"])
def test_what_no_process_can_import_is_refused(fn):
    with pytest.raises(ValueError, match="cannot be imported by a new process. Define it at the top level of a module"):
        simulator(fn, NUMBER, executor=Processes(1))


UNGUARDED = """
import jax
from surrogates.simulator import simulator
from surrogates.workers import Processes
from tests.surrogates.host_functions import decay
sim = simulator(decay, jax.ShapeDtypeStruct((5,), float), executor=Processes(1))
try:
    sim(1.0, 2.0)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_script_without_its_guard_gets_a_sentence(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=240)
    assert "its workers are gone" in done.stdout and "if __name__ ==" in done.stdout, done.stderr


def test_threads():
    """An executor of threads makes runs at the same time; JAX is kept out of them, too."""
    both = threading.Barrier(2, timeout=60.0)

    def meets(x):
        both.wait()
        return x + 1.0

    with ThreadPoolExecutor(2) as threads:
        sim = simulator(meets, NUMBER, executor=threads)
        np.testing.assert_array_equal(jax.jit(jax.vmap(sim))(jnp.arange(4.0)), [1.0, 2.0, 3.0, 4.0])
        with pytest.raises(ValueError, match="it runs JAX"):
            simulator(with_jax, NUMBER, executor=threads)(1.0)
        assert "On(ThreadPoolExecutor)" in repr(sim)
    with pytest.raises(ValueError, match="its workers are gone .RuntimeError: cannot schedule new futures after shutdown"):
        sim(9.0)


class Silent(Executor):
    """Answers for 1, and for nothing else."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if args[0] == 1.0:
            future.set_result(fn(*args))
        return future


def test_what_does_not_answer_is_given_up():
    sim = simulator(np.negative, NUMBER, executor=On(Silent(), timeout=0.2))
    np.testing.assert_array_equal(jax.vmap(sim)(jnp.array([1.0, 2.0])), [-1.0, np.nan])
    assert sim.failures == {"no run ended within 0.2 s": 1} and len(sim.cache) == 1 and sim.counts.run == 2


def test_dask():
    """A cluster of threads in this process, through the executor that Dask offers; failures come back as they do here."""
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        sim = simulator(at_worst, NUMBER, executor=client.get_executor())
        out = jax.jit(jax.vmap(sim))(jnp.array([1.0, 2.0, -1.0, 11.0, 2.0]))
        np.testing.assert_array_equal(out, [2.0, 4.0, np.nan, np.nan, 4.0])
        assert sim.counts[:5] == (5, 1, 4, 2, 1) and "ArithmeticError: no steady state at -1" in sim.failures


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Processes(0), "Processes: num must be a whole number of at least 1, got 0"),
        (lambda: Processes(1, timeout=0.0), "Processes: timeout must be a positive number of seconds, or None"),
        (lambda: On(3), "expected Processes.4., or a concurrent.futures.Executor"),
        (lambda: On(Silent(), timeout="1 s"), "On: timeout must be a positive number"),
    ],
)
def test_settings(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_they_print(processes):
    assert repr(processes) == "Processes(2, timeout=30)" and repr(InThisProcess()) == "InThisProcess()"
