"""`ppl.call` of what may fail: impossible where it is not finite, and nothing after it is NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample

X = jnp.array([1.0, 4.0, 9.0])


class Root:
    """A square root that says it may fail."""

    may_fail = True

    def __call__(self, x):
        return {"root": jnp.sqrt(x), "same": x}


@ppl.model
def one(fn):
    x = sample("x", dist.Normal(0.0, 3.0))
    z = sample("z", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(ppl.call("root", fn, x)["root"] + z, 1.0))
    return x


@ppl.model
def lanes(fn):
    def lane(x):
        sample("y", dist.Normal(ppl.call("root", fn, x)["root"], 1.0))

    xs = sample("x", dist.Normal(jnp.zeros(3), 3.0))
    ppl.vmap(lane)(xs)


@ppl.model
def steps(fn):
    def step(c, x):
        sample("y", dist.Normal(c + ppl.call("root", fn, x)["root"], 1.0))
        return c, None

    xs = sample("x", dist.Normal(jnp.zeros(3), 3.0))
    ppl.scan(step, 0.0, xs)


def plain(x):
    return Root()(x)


@pytest.mark.parametrize("model", [lanes, steps])
def test_it_is_the_plain_call_where_it_is_finite(model, precision):
    y = jnp.arange(3.0)
    for x in (X, X.at[1].set(-1.0)):
        careful = jax.jit((model(Root()) | {"y": y}).log_density)({"x": x})
        free = (model(plain) | {"y": y}).log_density({"x": x})
        assert careful.dtype == precision
        if (x > 0).all():
            assert careful == free
        else:
            assert careful == -np.inf and np.isnan(free)


def test_a_failed_call_is_impossible_and_alone():
    """The prior, and every other density, stay what they are; batches fail lane by lane; simulation goes on."""
    target = ppl.Target(one(Root()) | {"y": 2.0})
    prior, likelihood = jax.vmap(target.log_prior_and_likelihood)(jnp.array([[4.0, 0.0], [-4.0, 0.0]]))
    assert np.isfinite(prior).all() and prior[0] == prior[1]
    np.testing.assert_array_equal(np.isfinite(likelihood), [True, False])
    assert likelihood[1] == -np.inf
    draws = jax.vmap((lanes(Root())).simulate)(jax.random.split(jax.random.key(0), 50))
    assert np.isfinite(draws.choices["y"]).all()
    failed = (draws.choices["x"] < 0).any(1)
    assert failed.any() and not failed.all()
    np.testing.assert_array_equal(draws.log_density == -np.inf, failed)


def test_gradients_of_the_rest():
    """A failed call does not make NaN of the gradients of what does not go through it."""
    program = one(Root()) | {"y": 2.0}
    x = jnp.array(-4.0)
    gradient = jax.grad(lambda z: program.log_density({"x": x, "z": z}))(0.5)
    assert gradient == pytest.approx(-0.5 + (2.0 - 0.5))  # of the prior of z, and of y about 0 + z
    good = jax.grad(lambda c: program.log_density(c))({"x": jnp.array(4.0), "z": jnp.array(0.5)})
    assert all(np.isfinite(g) for g in good.values())


def test_a_function_that_may_not_fail_is_left_alone():
    at = {"x": jnp.array(-1.0), "z": jnp.array(0.0)}
    assert np.isnan(jax.jit((one(plain) | {"y": 2.0}).log_density)(at))
    program = (one(Root()) | {"y": 2.0}).intervene({"root": plain})  # it is the function that is called that counts
    assert np.isnan(jax.jit(program.log_density)(at))
    program = (one(plain) | {"y": 2.0}).intervene({"root": Root()})
    assert program.log_density(at) == -np.inf
    assert "root" in program.sites() and program.sites()["root"].kind == "call"
