"""What the laws of tests/contracts do not say about targets: names, doors, explanations, and correlation matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from tests.contracts.laws import near


def test_names_of_entries():
    @ppl.model
    def model():
        sample("a", dist.Normal(0.0, 1.0))
        sample("p", dist.Dirichlet(jnp.ones((2, 3))))
        sample("in", ppl.model(lambda: sample("v", dist.Normal(jnp.zeros(2), 1.0)))())

    data = {"in": {"v": np.ma.masked_array([0.0, 1.0], mask=[1, 0])}}
    assert ppl.Target(model() | data).names == ("a", "p[0, 0]", "p[0, 1]", "p[1, 0]", "p[1, 1]", "in.v[0]")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_correlation_matrices(x64, size):
    """The Jacobian onto a Cholesky factor, against autodiff on its strictly lower entries."""

    @ppl.model
    def model():
        return sample("L", dist.LKJCholesky(size, 2.0))

    target = ppl.Target(model())
    u = 0.4 * jnp.arange(1.0, target.dim + 1)
    i, j = np.tril_indices(size, -1)
    jacobian = jax.jacfwd(lambda u: target.constrain(u)["L"][i, j])(u)
    near(target.log_density(u), model().log_density(target.constrain(u)) + jnp.linalg.slogdet(jacobian)[1], 10)
    near(target.unconstrain(target.constrain(u)), u, 100)


@pytest.mark.parametrize("value", [0, 1, False, True, 0.0, 1.0])
def test_the_density_of_coins_and_its_slope(x64, value):
    """log p = log sigmoid(+-b), with slope value - sigmoid(b), also at b = 0, where samplers often begin, and far out."""

    @ppl.model
    def coin():
        b = sample("b", dist.ImproperUniform(dist.constraints.real, (), ()))
        sample("y", dist.Bernoulli(logits=b))

    target = ppl.Target(coin() | {"y": jnp.asarray(value)})
    b = jnp.array([-800.0, -30.0, -1.0, 0.0, 1.0, 30.0, 800.0])
    density, slope = jax.vmap(jax.value_and_grad(target.log_density))(b[:, None])
    near(density, jax.nn.log_sigmoid(b if value else -b), 10)
    near(slope[:, 0], float(value) - jax.nn.sigmoid(b), 10)


def test_the_record_holds_deterministic_values_too():
    @ppl.model
    def model():
        a = sample("a", dist.HalfNormal(1.0))
        ppl.deterministic("log_a", jnp.log(a))
        sample("in", ppl.model(lambda: ppl.deterministic("twice", 2 * a))())

    record = ppl.Target(model()).record(jnp.array([0.7]))
    np.testing.assert_allclose(record["log_a"], 0.7, rtol=1e-6)
    np.testing.assert_allclose(record["in"]["twice"], 2 * np.exp(0.7), rtol=1e-6)


# -- the second door -------------------------------------------------------------------------------------------------------


def test_from_log_density_of_one_array():
    target = ppl.Target.from_log_density(lambda x: -0.5 * jnp.sum(x**2), jnp.zeros(3))
    u = jnp.array([1.0, 2.0, 3.0])
    assert target.dim == 3 and target.log_density(u) == -7.0 and target.names == ("x[0]", "x[1]", "x[2]")
    np.testing.assert_array_equal(target.constrain(u)["x"], u)


def test_from_log_density_keeps_the_form_of_the_example():
    """Choices had dotted names at first, not the nested form that the function was written for."""

    def log_density(c):
        return -c["a"]["b"] - jnp.sum(c["c"] ** 2)

    example = {"a": {"b": 1.0}, "c": jnp.zeros(2)}
    target = ppl.Target.from_log_density(log_density, example, supports={"a.b": dist.constraints.positive})
    u = jnp.array([0.3, 1.0, 2.0])
    choices = target.constrain(u)
    assert jax.tree.structure(choices) == jax.tree.structure(example)
    np.testing.assert_allclose(target.log_density(u), log_density(choices) + 0.3, rtol=1e-6)
    np.testing.assert_allclose(target.unconstrain(choices), u, rtol=1e-6)
    simplex = ppl.Target.from_log_density(lambda c: 0.0, {"p": jnp.ones(3) / 3}, supports={"p": dist.constraints.simplex})
    assert simplex.dim == 2


def test_a_target_is_a_target_and_a_program_becomes_one():
    target = ppl.Target.from_log_density(lambda x: -jnp.sum(x), jnp.zeros(1))
    assert ppl.as_target(target) is target
    assert ppl.as_target(ppl.model(lambda: sample("x", dist.Normal(0.0, 1.0)))()).dim == 1


# -- explanations ----------------------------------------------------------------------------------------------------------


@ppl.model
def fragile():
    x = sample("x", dist.Normal(0.0, 1.0))
    s = sample("s", dist.HalfNormal(1.0))
    ppl.vmap(lambda y: sample("y", dist.Uniform(0.0, s), obs=y))(jnp.array([0.5, 4.0, 8.0]))
    ppl.factor("penalty", jnp.where(x > 5, jnp.nan, 0.0))


@pytest.mark.parametrize(
    ("u", "sentence"),
    [
        ((0.0, 3.0), "the density of every site is finite there"),
        ((0.0, 1.0), "site 'y' has log density -inf at index 1"),
        ((9.0, 3.0), "site 'penalty' has log density nan"),
        ((9.0, 1.0), "site 'y' has log density -inf at index 1; site 'penalty' has log density nan"),
        ((jnp.inf, 3.0), "site 'x' has log density -inf; site 'penalty' has log density nan; site 'x' is not finite itself"),
    ],
)
def test_explain_names_the_sites_at_fault(u, sentence):
    assert ppl.Target(fragile()).explain(jnp.array(u)) == sentence


def test_a_target_made_under_jit():
    """All but the mask of missing data may be traced."""
    program = ppl.model(lambda: sample("y", dist.Normal(sample("m", dist.Normal(0.0, 1.0)), 1.0)))()
    got = jax.jit(lambda y: ppl.Target(program | {"y": y}).log_density(jnp.zeros(1)))(1.0)
    np.testing.assert_allclose(got, ppl.Target(program | {"y": 1.0}).log_density(jnp.zeros(1)), rtol=1e-6)
