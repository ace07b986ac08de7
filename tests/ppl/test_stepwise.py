"""Stepwise: a program with one loop, taken step by step, is the program itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample


@ppl.model
def walk(length, r):
    """A random walk with an unknown step size, seen with noise; what is carried is more than what is chosen."""
    q = sample("q", dist.LogNormal(0.0, 0.3))
    sample("hint", dist.Normal(q, 0.1), obs=1.1)

    def step(carry, x):
        z, n = carry
        z = sample("z", dist.Normal(z, q))
        sample("y", dist.Normal(z + x, r))
        return (z, n + 1), z

    return ppl.scan(step, (0.0, 0), jnp.linspace(0.0, 1.0, length))


Y = jnp.array([0.3, -0.2, 0.9, 1.4, 0.2])


def taken(opened, key, given=None):
    """All steps: choices and the sum of the log densities."""
    begun = opened.begin(key)
    carry, choices, total = begun.carry, [], begun.log_likelihood
    for t in range(opened.length):
        new = opened.step(key, t, begun.before, carry, {} if given is None else {"z": given[t]})
        carry, total = new.carry, total + new.log_prior + new.log_likelihood
        choices.append(new.choices["z"])
    return begun, jnp.stack(choices), total, carry


def test_with_one_key_the_steps_are_the_simulation():
    program, key = walk(5, 0.7) | {"y": Y}, jax.random.key(3)
    opened = ppl.Stepwise(program)
    begun, z, total, carry = taken(opened, key)
    trace = program.simulate(key)
    np.testing.assert_allclose(z, trace.choices["z"], rtol=1e-5)
    np.testing.assert_allclose(begun.before["q"], trace.choices["q"])
    log_prior_q = dist.LogNormal(0.0, 0.3).log_prob(begun.before["q"])
    np.testing.assert_allclose(total + log_prior_q, trace.log_density, rtol=1e-5)
    assert int(carry[1]) == 5
    assert (opened.length, opened.latent, opened.before) == (5, ("z",), ("q",))


def test_given_choices_are_weighed():
    program = walk(5, 0.7) | {"y": Y}
    opened = ppl.Stepwise(program)
    begun = opened.begin(jax.random.key(0), {"q": jnp.array(0.8)})
    new = opened.step(jax.random.key(1), 2, begun.before, (jnp.array(0.4), jnp.array(2)), {"z": jnp.array(0.6)})
    log_z = dist.Normal(0.4, 0.8).log_prob(0.6)
    log_y = dist.Normal(0.6 + 0.5, 0.7).log_prob(Y[2])
    np.testing.assert_allclose(new.log_weight, log_z + log_y, rtol=1e-5)
    np.testing.assert_allclose(new.log_prior, log_z, rtol=1e-5)
    np.testing.assert_allclose(new.log_likelihood, log_y, rtol=1e-5)
    x, data = opened.seen(2, begun.before)
    np.testing.assert_allclose([x, data["y"]], [0.5, Y[2]])


def test_missing_data_are_drawn_and_count_nothing():
    y = np.ma.masked_array(np.asarray(Y), [False, True, False, False, False])
    opened = ppl.Stepwise(walk(5, 0.7) | {"y": y})
    begun = opened.begin(jax.random.key(0))
    seen, missing = (
        opened.step(jax.random.key(1), t, begun.before, (jnp.array(0.0), jnp.array(t)), {"z": jnp.array(0.1)}) for t in (0, 1)
    )
    assert missing.log_likelihood == 0.0
    assert seen.log_likelihood != 0.0
    assert set(missing.choices) == {"y", "z"}


def test_under_vmap_and_jit_with_a_traced_step():
    opened = ppl.Stepwise(walk(5, 0.7) | {"y": Y})

    @jax.jit
    def step(opened, keys, t):
        begun = jax.vmap(opened.begin)(keys)
        return jax.vmap(lambda key, before, carry: opened.step(key, t, before, carry))(keys, begun.before, begun.carry)

    keys = jax.random.split(jax.random.key(0), 4)
    new = step(opened, keys, jnp.int32(1))
    begun = opened.begin(keys[2])
    alone = opened.step(keys[2], 1, begun.before, begun.carry)
    np.testing.assert_allclose(new.choices["z"][2], alone.choices["z"], rtol=1e-6)
    np.testing.assert_allclose(new.log_weight[2], alone.log_weight, rtol=1e-5)


def test_loops_in_parts_of_the_program_are_not_the_loop():
    @ppl.model
    def inner():
        return ppl.scan(lambda c, _: (sample("a", dist.Normal(c, 1.0)), None), 0.0, length=2)[0]

    @ppl.model
    def outer():
        start = sample("start", inner())
        ppl.vmap(lambda m: ppl.scan(lambda c, _: (sample("b", dist.Normal(c, 1.0)), None), m, length=3))(jnp.zeros(2))
        return ppl.scan(lambda c, _: (sample("z", dist.Normal(c, 1.0)),) * 2, start, length=4)[1]

    opened = ppl.Stepwise(outer())
    assert (opened.length, opened.latent, opened.before) == (4, ("z",), ("start", "b"))
    key = jax.random.key(1)
    z = taken(opened, key)[1]
    np.testing.assert_allclose(z, outer().simulate(key).choices["z"], rtol=1e-5)


def no_loop():
    sample("x", dist.Normal(0.0, 1.0))


def two_loops():
    for name in "ab":
        ppl.scan(lambda c, _, name=name: (sample(name, dist.Normal(c, 1.0)), None), 0.0, length=3)


def backwards():
    ppl.scan(lambda c, _: (sample("z", dist.Normal(c, 1.0)), None), 0.0, length=3, reverse=True)


def more_after():
    z, _ = ppl.scan(lambda c, _: (sample("z", dist.Normal(c, 1.0)), None), 0.0, length=3)
    sample("last", dist.Normal(z, 1.0))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (no_loop, "exactly one ppl.scan in its own function, but this one has none"),
        (two_loops, "this one has 2"),
        (backwards, "reverse=True"),
        (more_after, "site 'last' comes after the ppl.scan"),
    ],
)
def test_programs_that_cannot_be_opened(model, says):
    with pytest.raises(ValueError, match=says):
        ppl.Stepwise(ppl.model(model)())
