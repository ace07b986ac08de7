"""Noise belongs to an address: it does not depend on the order of sites, and no two sites share it."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample

KEY = jax.random.key(3)


def noise(name="x"):
    return sample(name, dist.Normal(0.0, 1.0))


def test_order_and_neighbours_do_not_matter():
    @ppl.model
    def forth():
        noise("a"), noise("b"), noise("c")

    @ppl.model
    def back():
        noise("c"), noise("extra"), noise("a")

    one, two = forth().simulate(KEY).choices, back().simulate(KEY).choices
    assert one["a"] == two["a"] and one["c"] == two["c"]


def test_a_longer_loop_begins_like_a_shorter_one():
    @ppl.model
    def walk(n):
        return ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)), None), 0.0, length=n)

    @ppl.model
    def plate(n):
        return ppl.vmap(lambda i: noise())(jnp.arange(n))

    np.testing.assert_array_equal(walk(3).simulate(KEY)["z"], walk(5).simulate(KEY)["z"][:3])
    np.testing.assert_array_equal(plate(3).simulate(KEY)["x"], plate(5).simulate(KEY)["x"][:3])


def test_data_and_interventions_leave_the_other_noise_alone():
    @ppl.model
    def model():
        a = noise("a")
        b = sample("b", dist.Normal(a, 1.0))
        return sample("c", dist.Normal(0.0, 1.0)) + b

    free = model().simulate(KEY).choices
    assert (model() | {"a": 2.0}).simulate(KEY)["c"] == free["c"]
    done = model().intervene({"a": free["a"] + 1.0}).simulate(KEY)
    np.testing.assert_allclose(done["b"], free["b"] + 1.0, rtol=1e-5)  # a counterfactual: the same noise, moved
    assert model().generate(KEY, {"a": 2.0})[0]["c"] == free["c"]


def all_noise():
    """One name in every place that it can have: a site, plates, loops, branches, nested programs."""

    @ppl.model
    def inner():
        noise(), noise("y")
        ppl.vmap(lambda i: noise("lane"))(jnp.arange(3))

    @ppl.model
    def model():
        noise()
        noise("y")
        sample("one", inner())
        sample("two", inner())
        ppl.vmap(lambda i: sample("many", inner()))(jnp.arange(4))
        ppl.vmap(lambda i: ppl.vmap(lambda j: noise("grid"))(jnp.arange(4)))(jnp.arange(4))
        ppl.scan(lambda c, _: (c, ppl.vmap(lambda j: noise("mixed"))(jnp.arange(3))), 0.0, length=3)
        ppl.cond(True, lambda: noise("branch"), lambda: noise("branch"))
        sample("vector", dist.Normal(jnp.zeros(5), 1.0))
        ppl.fori_loop(0, 3, lambda i, c: c + noise("loop"), 0.0)

    return model()


@pytest.mark.slow
def test_no_two_values_share_noise():
    """GenJAX 0.10 handed one key to successive sites. Here every value of a large program is another number."""
    values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(all_noise().simulate(KEY).choices)])
    assert values.size == 2 + 5 + 5 + 20 + 16 + 9 + 1 + 5 + 3
    assert np.unique(values).size == values.size


@pytest.mark.slow
def test_no_two_values_are_correlated():
    """All pairs at once, 4000 runs: the largest of 2145 correlations stays below 5.5/sqrt(n) (false alarm 1 in 10000)."""
    program = all_noise()
    draws = jax.jit(jax.vmap(lambda k: jax.flatten_util.ravel_pytree(program.simulate(k).choices)[0]))
    x = np.asarray(draws(jax.random.split(KEY, 4000)))
    correlation = np.corrcoef(x.T) - np.eye(x.shape[1])
    assert np.abs(correlation).max() < 5.5 / np.sqrt(len(x))


def test_names_whose_checksums_agree_are_refused():
    """crc32('plumless') == crc32('buckeroo'): the two sites would have had the same noise."""

    @ppl.model
    def twins(one, two):
        noise(one)
        ppl.vmap(lambda i: noise(two))(jnp.arange(2))

    with pytest.raises(ValueError, match="'plumless' and 'buckeroo' would share their random numbers"):
        twins("plumless", "buckeroo").simulate(KEY)
    twins("plumless", "plumber").simulate(KEY)


def test_noise_is_the_same_in_every_process():
    """Names are hashed by crc32, not by Python's salted hash: a number to hold on to."""

    @ppl.model
    def model():
        noise("theta")

    import zlib

    want = jax.random.normal(jax.random.fold_in(KEY, zlib.crc32(b"theta")))
    assert model().simulate(KEY)["theta"] == want
