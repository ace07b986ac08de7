"""Programs changed by reparam and intervene: what stays the same, and what is cut."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist, sample

from .laws import change_of_variables, near, simulate
from .models import Case, hierarchy

DRAWS = 2000


@ppl.model
def families(scale):
    """One site of every location-scale family, in a batch, an event and a plate."""
    m = sample("m", dist.Normal(0.5, 1.0))
    return {
        "normal": sample("normal", dist.Normal(m, scale)),
        "expanded": sample("expanded", dist.Normal(m, scale).expand((2,))),
        "event": sample("event", dist.Normal(m * jnp.ones(2), scale).to_event(1)),
        "lognormal": sample("lognormal", dist.LogNormal(m, scale)),
        "t": sample("t", dist.StudentT(5.0, m, scale)),
        "cauchy": sample("cauchy", dist.Cauchy(m, scale)),
        "laplace": sample("laplace", dist.Laplace(m, scale)),
        "logistic": sample("logistic", dist.Logistic(m, scale)),
        "gumbel": sample("gumbel", dist.Gumbel(m, scale)),
        "mvn": sample("mvn", dist.MultivariateNormal(m * jnp.ones(2), jnp.array([[2.0, 0.6], [0.6, 1.0]]))),
        "plate": ppl.vmap(lambda s: sample("plate", dist.Normal(m, s)))(jnp.array([1.0, 2.0])),
    }


FAMILIES = ["normal", "expanded", "event", "lognormal", "t", "cauchy", "laplace", "logistic", "gumbel", "mvn", "plate"]


def returned(program, seed):
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    return jax.jit(jax.vmap(lambda key: program.retval(program.simulate(key).choices)))(keys)


def test_automatic_reparam_keeps_the_distribution():
    """Two-sample Kolmogorov-Smirnov on 15 marginals at 1e-5 each: a false alarm in 6000 fresh keys; the keys are fixed."""
    program = families(1.5)
    changed = program.reparam()
    assert {name for name in changed.sites() if name.endswith("_base")} == {f"{name}_base" for name in FAMILIES}
    one, two = returned(program, 1), returned(changed, 2)
    for name in FAMILIES:
        a, b = (np.asarray(x[name]).reshape(DRAWS, -1) for x in (one, two))
        for i in range(a.shape[1]):
            assert stats.ks_2samp(a[:, i], b[:, i]).pvalue > 1e-5, name
    correlation = [float(np.corrcoef(np.asarray(x["mvn"]).T)[0, 1]) for x in (one, two)]
    assert abs(correlation[0] - correlation[1]) < 0.1


def test_the_check_would_see_a_wrong_scale(monkeypatch):
    one, two = returned(families(1.5), 1), returned(families(2.2), 2)
    assert stats.ks_2samp(one["normal"], two["normal"]).pvalue < 1e-5


def test_reparam_keeps_the_density_up_to_its_jacobian(x64):
    """Original density at the restored values + log |d restored / d base| = density of the base values."""
    program = families(1.5)
    changed = program.reparam()
    choices = jax.jit(changed.simulate)(jax.random.key(0)).choices
    base = {k: v for k, v in choices.items() if k != "m"}
    flat, unravel = jax.flatten_util.ravel_pytree(base)

    def restored(flat):
        out = changed.retval({"m": choices["m"], **unravel(flat)})
        return {name: out[name] for name in FAMILIES}

    jacobian = jax.jit(jax.jacfwd(lambda x: jax.flatten_util.ravel_pytree(restored(x))[0]))(flat)
    original = program.log_density({"m": choices["m"], **restored(flat)})
    near(original + jnp.linalg.slogdet(jacobian)[1], changed.log_density(choices), 100)


def test_reparam_keeps_the_posterior_of_the_parameters(x64):
    """Target densities of the two parameterisations differ by just the Jacobian between their coordinates."""
    y = {"y": jnp.array([1.0, -1.0, 0.5])}
    centred, other = ppl.Target(hierarchy() | y), ppl.Target((hierarchy() | y).reparam())
    assert set(other.names) == {"mu", "tau", *(f"theta_base[{i}]" for i in range(3)), "v_base[0]", "v_base[1]"}

    def across(u):
        record = other.record(u)
        return centred.unconstrain({name: record[name] for name in ("mu", "tau", "theta", "v")})

    u = jax.random.normal(jax.random.key(0), (other.dim,))
    jacobian = jnp.linalg.slogdet(jax.jit(jax.jacfwd(across))(u))[1]
    near(other.log_density(u), centred.log_density(across(u)) + jacobian, 100)


def test_a_users_own_reparameterisation(x64):
    """A rule of one's own: exponential through the inverse of its distribution function."""

    def inverse_cdf(name, d):
        u = sample(f"{name}_u", dist.Uniform(0.0, 1.0))
        return ppl.deterministic(name, -jnp.log1p(-u) / d.rate)

    @ppl.model
    def waiting():
        rate = sample("rate", dist.Gamma(2.0, 1.0))
        return sample("t", dist.Exponential(rate))

    program = waiting().reparam({"t": inverse_cdf})
    assert [a for a, row in program.sites().items() if row.kind == "latent"] == ["rate", "t_u"]
    draws = returned(program, 3)
    assert stats.kstest(np.asarray(draws), stats.lomax(2.0).cdf).pvalue > 1e-5
    run = simulate(Case(lambda: program, lambda c: 0.0))
    change_of_variables(run)


