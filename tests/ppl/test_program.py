"""Programs are values and pytrees; they print; they are run as seldom as can be; traces hold choices and nothing else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample

KEY = jax.random.key(0)
SIGMA = jnp.array([1.0, 2.0, 3.0])


@ppl.model
def schools(sigma, tau_scale=5.0, *, name="theta"):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(tau_scale))

    def school(s):
        theta = sample(name, dist.Normal(mu, tau))
        return sample("y", dist.Normal(theta, s))

    return ppl.vmap(school)(sigma)


Y = jnp.array([1.0, -2.0, 0.5])
CHOICES = {"mu": 1.0, "tau": 2.0, "theta": jnp.array([0.5, -1.0, 0.0])}


# -- a pytree --------------------------------------------------------------------------------------------------------------


def test_one_compilation_serves_all_programs_of_one_structure():
    traced = []

    @jax.jit
    def density(program, choices):
        traced.append(None)
        return program.log_density(choices)

    for scale in (1.0, 2.0, 3.0):
        got = density(schools(scale * SIGMA, scale) | {"y": scale * Y}, CHOICES)
        np.testing.assert_allclose(got, (schools(scale * SIGMA, scale) | {"y": scale * Y}).log_density(CHOICES), rtol=1e-5)
    assert len(traced) == 1
    density(schools(SIGMA, name="theta") | {"y": Y}, CHOICES)
    assert len(traced) == 2  # a keyword more is another structure


def test_gradients_with_respect_to_a_program():
    program = schools(SIGMA, 5.0) | {"y": Y}
    slopes = jax.grad(lambda p: p.log_density(CHOICES))(program)
    assert isinstance(slopes, ppl.Program)
    np.testing.assert_allclose(slopes.data["y"], -(Y - CHOICES["theta"]) / SIGMA**2, rtol=1e-5)
    want = jax.grad(lambda s: dist.HalfCauchy(s).log_prob(2.0))(5.0)
    np.testing.assert_allclose(slopes.args[1], want, rtol=1e-5)


def test_programs_map_over_their_data_and_arguments():
    batch = jnp.stack([Y, 2 * Y])
    make = jax.vmap(lambda y, s: (schools(s * SIGMA) | {"y": y}).log_density(CHOICES))
    got = make(batch, jnp.array([1.0, 2.0]))
    want = [(schools(s * SIGMA) | {"y": y}).log_density(CHOICES) for y, s in zip(batch, (1.0, 2.0), strict=True)]
    np.testing.assert_allclose(got, jnp.stack(want), rtol=1e-5)
    stacked = jax.tree.map(
        lambda *x: jnp.stack(x), *(schools(s * SIGMA, s) | {"y": y} for y, s in zip(batch, (1.0, 2.0), strict=True))
    )
    np.testing.assert_allclose(
        jax.vmap(lambda p: p.log_density(CHOICES))(stacked)[0],
        want[0] + (dist.HalfCauchy(1.0).log_prob(2.0) - dist.HalfCauchy(5.0).log_prob(2.0)),
        rtol=1e-5,
    )


def test_integers_strings_and_functions_are_structure():
    program = schools(SIGMA, name="theta")
    assert all(hasattr(x, "dtype") or isinstance(x, float) for x in jax.tree.leaves(program))
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(program)))
    assert again.kwargs == {"name": "theta"} and again.fn is program.fn
    assert jax.tree.structure(program) != jax.tree.structure(schools(SIGMA, name="effect"))


def test_rules_and_replaced_calls_are_part_of_the_pytree():
    """Emulators hold arrays: two of one structure share a compilation, and can be differentiated."""

    class Emulator(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return self.weight * x

    @ppl.model
    def model():
        x = sample("x", dist.Normal(1.0, 1.0))
        return ppl.call("solve", jnp.sin, x)

    traced = []

    @jax.jit
    def value(program):
        traced.append(None)
        return program.retval({"x": 2.0})

    assert [float(value(model().intervene({"solve": Emulator(jnp.array(w))}))) for w in (3.0, 4.0)] == [6.0, 8.0]
    assert len(traced) == 1
    slope = jax.grad(lambda w: model().intervene({"solve": Emulator(w)}).retval({"x": 2.0}))(3.0)
    assert slope == 2.0
    changed = schools(SIGMA).reparam({"theta": ppl.NonCentered()})
    again = jax.jit(lambda p: p)(changed)
    assert again.sites().keys() == changed.sites().keys()


def test_methods_return_new_values():
    program = schools(SIGMA)
    before = dict(program.sites())
    conditioned = program | {"y": Y}
    conditioned.intervene({"mu": 0.0}), conditioned.reparam(), conditioned.without("y")
    assert dict(program.sites()) == before and program.data == {} and set(conditioned.data) == {"y"}
    assert conditioned.without().sites() == before


# -- how often the model runs ----------------------------------------------------------------------------------------------


def counted():
    runs = []

    @ppl.model
    def model(x):
        runs.append(None)
        mu = sample("mu", dist.Normal(0.0, 1.0))
        return ppl.vmap(lambda s: sample("y", dist.Normal(mu, s)))(x)

    return runs, model(SIGMA)


def test_the_model_runs_once_for_each_question():
    runs, program = counted()
    program.simulate(KEY)
    assert len(runs) == 1
    program.sites(), program.sites(), repr(program)
    assert len(runs) == 2
    program.log_density({"mu": 0.0, "y": Y}), program.log_density({"mu": 1.0, "y": Y})
    assert len(runs) == 4


def test_a_target_is_traced_once_for_value_and_gradient():
    runs, program = counted()
    target = ppl.Target(program | {"y": Y})
    del runs[:]
    compiled = jax.jit(jax.value_and_grad(lambda t, u: t.log_density(u), argnums=1))
    for i in range(3):
        compiled(target, i * jnp.ones(1))
    compiled(ppl.Target(program | {"y": 2 * Y}), jnp.ones(1))
    assert len(runs) <= 2  # the table of the second target, and one trace


# -- traces ----------------------------------------------------------------------------------------------------------------


def test_many_traces_cost_what_their_choices_cost():
    """1e5 particles of eight schools: GenJAX kept 58 MB in 27 leaves; the choices are 4 MB."""
    n = 100_000
    program = schools(jnp.ones(8))
    traces = jax.jit(lambda keys: jax.vmap(program.simulate)(keys))(jax.random.split(KEY, n))
    leaves = jax.tree.leaves(traces)
    assert len(leaves) == 4 + 1
    assert sum(x.nbytes for x in leaves) == 4 * n * (1 + 1 + 8 + 8 + 1)


def test_a_trace_is_read_by_address():
    @ppl.model
    def outer():
        return sample("in", schools(SIGMA))

    trace = outer().simulate(KEY)
    assert trace["in.mu"] == trace["in"]["mu"] == trace.choices["in"]["mu"]
    np.testing.assert_array_equal(trace.retval, trace["in.y"])


# -- printing --------------------------------------------------------------------------------------------------------------


def test_a_program_prints_its_table():
    assert repr(schools(SIGMA) | {"y": Y}) == (
        "Program schools | y\n"
        "  site   kind      distribution  shape  support   in\n"
        "  mu     latent    Normal        ()     real\n"
        "  tau    latent    HalfCauchy    ()     positive\n"
        "  theta  latent    Normal        (3,)   real      vmap[3]\n"
        "  y      observed  Normal        (3,)   real      vmap[3]"
    )


def test_every_kind_of_site_prints():
    @ppl.model
    def kinds():
        z = sample("z", dist.Dirichlet(jnp.ones(3)))
        k = sample("k", dist.Bernoulli(0.5))
        ppl.cond(k == 1, lambda: sample("extra", dist.Poisson(1.0)), lambda: 0)
        ppl.deterministic("first", z[0])
        ppl.factor("penalty", -z[0])
        ppl.call("solve", jnp.sin, z)
        sample("sub", schools(SIGMA))
        sample("y", dist.Uniform(0.0, jnp.ones((2, 2))))

    program = kinds() | {"y": np.ma.masked_array(0.5 * np.ones((2, 2)), mask=np.eye(2)), "sub.y": Y}
    assert repr(program.intervene({"sub.tau": 1.0})) == (
        "Program kinds | y, sub.y\n"
        "  site       kind            distribution  shape   support              in\n"
        "  z          latent          Dirichlet     (3,)    simplex\n"
        "  k          latent          Bernoulli     ()      boolean\n"
        "  extra      latent?         Poisson       ()      integer nonnegative\n"
        "  first      deterministic   -             ()      -\n"
        "  penalty    factor          -             ()      -\n"
        "  solve      call            -             ()      -\n"
        "  sub.mu     latent          Normal        ()      real\n"
        "  sub.tau    intervened      -             ()      -\n"
        "  sub.theta  latent          Normal        (3,)    real                 vmap[3]\n"
        "  sub.y      observed        Normal        (3,)    real                 vmap[3]\n"
        "  y          latent in part  Uniform       (2, 2)  interval"
    )


def test_the_rest_prints():
    @ppl.model
    def empty():
        return 1

    assert repr(empty()) == "Program empty\n  (no sites)"
    assert repr(empty) == "Model empty: call it with its arguments to get a program"
    assert repr(ppl.Target(schools(SIGMA) | {"y": Y})) == (
        "Target of dimension 5\n  mu: entries 0 to 0\n  tau: entries 1 to 1\n  theta: entries 2 to 4"
    )
    assert repr(ppl.Trace({"a": {"b": 1.0}}, 2.0)) == "Trace(log_density=2.0)\n  a.b: 1.0"


def test_simulate_needs_no_table_so_pictures_of_broken_density_still_run():
    """An improper prior has a density but cannot be drawn from."""

    @ppl.model
    def improper():
        x = sample("x", dist.ImproperUniform(dist.constraints.positive, (), ()))
        sample("y", dist.Normal(0.0, x))

    assert jnp.isfinite(ppl.Target(improper() | {"y": 1.0}).log_density(jnp.zeros(1)))
    with pytest.raises(NotImplementedError):
        improper().simulate(KEY)
