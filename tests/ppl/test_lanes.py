"""Which entries of a discrete site are independent given all else: from structure, against adversaries that look alike."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample

QUICKLY = {"xla_backend_optimization_level": 0}


def coin(name, logit=0.0):
    return sample(name, dist.Bernoulli(logits=logit))


def seen(name, mean, y):
    sample(name, dist.Normal(mean, 1.0), obs=y)


# Programs with a site `z`, and how many of its axes lie apart.


def _plate(inside=lambda z, y: None, after=lambda zs: None):
    """Three coins, each with a datum."""

    def point(y):
        z = coin("z", 0.3 * y)
        seen("y", 2.0 * z, y)
        inside(z, y)
        return z

    zs = ppl.vmap(point)(jnp.array([-1.0, 0.5, 2.0]))
    after(zs)


def _returned_into_another_vmap(zs):
    ppl.vmap(lambda z, y: seen("w", z, y))(zs, jnp.ones(3))


def _nested(after):
    def outer(x):
        zs = ppl.vmap(lambda y: (z := coin("z", x), seen("y", z, y))[0])(jnp.arange(3.0))
        after(zs)
        return zs

    return ppl.vmap(outer)(jnp.array([0.2, -1.0]))


def _markov(logit):
    def step(z, y):
        z = coin("z", logit * (2 * z - 1))
        seen("y", z, y)
        return z, None

    ppl.scan(step, jnp.zeros((), int), jnp.array([0.0, 1.0, 2.0]))


def _plates_in_time():
    def step(total, _):
        return jnp.sum(ppl.vmap(lambda y: (z := coin("z", total), seen("y", z, y))[0])(jnp.arange(2.0))), None

    ppl.scan(step, jnp.zeros((), int), length=3)


def _by_the_back_door():
    """One vmap makes z, the other, as long, uses it: only their lengths are alike."""
    zs = ppl.vmap(lambda y: coin("z", y))(jnp.arange(3.0))
    ppl.vmap(lambda y: seen("y", jnp.sum(zs), y))(jnp.arange(3.0))


PROGRAMS = {
    "plate": (lambda: _plate(), 1),
    "factor inside": (lambda: _plate(lambda z, y: ppl.factor("f", 0.4 * z * y)), 1),
    "child inside": (lambda: _plate(lambda z, y: sample("n", dist.Binomial(2 + z, 0.4))), 1),
    "support inside": (lambda: _plate(lambda z, y: sample("x", dist.Uniform(0.0, 1.0 + z))), 1),
    "only looked at": (lambda: _plate(after=lambda zs: ppl.deterministic("sum", jnp.sum(zs))), 1),
    "factor outside": (lambda: _plate(after=lambda zs: ppl.factor("f", 0.3 * jnp.sum(zs))), 0),
    "child outside": (lambda: _plate(after=lambda zs: sample("x", dist.Normal(jnp.sum(zs), 1.0))), 0),
    "support outside": (lambda: _plate(after=lambda zs: sample("x", dist.Uniform(0.0, 1.0 + zs[0]))), 0),
    "discrete child outside": (lambda: _plate(after=lambda zs: sample("n", dist.Binomial(zs[0] + zs[1], 0.3))), 0),
    "data made of it": (lambda: _plate(after=lambda zs: sample("x", dist.Normal(0.0, 1.0), obs=1.0 * jnp.sum(zs))), 0),
    "through a named value": (lambda: _plate(after=lambda zs: seen("w", ppl.deterministic("sum", jnp.sum(zs)), 1.0)), 0),
    "into another vmap": (lambda: _plate(after=_returned_into_another_vmap), 0),
    "two vmaps of one length": (_by_the_back_door, 0),
    "nested plates": (lambda: _nested(lambda zs: None), 2),
    "leak to the outer plate": (lambda: _nested(lambda zs: seen("w", jnp.sum(zs), 1.0)), 1),
    "in a scan": (lambda: _markov(0.8), 0),
    "chains in a plate": (lambda: ppl.vmap(_markov)(jnp.array([0.8, -0.5])), 1),
    "plates in a scan": (_plates_in_time, 0),
    "nested program": (lambda: sample("in", ppl.model(_plate)()), 1),
    "batch of a distribution": (lambda: seen("y", sample("z", dist.Bernoulli(0.3 * jnp.ones(3))), jnp.arange(3.0)), 0),
}


def discrete(make, data=None):
    program = ppl.model(make)()
    return ppl.Target(program | data if data else program)


def site(target):
    return next(slot for slot in target.slots if slot.path[-1] == "z")


def claim_apart(target, axes):
    """A target that says so of its site z, true or not."""
    target = copy.copy(target)
    slots = tuple(slot._replace(apart=axes) if slot.path[-1] == "z" else slot for slot in target.slots)
    object.__setattr__(target, "slots", slots)
    return target


def disagreement(target) -> float:
    """Flip each entry of z: how far the change of the density is from that of the entry's lane, and any other lane moves."""
    slot = site(target)
    lanes = int(np.prod(slot.shape[: slot.apart]))
    lane = np.array(slot.entries) * lanes // int(np.prod(slot.shape))
    flips = np.zeros((slot.size, target.dim))
    flips[np.arange(slot.size), slot.start + np.arange(slot.size)] = 1.0

    def look(position):
        return target.log_density(position), target.log_density_apart(slot.address, position)

    def changes(position):
        whole, apart = look(position)
        flipped = jnp.where(flips == 1.0, 1.0 - position, position)
        wholes, aparts = jax.vmap(look)(flipped)
        expected = jnp.where(np.arange(lanes) == lane[:, None], (wholes - whole)[:, None], 0.0)
        return jnp.max(jnp.abs(aparts - apart - expected))

    rng = np.random.default_rng(0)
    starts = np.where(target.is_discrete, rng.integers(0, 2, (8, target.dim)), rng.normal(size=(8, target.dim)))
    return float(np.nanmax(jax.jit(jax.vmap(changes), compiler_options=QUICKLY)(jnp.asarray(starts))))


