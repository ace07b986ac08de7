"""Wrong answers that other systems gave without a word: here they are right, or a sentence.

(Two successive sites with one noise, and strategies in loops, are cases of the registry: "noises" and "chain".)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.vi import Enumerate, MeasureValued, Score, expectation
from ppl import dist, sample
from tests.inference.vi.strategies import CASES, THETA, sigmoid


def chain(loop):
    """Coins in a loop whose gradient by t is 3 slopes of the sigmoid, and the same under each kind of loop."""

    @expectation
    def objective(t):
        if loop == "scan":
            return ppl.scan(lambda c, _: (c + sample("x", dist.Bernoulli(logits=t)), None), 0.0, length=3)[0]
        if loop == "fori_loop":
            return ppl.fori_loop(0, 3, lambda i, c: c + sample("x", dist.Bernoulli(logits=t)), 0.0)
        return ppl.remat(lambda: sum(1.0 * sample(f"x{i}", dist.Bernoulli(logits=t)) for i in range(3)))()

    return objective


@pytest.mark.parametrize("strategy", [Enumerate(), MeasureValued()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("loop", ["scan", "fori_loop", "remat"])
def test_strategies_hold_in_loops(loop, strategy):
    """They were ignored there: the gradient was exactly zero. Of a sum these two have no variance at all."""
    e = chain(loop).using({"x*": strategy})
    gradient = jax.jit(jax.grad(lambda t: e.estimate(jax.random.key(0), t)))(0.3)
    np.testing.assert_allclose(gradient, 3.0 * sigmoid(0.3) * sigmoid(-0.3), rtol=1e-5)


def test_a_raw_loop_around_a_site_is_a_sentence():
    e = expectation(lambda t: jax.lax.fori_loop(0, 3, lambda i, c: c + sample("x", dist.Bernoulli(logits=t)), 0.0))
    with pytest.raises(ValueError, match="raw JAX transformation.*ppl.fori_loop"):
        e.estimate(jax.random.key(0), 0.3)


@pytest.mark.parametrize("strategy", [None, Score(), MeasureValued()], ids=lambda s: type(s).__name__)
def test_nested_maps_do_not_transpose(strategy):
    """As many particles as schools; the inner map leaves a drawn parameter unmapped. The axes are (particle, school)."""
    means = 10.0 * jnp.arange(4.0)

    def objective(shift):
        def particle(mean):
            mu = sample("mu", dist.Normal(mean, 0.01))
            return ppl.vmap(lambda s: sample("theta", dist.Normal(mu, s)))(0.01 * jnp.ones(4))

        theta = ppl.vmap(particle)(means + shift)
        return jnp.sum((theta - means[:, None]) ** 2)

    e = expectation(objective).using({} if strategy is None else {"theta": strategy})
    value = jax.jit(e.estimate)(jax.random.key(0), 0.0)
    assert value < 0.1  # transposed it is in the thousands


def test_misspelled_choices_in_an_objective_are_a_sentence():
    @ppl.model
    def model(t):
        sample("z", dist.Normal(t, 1.0))

    @expectation
    def elbo(t):
        choices, log_q = ppl.draw(model(t))
        return model(0.0).log_density({"x": choices["z"]}) - log_q

    with pytest.raises(ValueError, match="the choices name a site 'x'"):
        elbo.estimate(jax.random.key(0), 0.3)


def test_a_density_is_one_number_whatever_the_shapes():
    @ppl.model
    def model():
        sample("z", dist.Normal(jnp.zeros(3), 1.0))
        ppl.vmap(lambda m: sample("w", dist.Normal(m * jnp.ones(2), 1.0).to_event(1)))(jnp.zeros(4))

    def density():
        log_q = ppl.draw(model())[1]
        assert log_q.shape == ()
        return log_q

    keys = jax.random.split(jax.random.key(0), 5)
    assert jax.eval_shape(jax.vmap(expectation(density).estimate), keys).shape == (5,)


def test_after_an_exception_nothing_runs_on():
    def broken():
        sample("x", dist.Normal(0.0, 1.0))
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        expectation(broken).estimate(jax.random.key(0))
    with pytest.raises(ValueError, match="outside a running program"):
        sample("x", dist.Normal(0.0, 1.0))


@pytest.mark.slow
def test_estimates_are_pure():
    """jit, vmap, scan and grad of an estimate give what plain calls give; and the key alone decides."""
    e = CASES["coins"].using("Enumerate, MeasureValued, Score")
    keys = jax.random.split(jax.random.key(0), 3)
    one = jax.jit(jax.value_and_grad(e.estimate, argnums=1))
    plain = [one(key, THETA) for key in keys]
    mapped = jax.jit(jax.vmap(one, (0, None)))(keys, THETA)
    _, scanned = jax.lax.scan(lambda c, key: (c, one(key, THETA)), 0, keys)
    summed = jax.jit(jax.grad(lambda t: jax.lax.scan(lambda c, key: (c + e.estimate(key, t), None), 0.0, keys)[0]))
    through = summed(THETA)
    for i, (value, gradient) in enumerate(plain):
        for values, gradients in (mapped, scanned):
            np.testing.assert_allclose(values[i], value, rtol=1e-5)
            np.testing.assert_allclose(gradients[i], gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(through, sum(gradient for _, gradient in plain), rtol=1e-4, atol=1e-6)


def test_code_grows_linearly():
    """Of sites that are enumerated: twice as many, twice the code; it doubled with each one."""

    def lines(num):
        def objective(t):
            total = 0.0
            for i in range(num):
                total = total + sample(f"x{i}", dist.Bernoulli(sigmoid(t + 0.1 * total)))
            return total**2

        e = expectation(objective).using({"*": Enumerate()})
        return len(jax.jit(jax.grad(lambda t: e.estimate(jax.random.key(0), t))).lower(0.3).as_text().splitlines())

    six, twelve = lines(6), lines(12)
    assert twelve < 2.2 * six
