"""The front door: the same key gives the same draws wherever chains run, and a run cut short gives what is done."""

import _thread
import signal

import jax
import numpy as np
import pytest

import inference as inf
from inference.mcmc import sample as front
from inference.mcmc.chain import chunk
from tests.inference.targets import SIGMA, Y, conjugate, correlated, schools


def run(**settings):
    settings = {"key": jax.random.key(0), "draws": 100, "warmup": 100, "progress": False, "check": False} | settings
    return inf.mcmc(schools(SIGMA) | {"y": Y}, inf.NUTS(), **settings)


def test_the_same_key_gives_the_same_draws():
    first, again, other = run(), run(), run(key=jax.random.key(1))
    np.testing.assert_array_equal(first["z"], again["z"])
    assert not np.array_equal(first["z"], other["z"])


def test_placements_agree(x64):
    """Up to rounding: chaos doubles it with every transition, so few transitions are compared."""
    threads = run(placement=inf.Threads(), draws=10, warmup=10)
    for placement in (inf.Vectorized(), inf.Threads(1)):
        np.testing.assert_allclose(threads["z"], run(placement=placement, draws=10, warmup=10)["z"], rtol=1e-4)


def test_more_chains_leave_the_first_ones_as_they_are():
    np.testing.assert_array_equal(run(chains=2)["mu"], run(chains=3)["mu"][:2])


def test_chunks_do_not_change_the_draws():
    target = correlated()
    kernel = inf.NUTS(step_size=0.3, metric=inf.metrics.Diagonal(jax.numpy.ones(3)))
    state = kernel.init(None, target, jax.numpy.zeros(3))
    go = jax.jit(lambda s, start, num: chunk(kernel, target, s, jax.random.key(0), 0, start, num, length=16))
    int32 = np.int32
    _, (whole, _) = go(state, int32(0), int32(10))
    middle, (part, _) = go(state, int32(0), int32(4))
    _, (rest, _) = go(middle, int32(4), int32(6))
    np.testing.assert_array_equal(whole[:10], np.concatenate([part[:4], rest[:6]]))


def test_one_compilation_for_data_of_the_same_shape(monkeypatch):
    run()
    monkeypatch.setattr("inference.compiled._in_background", lambda work: pytest.fail("compiled again"))
    program = schools(SIGMA) | {"y": Y + 1.0}
    inf.mcmc(program, inf.NUTS(), key=jax.random.key(5), draws=7, warmup=30, progress=False, check=False)


class Interrupt:
    """A progress bar at which someone presses Ctrl-C once `after` steps are done."""

    def __init__(self, after):
        self.after, self.done = after, 0

    def begin(self, total, done):
        pass

    def update(self, num, record, first):
        if self.done <= self.after < self.done + num:
            _thread.interrupt_main()
        self.done += num

    def change(self, total):
        pass

    def end(self):
        pass


@pytest.fixture
def sigint():
    """Ctrl-C as in a terminal: a process begun in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_is_done(sigint):
    with pytest.warns(inf.SamplingWarning, match=r"^Interrupted: \d+ of 1000000 draws per chain were made\.$"):
        posterior = inf.mcmc(
            conjugate(), inf.NUTS(), key=jax.random.key(0), draws=1_000_000, warmup=100, progress=Interrupt(10_000)
        )
    chains, draws = posterior.shape
    assert chains == 4 and 100 < draws < 1_000_000
    assert posterior.stats["lp"].shape == (4, draws)


def test_the_budget_is_kept():
    with pytest.warns(inf.SamplingWarning, match=r"^The budget was spent: \d+ of 10000000 draws"):
        posterior = inf.mcmc(
            conjugate(), inf.NUTS(), key=jax.random.key(0), draws=10_000_000, warmup=100, progress=False, budget="1s"
        )
    assert posterior.provenance["sampling_seconds"] < 10 and posterior.shape[1] > 10


def test_a_program_that_fails_in_a_thread_fails_in_the_caller(monkeypatch):
    def broken(*setting):
        compiled = programs(*setting)

        def fail(*args):
            if int(args[-2]) > 0:
                raise RuntimeError("lost")
            return compiled.advance(*args)

        fail.wait = compiled.advance.wait
        return compiled._replace(advance=fail)

    programs = front.programs
    monkeypatch.setattr(front, "programs", broken)
    with pytest.raises(RuntimeError, match="lost"):
        run()


def test_given_settings_are_kept():
    posterior = inf.mcmc(
        correlated(), inf.NUTS(step_size=0.25), key=jax.random.key(0), draws=20, warmup=50, progress=False, check=False
    )
    assert (posterior.stats["step_size"] == np.float32(0.25)).all()