@pytest.mark.parametrize("name", PROGRAMS)
def test_lanes_are_apart_where_structure_says_so(x64, name):
    make, axes = PROGRAMS[name]
    target = discrete(make)
    assert site(target).apart == axes
    assert site(target).bounds == (0, 1)
    if axes:
        assert disagreement(target) < 1e-12


def test_missing_data_are_apart_too(x64):
    def lanes():
        ppl.vmap(lambda y: (z := sample("z", dist.Bernoulli(0.2 * jnp.ones(2))), seen("y", jnp.sum(z), y)))(jnp.arange(3.0))

    target = discrete(lanes, {"z": np.ma.masked_array([[0, 1], [1, 1], [0, 0]], mask=[[1, 0], [0, 0], [1, 1]])})
    assert target.dim == 3 and site(target).apart == 1
    assert disagreement(target) < 1e-12


@pytest.mark.parametrize("name", ["factor outside", "into another vmap", "discrete child outside"])
def test_a_false_claim_of_independence_is_seen(x64, name):
    assert disagreement(claim_apart(discrete(PROGRAMS[name][0]), 1)) > 0.01


def test_bounds_are_known_where_they_depend_on_no_other_site():
    def sites():
        n = sample("n", dist.Poisson(3.0))
        sample("b", dist.Binomial(n, 0.5))
        sample("u", dist.DiscreteUniform(3, 7))
        ppl.vmap(lambda total: sample("t", dist.Binomial(total, 0.5)))(jnp.array([2, 6]))
        sample("e", dist.Categorical(jnp.ones((2, 4)) / 4).to_event(1))
        sample("x", dist.Normal(0.0, 1.0))

    bounds = {slot.address: slot.bounds for slot in discrete(sites).slots}
    assert bounds == {"n": None, "b": None, "u": (3, 7), "t": (0, 6), "e": (0, 3), "x": None}