def test_a_rule_may_sample_its_own_site():
    """Then it is an ordinary site, of the distribution that the rule chose."""

    @ppl.model
    def one():
        return sample("x", dist.Normal(0.0, 1.0))

    widened = one().reparam({"x": lambda name, d: sample(name, dist.Normal(0.0, 3.0))})
    near(widened.log_density({"x": 0.0}), dist.Normal(0.0, 3.0).log_prob(0.0), 10)


def test_reparam_of_a_site_in_a_nested_program(x64):
    @ppl.model
    def outer():
        return sample("in", hierarchy())

    changed = outer().reparam({"in.theta": ppl.NonCentered()})
    assert changed.sites()["in.theta_base"].kind == "latent" and changed.sites()["in.theta"].kind == "deterministic"
    inner = hierarchy().reparam({"theta": ppl.NonCentered()})
    choices = inner.simulate(jax.random.key(0)).choices
    near(changed.log_density({"in": choices}), inner.log_density(choices), 1)


def test_settings_of_a_reparam_are_arguments_and_are_sliced_with_the_site(x64):
    """Of a site in a plate of nested programs; a change of settings compiles nothing, and has a gradient."""

    @ppl.model
    def plate():
        return ppl.vmap(lambda _: sample("in", hierarchy()))(jnp.arange(2))

    c, traced = np.array([[0.0, 0.5, 1.0], [1.0, 0.2, 0.7]]), []

    @jax.jit
    def log_density(program, choices):
        traced.append(None)
        return program.log_density(choices)

    def changed(c):
        return plate().reparam({"in.theta": ppl.PartlyCentered(c)})

    choices = changed(c).simulate(jax.random.key(0)).choices
    for centring in (c, 1.0 - c):
        rows = [
            hierarchy()
            .reparam({"theta": ppl.PartlyCentered(row)})
            .log_density(jax.tree.map(lambda x, i=i: x[i], choices["in"]))
            for i, row in enumerate(centring)
        ]
        near(log_density(changed(centring), choices), sum(rows), 1)
    assert len(traced) == 1
    slope = jax.grad(lambda c: changed(c).log_density(choices))(jnp.asarray(c))
    step = 1e-6 * np.eye(6)[4].reshape(2, 3)
    near(slope[1, 1], (changed(c + step).log_density(choices) - changed(c - step).log_density(choices)) / 2e-6, 1e4)


# -- the do-operator -------------------------------------------------------------------------------------------------------


@ppl.model
def confounded():
    z = sample("z", dist.Normal(0.0, 1.0))
    dose = sample("dose", dist.Normal(2.0 * z, 1.0))
    size = ppl.deterministic("size", jnp.exp(dose))
    return sample("y", dist.Normal(size + z, 1.0))


def test_an_intervention_cuts_the_parents_and_the_density():
    program = confounded()
    done = program.intervene({"dose": 1.0})
    assert ppl.parents(program) == {"z": set(), "dose": {"z"}, "size": {"dose"}, "y": {"size", "z"}}
    assert ppl.parents(done) == {"z": set(), "dose": set(), "size": {"dose"}, "y": {"size", "z"}}
    want = dist.Normal(0.0, 1.0).log_prob(0.3) + dist.Normal(jnp.exp(1.0) + 0.3, 1.0).log_prob(2.0)
    near(done.log_density({"z": 0.3, "y": 2.0}), want, 10)


def test_doing_is_not_seeing():
    """Conditioning on the dose informs about z; setting it does not."""
    done, seen = (
        ppl.Target(confounded().intervene({"dose": 3.0}) | {"y": 0.0}),
        ppl.Target(confounded() | {"dose": 3.0, "y": 0.0}),
    )
    z = jnp.array([0.7])
    near(seen.log_density(z) - done.log_density(z), dist.Normal(1.4, 1.0).log_prob(3.0), 10)


def test_deterministic_sites_can_be_set_and_data_give_way():
    program = confounded() | {"dose": 5.0}
    done = program.intervene({"size": 1.0, "dose": 0.0})
    assert done.data == {} and done.sites()["size"].kind == "intervened"
    want = dist.Normal(0.0, 1.0).log_prob(0.0) + dist.Normal(1.0, 1.0).log_prob(0.0)
    near(done.log_density({"z": 0.0, "y": 0.0}), want, 10)


def test_an_intervention_in_a_plate_and_in_a_nested_program():
    @ppl.model
    def outer():
        return ppl.vmap(lambda x: sample("in", confounded()) * x)(jnp.ones(2))

    done = outer().intervene({"in.dose": jnp.array([1.0, 2.0])})
    trace = done.simulate(jax.random.key(0))
    assert set(trace.choices["in"]) == {"z", "y"}
    near(done.values(trace.choices)["in"]["size"], jnp.exp(jnp.array([1.0, 2.0])), 10)


@pytest.mark.parametrize("address", ["f", "in.f"])
def test_a_call_is_replaced_wherever_it_lies(address):
    """Calls in nested programs were once accepted and ignored."""

    @ppl.model
    def one():
        x = sample("x", dist.Normal(0.0, 1.0))
        return ppl.deterministic("d", ppl.call("f", jnp.sin, x))

    @ppl.model
    def two():
        return sample("in", one())

    program = (one() if address == "f" else two()).intervene({address: lambda x: 100.0 + x})
    choices = {"x": 1.0} if address == "f" else {"in": {"x": 1.0}}
    near(program.retval(choices), jnp.array(101.0), 10)
