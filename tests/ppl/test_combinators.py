"""Outside a model the combinators are JAX's own; inside, what the laws of tests/contracts do not say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample

KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(2, 3)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("ours", "jaxs"),
    [
        (lambda: ppl.vmap(jnp.sin)(X), lambda: jax.vmap(jnp.sin)(X)),
        (lambda: ppl.vmap(jnp.dot, (1, None), 0)(X, X[:, 0]), lambda: jax.vmap(jnp.dot, (1, None), 0)(X, X[:, 0])),
        (
            lambda: ppl.vmap(lambda x, *, k: (x * k, x), 1, (0, 1))(X, k=jnp.ones((3, 2))),
            lambda: jax.vmap(lambda x, *, k: (x * k, x), 1, (0, 1))(X, k=jnp.ones((3, 2))),
        ),
        (lambda: ppl.vmap(jnp.add, [0, None])(X, X[0]), lambda: jax.vmap(jnp.add, [0, None])(X, X[0])),
        (lambda: ppl.vmap(lambda: 1.0, axis_size=3)(), lambda: jax.vmap(lambda: 1.0, axis_size=3)()),
        (
            lambda: ppl.scan(lambda c, x: (c + x, c), jnp.zeros(3), X, reverse=True),
            lambda: jax.lax.scan(lambda c, x: (c + x, c), jnp.zeros(3), X, reverse=True),
        ),
        (
            lambda: ppl.scan(lambda c, _: (c * 2, c), 1.0, None, 4, unroll=2),
            lambda: jax.lax.scan(lambda c, _: (c * 2, c), 1.0, None, 4, unroll=2),
        ),
        (lambda: ppl.cond(True, jnp.sin, jnp.cos, X), lambda: jax.lax.cond(True, jnp.sin, jnp.cos, X)),
        (
            lambda: ppl.switch(7, [jnp.sin, jnp.cos, jnp.tan], X),
            lambda: jax.lax.switch(7, [jnp.sin, jnp.cos, jnp.tan], X),
        ),
        (
            lambda: ppl.fori_loop(0, 5, lambda i, x: x + i, X),
            lambda: jax.lax.fori_loop(0, 5, lambda i, x: x + i, X),
        ),
        (
            lambda: jax.grad(lambda x: ppl.remat(jnp.sin)(x).sum())(X),
            lambda: jax.grad(lambda x: jax.checkpoint(jnp.sin)(x).sum())(X),
        ),
    ],
    ids=[
        "vmap",
        "vmap axes",
        "vmap keywords",
        "vmap list",
        "vmap size",
        "scan",
        "scan length",
        "cond",
        "switch",
        "fori",
        "remat",
    ],
)
def test_outside_a_model_they_are_jaxs(ours, jaxs):
    same(ours(), jaxs())


@pytest.mark.parametrize(
    ("ours", "jaxs"),
    [
        (lambda x: ppl.vmap(jnp.dot, (1, None))(X, x), lambda x: jax.vmap(jnp.dot, (1, None))(X, x)),
        (
            lambda x: ppl.scan(lambda c, y: (c + y.sum() * x[0], c), 0.0, X.T)[1],
            lambda x: jnp.array([0.0, 3 * x[0], 8 * x[0]]),
        ),
        (lambda x: ppl.cond(x[0] > 0, jnp.sin, jnp.cos, x), lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)),
        (lambda x: ppl.switch(2, [jnp.sin, jnp.cos], x), lambda x: jnp.cos(x)),
        (lambda x: ppl.fori_loop(1, 3, lambda i, y: y * i, x), lambda x: 2 * x),
        (lambda x: ppl.remat(jnp.sin)(x), jnp.sin),
    ],
    ids=["vmap", "scan", "cond", "switch", "fori_loop", "remat"],
)
def test_inside_a_model_without_sites_they_compute_the_same(ours, jaxs):
    @ppl.model
    def model():
        x = sample("x", dist.Normal(jnp.zeros(2), 1.0))
        return x, ours(x)

    x, got = model().simulate(KEY).retval
    np.testing.assert_allclose(got, jaxs(x), rtol=1e-6)


def test_switch_clamps_its_index_as_jax_does():
    @ppl.model
    def model(i):
        return ppl.switch(i, [lambda m=m: sample("x", dist.Normal(m, 0.01)) for m in (0.0, 10.0, 20.0)])

    assert [round(float(model(i).simulate(KEY)["x"]), -1) for i in (-5, 0, 1, 2, 9)] == [0, 0, 10, 20, 20]


def test_a_branch_not_taken_has_no_density_and_no_say():
    @ppl.model
    def model(flag):
        return ppl.cond(flag, lambda: sample("a", dist.Normal(0.0, 1.0)), lambda: sample("b", dist.Normal(5.0, 1.0)))

    assert set(model(True).sites()) == {"a", "b"} and all(row.conditional for row in model(True).sites().values())
    for b in (0.0, 1e6, jnp.inf):
        assert float(model(True).log_density({"a": 0.5, "b": b})) == float(dist.Normal(0.0, 1.0).log_prob(0.5))
    assert model(True).simulate(KEY)["b"] == 0.0  # a placeholder


def test_a_switch_of_branches_changes_the_density_once():
    """GenJAX 1.0 ignored, and 0.10 counted twice, what a change of branch does to the weight."""

    @ppl.model
    def model():
        k = sample("k", dist.Bernoulli(0.5))
        x = ppl.cond(k == 1, lambda: sample("x", dist.Normal(0.0, 1.0)), lambda: sample("x", dist.Normal(5.0, 1.0)))
        return sample("y", dist.Normal(x, 1.0))

    here, there = (float(model().log_density({"k": k, "x": 0.0, "y": 0.0})) for k in (1, 0))
    assert abs(here - there - 12.5) < 1e-4


def test_supports_that_differ_by_branch_are_not_checked_against_the_first():
    @ppl.model
    def model():
        k = sample("k", dist.Bernoulli(0.5))
        ppl.cond(k == 1, lambda: sample("x", dist.Normal(0.0, 1.0)), lambda: sample("x", dist.HalfNormal(1.0)))

    program = model() | {"x": -1.0}
    assert jnp.isfinite(program.log_density({"k": 1})) and program.log_density({"k": 0}) == -jnp.inf


def test_gradients_through_a_branch_are_those_of_the_branch_taken():
    @ppl.model
    def model():
        z = sample("z", dist.Normal(0.0, 1.0))
        ppl.cond(z > 0, lambda: sample("y", dist.Normal(z, 1.0)), lambda: sample("y", dist.Normal(0.0, 1.0)))

    slope = jax.grad(lambda z: model().log_density({"z": z, "y": 3.0}))
    assert slope(1.0) == -1.0 + 2.0 and slope(-1.0) == 1.0


def test_integers_for_a_real_site_in_a_loop():
    """They take the site's dtype: the carry of the loop keeps its own."""

    @ppl.model
    def walk():
        return ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2, 0.0, length=3)

    assert walk().log_density({"z": np.arange(3)}) == walk().log_density({"z": jnp.arange(3.0)})


