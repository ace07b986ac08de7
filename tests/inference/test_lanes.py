"""Chains side by side that do not wait for each other make the draws of chains in step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference import Sharded, Threads, Vectorized
from inference.mcmc import lanes, programs
from inference.mcmc.chain import chunk
from inference.mcmc.door import ready

CHAINS, LENGTH = 16, 12


def funnel():
    """Trajectories of very different lengths; and steps that diverge, in the neck and past it, where nothing is finite."""

    def log_density(c):
        x, scale = c["x"], jnp.exp(c["x"][0])
        inside = -0.5 * x[0] ** 2 - 0.5 * jnp.sum((x[1:] / scale) ** 2) - 3 * x[0]
        return jnp.where(x[0] > -3.0, inside, jnp.nan)

    return ppl.Target.from_log_density(log_density, {"x": jnp.zeros(4)})


KERNELS = {
    "NUTS": lambda: inf.NUTS(0.4, inf.metrics.Diagonal(jnp.ones(4)), max_depth=6),
    "adapted": lambda: ready(inf.NUTS(max_depth=6), 3),  # with as many steps of warm-up, taken before
}


def beginning(kernel, first: int):
    """States of all chains after `first` steps in step."""
    positions = 0.5 * jax.random.normal(jax.random.key(5), (CHAINS, 4))
    state = jax.vmap(lambda x: kernel.init(jax.random.key(0), funnel(), x))(positions)
    return in_step(kernel, state, 0, first)[0] if first else state


@jax.jit
def in_step(kernel, state, start, num):
    chains = Vectorized().program(partial(chunk, length=LENGTH))
    return chains(kernel, funnel(), state, jax.random.key(1), jnp.arange(CHAINS), jnp.int32(start), jnp.int32(num))


def side_by_side(kernel, state, start, nums):
    """The same in chunks of `nums` draws."""

    @jax.jit
    def program(kernel, state, start, num):
        numbers = jnp.arange(CHAINS)
        return lanes.side_by_side(kernel, funnel(), state, jax.random.key(1), numbers, start, num, length=LENGTH)

    records = []
    for num in nums:
        state, record = program(kernel, state, jnp.int32(start), jnp.int32(num))
        records.append(jax.tree.map(lambda rows, num=num: np.asarray(rows)[:, :num], record))
        start += num
    return state, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *records)


def alike(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in pairs)


@pytest.mark.parametrize(("name", "first", "nums"), [("NUTS", 0, (12,)), ("NUTS", 0, (1, 7, 4)), ("adapted", 4, (5, 7))])
def test_the_draws_are_those_of_chains_in_step(x64, name, first, nums):
    """From the first step on, which evaluates; whatever the chunks are."""
    kernel = KERNELS[name]()
    state = beginning(kernel, first)
    made = side_by_side(kernel, state, first, nums)
    assert alike(in_step(kernel, state, first, LENGTH), made)
    info = made[1][1]
    assert len(np.unique(info.n_steps)) > 6 and info.diverging.any() and not info.diverging.all()


@pytest.mark.slow
def test_in_single_precision():
    """So short that rounding has not grown."""
    kernel = KERNELS["NUTS"]()
    state = beginning(kernel, 2)
    (_, (x, info)), (_, (y, _)) = in_step(kernel, state, 2, LENGTH), side_by_side(kernel, state, 2, (2,))
    np.testing.assert_allclose(x[:, :2], y, rtol=1e-3, atol=1e-4)
    assert x.dtype == y.dtype == info.lp.dtype == jnp.float32


def goes_on(self, num):
    return (self.done < 0) | self.flights.landed


def never_new(self, key, state, target):
    return launch(self, jax.random.key(0), state, target)


def not_kept(self, flight):
    state, info = land(self, flight)
    return state._replace(gradient=jnp.zeros_like(state.gradient)), info


def joins_after_landing(use_new, new, old):
    return new


launch, land = inf.NUTS.launch, inf.NUTS.land
BUGS = {
    "none": None,
    "a chain that has all its draws goes on": (lanes.Journey, "waiting", goes_on),
    "a key that is not the step's": (inf.NUTS, "launch", never_new),
    "a state that is not kept": (inf.NUTS, "land", not_kept),
    "chains that take what is not theirs": (lanes, "select", joins_after_landing),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(x64, monkeypatch, bug):
    kernel = KERNELS["NUTS"]()
    state = beginning(kernel, 0)
    expected = in_step(kernel, state, 0, LENGTH)
    if BUGS[bug] is not None:
        monkeypatch.setattr(*BUGS[bug])
    made = side_by_side(kernel, state, 0, (6,))
    assert alike(cut(expected, 6), made) == (bug == "none")


def cut(expected, num):
    """A record in step, cut to `num` draws, and the state that belongs to its last position."""
    positions, info = jax.tree.map(lambda rows: np.asarray(rows)[:, :num], expected[1])
    density, gradient = jax.vmap(jax.value_and_grad(funnel().log_density))(positions[:, -1])
    return expected[0]._replace(position=positions[:, -1], log_density=density, gradient=gradient), (positions, info)


SETTINGS = {
    "key": jax.random.key(0), "chains": CHAINS, "draws": 20, "warmup": 10, "progress": False, "check": False,
    "init": inf.Uniform(0.5),
}  # fmt: skip


@pytest.mark.slow
def test_placements_do_not_change_the_draws(x64, monkeypatch):
    """Eight host devices for `Sharded`; a chunk that straddles the end of the warm-up."""
    monkeypatch.setattr(programs, "MANY", 2)
    calls = []
    monkeypatch.setattr(programs, "side_by_side", lambda *args, **how: calls.append(0) or lanes.side_by_side(*args, **how))
    kernel = inf.NUTS(0.4, inf.metrics.Diagonal(jnp.ones(4)), max_depth=4)
    runs = [inf.mcmc(funnel(), kernel, placement=p, **SETTINGS) for p in (Threads(), Vectorized(), Sharded())]
    assert len(calls) == 2 and len(np.unique(runs[0].stats["n_steps"])) > 3
    for run in runs[1:]:
        np.testing.assert_allclose(run["x"], runs[0]["x"], rtol=1e-5, atol=1e-7)
        for name, values in runs[0].stats.items():
            np.testing.assert_allclose(run.stats[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
