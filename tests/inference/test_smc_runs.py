"""Runs of sequential Monte Carlo: what cannot go on says so, what was broken off goes on, and histories agree."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference import SamplingWarning, Sharded, Threads
from inference.mcmc.random_walk import RandomWalk
from inference.resampling import Systematic
from inference.smc.ancestor_tree import AncestorTree
from inference.smc.extend import Extend
from inference.smc.history import Last, Paths
from inference.smc.loop import Method
from inference.smc.move import Move, UntilMoved
from inference.smc.particle_filter import particle_filter
from inference.smc.program_path import ByStep
from inference.smc.resample import Resample
from inference.smc.reweight import ByESS, Ladder, Reweight
from inference.smc.sample import smc
from inference.smc.step import sequence
from inference.smc.tempering import tempering
from inference.smc.tempering_path import Tempering
from inference.store import Store
from ppl import dist, sample

Y = jnp.asarray(np.random.default_rng(0).normal(size=30))


@ppl.model
def walk(length):
    def step(z, _):
        z = sample("z", dist.Normal(z, 1.0))
        sample("y", dist.Normal(z, 0.5))
        return z, None

    ppl.scan(step, 0.0, length=length)


@ppl.model
def normal():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 0.5))


WALK, NORMAL = walk(30) | {"y": Y}, normal() | {"y": 0.7}


def run(program=WALK, method=None, **settings):
    method = particle_filter() if method is None else method
    return smc(program, method, **{"key": jax.random.key(0), "particles": 200, "progress": False, "check": False, **settings})


def same(a, b):
    """Whether two posteriors are the same, bit for bit."""
    for x, y in zip(jax.tree.leaves((a.draws, a.stages)), jax.tree.leaves((b.draws, b.stages)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert a.log_evidence == b.log_evidence


# -- broken off, and gone on with --------------------------------------------------------------------------------------------


class StopAfter:
    """A progress bar that presses Ctrl-C after so many chunks."""

    def __init__(self, chunks: int):
        self.left = chunks

    def begin(self, total, done):
        pass

    def update(self, num, record, first):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def change(self, total):
        pass

    def end(self):
        pass


@pytest.mark.parametrize("islands", [1, 2])
@pytest.mark.parametrize("name", ["filter", "tempering"])
def test_a_run_broken_off_goes_on_bit_for_bit(tmp_path, name, islands):
    program, method = {"filter": (WALK, particle_filter()), "tempering": (NORMAL, tempering(moves=3, to=ByESS(0.9)))}[name]
    whole = run(program, method, islands=islands)
    store = Store(tmp_path / "run", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(program, method, islands=islands, store=store, progress=StopAfter(1))
    same(run(program, method, islands=islands, store=store), whole)
    same(run(program, method, islands=islands, store=store), whole)  # only reads


def test_a_store_of_another_run_is_refused(tmp_path):
    store = Store(tmp_path / "run")
    run(store=store)
    with pytest.raises(ValueError, match="holds another run: its number of particles is not the same"):
        run(store=store, particles=300)
    with pytest.raises(ValueError, match="its data is not the same"):
        run(walk(30) | {"y": Y + 1}, store=store)


def test_a_budget_that_ends_too_soon_is_told_of():
    with pytest.raises(ValueError, match="the budget was spent at step 0 of 30, before the end. Allow more, or give a store"):
        run(budget=1e-9)


# -- histories ---------------------------------------------------------------------------------------------------------------


def test_the_tree_of_ancestors_has_the_paths_that_were_kept(monkeypatch):
    monkeypatch.setattr(importlib.import_module("inference.smc.ancestor_tree"), "GROWTH", 1000)
    paths, tree = run(history=Paths(), islands=2), run(history=AncestorTree(200), islands=2)
    np.testing.assert_array_equal(paths["z"], tree["z"])
    assert all(row.kept[0].size < 30 * 200 / 2 for row in tree.run.rows)
    assert run(history=AncestorTree(50))["z"].shape == (1, 50, 30)


def test_the_error_of_islands_is_that_of_their_mean():
    """Once counted by the families of each island, it is not to be counted again by those of all."""
    posterior = run(islands=2)
    found, error = np.array([(s.population.log_evidence, s.population.log_evidence_error) for s in posterior.run.states]).T
    shares = np.exp(found) / np.exp(found).sum()
    assert posterior.log_evidence_error == pytest.approx(np.sqrt(np.sum((shares * error) ** 2)), rel=1e-4)


def test_the_last_step_alone():
    last, paths = run(history=Last()), run(history=Paths())
    np.testing.assert_array_equal(last["z"], paths["z"][..., -1])
    with pytest.raises(ValueError, match="did not keep its earlier stages; run it with history=Paths"):
        last.run.filtered("z")
    with pytest.raises(ValueError, match="no site 'zz' in the loop; it has z"):
        paths.run.filtered("zz")


# -- devices ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["filter", "tempering"])
def test_particles_on_eight_devices_are_those_of_one(monkeypatch, name):
    program, method = {"filter": (WALK, particle_filter()), "tempering": (NORMAL, tempering(moves=3))}[name]
    module, seen = importlib.import_module("inference.smc.sample"), []

    def on_one_device(placement, states):
        seen.extend(states)
        return real(placement, states)

    real = module.on_one_device
    monkeypatch.setattr(module, "on_one_device", on_one_device)
    one, eight = run(program, method), run(program, method, placement=Sharded())
    assert len(seen[-1].population.log_weights.sharding.device_set) == 8
    assert seen[-1].population.log_weights.addressable_shards[0].data.shape == (25,)
    assert eight.log_evidence == pytest.approx(one.log_evidence, abs=1e-3)
    for site, x in one.draws.items():
        np.testing.assert_allclose(x, eight.draws[site], atol=1e-4)


# -- what is wrong with a run that ended ------------------------------------------------------------------------------------


def test_few_particles_that_carry_all_weight_are_told_of():
    sharp = walk(30) | {"y": 40 * Y}
    with pytest.warns(SamplingWarning, match=r"At stage \d+ of 30 the effective sample size fell to 1.* of 200 particles"):
        posterior = run(sharp, check=True)
    assert "propose with the data in sight" in str(posterior.check())


@pytest.mark.slow
def test_particles_that_did_not_move_are_told_of():
    still = tempering(RandomWalk(step_size=1e-4), moves=1)
    with pytest.warns(SamplingWarning, match="Particles hardly moved at some stage .correlation 1.00"):
        run(NORMAL, still, check=True)
    assert not [f for f in run(NORMAL, tempering()).check().findings if "moved" in f.what]


# -- sentences ---------------------------------------------------------------------------------------------------------------


@ppl.model
def impossible(length):
    def step(z, t):
        z = sample("z", dist.Normal(z, 1.0))
        ppl.factor("limit", jnp.where(t < 3, 0.0, jnp.where(t == 3, jnp.nan, -jnp.inf)))
        return z, None

    ppl.scan(step, 0.0, jnp.arange(length))


@ppl.model
def never():
    x = sample("x", dist.Normal(0.0, 1.0))
    ppl.factor("limit", jnp.where(x > 1000.0, 0.0, -jnp.inf))


@ppl.model
def improper():
    x = sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    sample("y", dist.Normal(x, 1.0), obs=1.0)


@ppl.model
def elsewhere():
    sample("z", dist.Normal(0.0, 1.0))


@ppl.model
def positive():
    sample("z", dist.HalfNormal(1.0))


@ppl.model
def unknown():
    sample("w", dist.Normal(0.0, 1.0))


ladder = Method(Tempering(), sequence(Reweight(Ladder(jnp.array([-0.5, 0.5, 1.0]))), Resample(Systematic())))
short = Method(Tempering(), sequence(Reweight(Ladder(jnp.array([0.1, 0.5]))), Resample(Systematic())))
SENTENCES = {
    "all weights NaN": (
        lambda: run(impossible(9)),
        r"at step 3 of 9 all 200 particles have weight zero \(200 of them were NaN",
    ),
    "likelihood zero": (lambda: run(never(), tempering()), "all 200 particles have weight zero"),
    "negative temperature": (lambda: run(NORMAL, ladder), "increase from above 0 to exactly 1, but they go from -0.5 to 1"),
    "an end before one": (lambda: run(NORMAL, short), "exactly 1, but they go from 0.1 to 0.5"),
    "levels that fall": (lambda: Ladder(jnp.array([0.5, 0.2])), "levels must be an array that increases"),
    "improper prior": (lambda: run(improper(), tempering()), "the prior of site 'x' is improper"),
    "another reference": (
        lambda: run(NORMAL, tempering(reference=elsewhere())),
        "has the latent sites z, but the program has x",
    ),
    "no loop": (lambda: run(NORMAL), "exactly one ppl.scan"),
    "a target, filtered": (lambda: run(ppl.Target(NORMAL)), "needs a program with a ppl.scan, got Target"),
    "too few data": (lambda: run(walk(30) | {"y": Y[:20]}), r"'y'.*\(30,\).*\(20,\)"),
    "a kernel for a method": (lambda: run(NORMAL, RandomWalk()), "expected a method such as tempering.. as second argument"),
    "one particle": (lambda: run(particles=1), "particles must be a whole number of at least 2, got 1"),
    "no islands": (lambda: run(islands=0), "islands must be a whole number of at least 1"),
    "a raw key": (lambda: run(key=jnp.zeros(2, jnp.uint32)), "one typed key"),
    "not a store": (lambda: run(store="runs"), "store must be a Store"),
    "a tree in a store": (lambda: run(store=Store("/tmp/x"), history=AncestorTree()), "is held in memory alone"),
    "too much to keep": (lambda: run(walk(100_000), particles=10_000), "takes 14.9 GiB. Keep what has descendants"),
    "seven shares": (
        lambda: run(particles=201, placement=Sharded()),
        "201 particles cannot be shared out evenly among 8 devices; ask for particles=208",
    ),
    "threads for particles": (lambda: run(placement=Threads()), "shared out among devices by Sharded.., got Threads"),
    "a share of two": (lambda: ByESS(2.0), "share must lie between 0 and 1"),
    "no moves": (lambda: Move(RandomWalk(), 0), "num must be at least 1"),
    "correlation of one": (lambda: UntilMoved(1.0), "correlation must lie between 0 and 1"),
    "reweighting a loop": (lambda: run(method=Method(ByStep(), Reweight(ByESS()))), "ProgramPath grows"),
    "extending a bridge": (lambda: run(NORMAL, Method(Tempering(), Extend())), "TemperingPath does not grow"),
    "moving in a loop": (lambda: run(method=Method(ByStep(), Move(RandomWalk()))), "ProgramPath grows"),
    "a narrow proposal": (
        lambda: run(method=particle_filter(proposal=lambda z, x, data: positive())),
        "the proposal of site 'z' is positive, but the site is real",
    ),
    "a proposal of nothing": (
        lambda: run(method=particle_filter(proposal=lambda z, x, data: unknown())),
        "the proposal has a site 'w'",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_done_says_so(name):
    do, says = SENTENCES[name]
    with pytest.raises(ValueError, match=says):
        do()