@pytest.mark.parametrize("given", [[1.0, 0.0, 1.0], [True, False, True], np.array([1, 0, 1], np.int8)])
def test_whole_floats_and_flags_for_a_discrete_site(given):
    @ppl.model
    def coins():
        sample("x", dist.Bernoulli(0.3 * jnp.ones(3)))

    program = coins() | {"x": given}
    assert jnp.issubdtype(program.data["x"].dtype, jnp.integer)
    np.testing.assert_allclose(program.log_density({}), 2 * np.log(0.3) + np.log(0.7), rtol=1e-6)


def test_a_loop_of_no_steps():
    @ppl.model
    def walk(n):
        return ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2, 0.0, length=n)

    trace = walk(0).simulate(KEY)
    assert trace["z"].shape == (0,) and trace.log_density == 0.0 and trace.retval[0] == 0.0


def test_masked_arrays_pass_through_plates_and_loops():
    """A masked array given to a model keeps its mask lane by lane."""
    y = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 1], [0, 0]])

    @ppl.model
    def model(y):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        ppl.vmap(lambda row: ppl.scan(lambda c, v: (c, sample("y", dist.Normal(mu, 1.0), obs=v)), 0.0, row))(y)

    target = ppl.Target(model(y))
    assert target.names == ("mu", "y[0, 1]")
    want = dist.Normal(0.0, 1.0).log_prob(jnp.array([0.5, 0.5, 2.5, 3.5, 9.0 - 0.5])).sum()
    got = jax.jit(lambda t, u: t.log_density(u))(target, jnp.array([0.5, 9.0]))
    np.testing.assert_allclose(got, want, rtol=1e-5)
