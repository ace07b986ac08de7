"""Neural likelihoods against laws that are known; programs with a network in them; what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
import surrogates as sur
from ppl import dist, sample
from surrogates.heads import Categories, Flow, Mixture, Supported
from surrogates.heads.for_site import head_for
from surrogates.neural_likelihood import neural_likelihood

KEY, NUM = jax.random.key(0), 4


@ppl.model
def simulated(num, loc=0.0):
    """A simulator: nobody knows the density of what it puts out. (It is Normal, of variance 2.)"""
    mu = sample("mu", dist.Normal(loc, 1.0))

    def row(_):
        noise = sample("noise", dist.Normal(0.0, 1.0).expand([2]))
        ppl.deterministic("y", mu + noise[0] - noise[1])

    ppl.vmap(row)(jnp.arange(num))


@ppl.model
def line(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))

    def row(x):
        sample("y", dist.Normal(slope * ppl.deterministic("x", x), 0.5))

    ppl.vmap(row)(x)


@ppl.model
def plane():
    """A vector, all of it at once: y = A theta + noise of covariance C."""
    theta = sample("theta", dist.Normal(0.0, 1.0).expand([2]))
    sample("y", dist.MultivariateNormal(A @ theta, C))


A, C = jnp.array([[1.0, 0.5], [-1.0, 1.0]]), jnp.array([[0.5, 0.3], [0.3, 0.5]])


@ppl.model
def waits(num):
    rate = sample("rate", dist.Gamma(4.0, 2.0))
    ppl.vmap(lambda _: sample("t", dist.Exponential(rate)))(jnp.arange(num))


@ppl.model
def votes(num):
    p = sample("p", dist.Beta(2.0, 2.0))
    ppl.vmap(lambda _: sample("n", dist.Binomial(3, p)))(jnp.arange(num))


@ppl.model
def chained():
    a = sample("a", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0))
    sample("b", dist.Normal(a, 1.0))


@ppl.model
def forked():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("b", dist.Normal(mu + sample("a", dist.Normal(mu, 1.0)), 1.0))


def settings(**more):
    return {"key": KEY, "steps": 600, "batch": 64, "width": 16, "depth": 1, "heads": 2, "progress": False} | more


def rough(program, **more):
    """A network that has learned nothing: what it is used for does not care."""
    return neural_likelihood(program, **settings(steps=1, batch=2, width=8, **more))


def gap(net, program, exact, draws=2000):
    """log exact - log q at draws of the program: its mean is the mean KL of a row, with its standard error."""

    @jax.jit
    def run(net, keys):
        def one(key):
            values = program.values(program.simulate(key).choices)
            value = values[net.cases.site]
            return jnp.mean(exact(values).log_prob(value) - net.given(values).log_prob(value))

        return jax.vmap(one)(keys)

    found = np.asarray(run(net, jax.random.split(jax.random.key(3), draws)))
    return found.mean(), found.std() / draws**0.5


def is_near(net, program, exact, most):
    mean, error = gap(net, program, exact)
    assert -4.0 * error < mean < most + 2.0 * error, (mean, error)


@pytest.fixture(scope="module")
def net():
    return neural_likelihood(simulated(NUM), site="y", given=("mu",), **settings(head=Mixture(None, 2)))


def normal(values):
    return dist.Normal(values["mu"], 2.0**0.5)


# -- laws that are known -----------------------------------------------------------------------------------------------------


def test_a_simulator_whose_law_is_known(net):
    """Mean KL of a row below 0.01 nats; of the law that ignores mu it is log(3 / 2) / 2 = 0.20."""
    is_near(net, simulated(NUM), normal, 0.01)


@pytest.mark.slow
def test_rows_are_told_their_own():
    """Below 0.03 nats; of the law that ignores x, the mean of log(1 + 4 slope^2 x^2) / 2: 0.5 and more."""
    program = line(jnp.linspace(-2.0, 2.0, 8))
    found = neural_likelihood(program, site="y", **settings(head=Mixture(None, 2), steps=1000))
    assert found.cases.given == ("slope", "x") and found.cases.rows == ("x", "y")
    is_near(found, program, lambda v: dist.Normal(v["slope"] * v["x"], 0.5), 0.03)


@pytest.mark.slow
def test_a_vector_at_once():
    """Below 0.05 nats; if its two numbers were independent, it would be -log(1 - 0.6^2) / 2 = 0.22."""
    found = neural_likelihood(plane(), site="y", **settings(head=Mixture(2, 1), steps=1200))
    is_near(found, plane(), lambda v: dist.MultivariateNormal(A @ v["theta"], C), 0.05)


@pytest.mark.slow
def test_a_few_whole_numbers():
    """Below 0.01 nats; the law that ignores p is 0.2 and more off."""
    found = neural_likelihood(votes(NUM), site="n", **settings())
    is_near(found, votes(NUM), lambda v: dist.Binomial(3, v["p"]), 0.01)


@pytest.mark.slow
def test_draws_lie_in_the_support():
    """Whatever the network says, also far from where it was trained; and it learns: below 0.03 nats a row."""
    found = neural_likelihood(waits(NUM), site="t", **settings())
    assert isinstance(found.net.head, Supported)
    is_near(found, waits(NUM), lambda v: dist.Exponential(v["rate"]), 0.03)
    for rate in (1e-6, 1.0, 1e6):
        law = found.given({"rate": rate})
        times = jnp.asarray(law.sample(KEY, (1000,)))
        assert (times > 0.0).all() and jnp.isfinite(law.log_prob(times)).all()
        assert law.log_prob(-1.0) == -jnp.inf


# -- programs with a network in them -----------------------------------------------------------------------------------------


def conjugate(y, loc=0.0):
    precision = 1.0 + len(y) / 2.0
    return (loc + jnp.sum(y) / 2.0) / precision, precision**-0.5


def test_nuts_finds_the_conjugate_posterior(net):
    """Of 16 rows where training had 4. A row's law may err by 0.1 in location, a fifth of its deviation at the mean KL allowed
    above being 0.2; averaged over mu and rows it is far less: 0.1 is a third of the posterior's deviation."""
    y = 0.7 + 2.0**0.5 * jax.random.normal(jax.random.key(5), (16,))
    posterior = inf.mcmc(net.into(simulated(16)) | {"y": y}, inf.NUTS(), key=KEY, chains=4, draws=500, progress=False)
    mean, sd = conjugate(y)
    assert abs(posterior["mu"].mean() - mean) < 0.1 and abs(np.log(posterior["mu"].std() / sd)) < 0.2


@pytest.mark.slow
def test_priors_change_after_training(net):
    """Corrected, it is the posterior under another prior, and its evidence, but for 4 rows' errors of at most 0.05 each."""
    y = jnp.array([1.0, 2.5, -0.5, 1.2])
    program = net.into(simulated(NUM, 1.0)) | {"y": y}
    posterior = sur.correct(program, inf.guide_for(program, scale=1.0), key=KEY, rungs=(sur.ByImportance(4000),))
    known = dist.MultivariateNormal(jnp.ones(4), 2.0 * jnp.eye(4) + 1.0).log_prob(y)
    assert posterior.log_evidence_error is not None
    assert abs(posterior.log_evidence - known) < 0.2 + 4.0 * posterior.log_evidence_error
    assert abs(posterior["mu"].mean() - conjugate(y, 1.0)[0]) < 0.15


@pytest.mark.slow
def test_smc_runs_on_it(net):
    y = jnp.array([1.0, 2.5, -0.5, 1.2])
    run = inf.smc(net.into(simulated(NUM)) | {"y": y}, inf.tempering(), key=KEY, particles=500, progress=False)
    known = dist.MultivariateNormal(jnp.zeros(4), 2.0 * jnp.eye(4) + 1.0).log_prob(y)
    assert run.log_evidence_error is not None
    assert abs(run.log_evidence - known) < 0.2 + 4.0 * run.log_evidence_error


def test_its_density_is_prior_times_network(net):
    program = net.into(simulated(6, 0.5))
    mu, y = 0.3, jnp.arange(6.0)
    known = dist.Normal(0.5, 1.0).log_prob(mu) + net.given({"mu": mu}).log_prob(y).sum()
    assert {name: row.kind for name, row in program.sites().items()} == {"mu": "latent", "y": "latent"}
    np.testing.assert_allclose(program.log_density({"mu": mu, "y": y}), known, rtol=1e-5)
    np.testing.assert_allclose((program | {"y": y}).log_density({"mu": mu}), known, rtol=1e-5)
    np.testing.assert_allclose((program | {"mu": mu}).log_density({"y": y}), known, rtol=1e-5)
    done = program.intervene({"mu": mu}).log_density({"y": y})
    np.testing.assert_allclose(done, known - dist.Normal(0.5, 1.0).log_prob(mu), rtol=1e-5)
    trace = program.simulate(KEY)
    np.testing.assert_allclose(program.log_density(trace.choices), trace.log_density, rtol=1e-5)
    np.testing.assert_array_equal(program.retval(trace.choices), trace.choices["y"])
    pointwise = (program | {"y": y}).log_likelihoods({"mu": mu})["y"]
    np.testing.assert_allclose(pointwise, net.given({"mu": mu}).log_prob(y), rtol=1e-5)
    assert ppl.parents(program) == {"mu": set(), "y": {"mu"}}


def test_jit_vmap_and_grad_go_through(net):
    def density(net, mu, y, loc):
        return (net.into(simulated(3, loc)) | {"y": y}).log_density({"mu": mu})

    ys, mus = jax.random.normal(KEY, (5, 3)), jnp.linspace(-1.0, 1.0, 5)
    together = jax.jit(jax.vmap(density, (None, 0, 0, None)))(net, mus, ys, 0.2)
    one_by_one = [density(net, mu, y, 0.2) for mu, y in zip(mus, ys, strict=True)]
    np.testing.assert_allclose(together, jnp.stack(one_by_one), rtol=1e-4)
    slope = jax.jit(jax.grad(density, 1))(net, 0.1, ys[0], 0.2)
    around = [density(net, 0.1 + step, ys[0], 0.2) for step in (1e-2, -1e-2)]
    np.testing.assert_allclose(slope, (around[0] - around[1]) / 2e-2, rtol=0.02, atol=0.01)


def test_in_a_model_of_ones_own(net):
    @ppl.model
    def mine(num):
        m = sample("m", dist.Normal(0.0, 3.0))
        ppl.vmap(lambda _: sample("y", net.given({"mu": m})))(jnp.arange(num))

    y = jnp.arange(3.0)
    found = (mine(3) | {"y": y}).log_density({"m": 0.4})
    known = net.given({"mu": 0.4}).log_prob(y).sum()
    np.testing.assert_allclose(found, dist.Normal(0.0, 3.0).log_prob(0.4) + known, rtol=1e-5)


def test_data_stay_data(net):
    y = jnp.arange(float(NUM))

    @ppl.model
    def also(num):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("hint", dist.Normal(mu, 0.1))
        ppl.vmap(lambda _: sample("y", dist.Normal(mu, 2.0**0.5)))(jnp.arange(num))

    program = net.into(also(NUM) | {"hint": 0.3, "y": y})
    assert set(program.data) == {"hint", "y"}
    prior = dist.Normal(0.0, 1.0).log_prob(0.2) + dist.Normal(0.2, 0.1).log_prob(0.3)
    known = net.given({"mu": 0.2}).log_prob(y).sum()
    np.testing.assert_allclose(program.log_density({"mu": 0.2}), prior + known, rtol=1e-5)


@pytest.mark.slow
def test_networks_for_two_sites():
    """Neither is computed from the other. What the program has beside, stays."""

    @ppl.model
    def both():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        a = sample("a", dist.Normal(ppl.deterministic("twice", 2.0 * mu), 1.0))
        sample("b", dist.Normal(mu, 1.0))
        ppl.deterministic("above", a > 0.0)
        ppl.factor("tilt", 0.1 * mu)

    first, second = (rough(both(), site=name) for name in ("a", "b"))
    assert first.cases.given == ("twice",) and second.cases.given == ("mu",)
    program = first.into(second.into(both()))
    assert list(program.sites()) == ["mu", "twice", "tilt", "b", "a"]
    known = dist.Normal(0.0, 1.0).log_prob(0.3) + first.given({"twice": 0.6}).log_prob(-1.0) + 0.03
    found = program.log_density({"mu": 0.3, "a": -1.0, "b": 0.5})
    np.testing.assert_allclose(found, known + second.given({"mu": 0.3}).log_prob(0.5), rtol=1e-5)


# -- what is refused ---------------------------------------------------------------------------------------------------------


@ppl.model
def nested():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("inner", ppl.model(lambda: sample("y", dist.Normal(mu, 1.0)))())


@ppl.model
def written():
    sample("y", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0), obs=0.5)


@ppl.model
def counts():
    sample("y", dist.Poisson(sample("rate", dist.Gamma(2.0, 1.0))))


@ppl.model
def unlike(x):
    slope = sample("slope", dist.Normal(0.0, 1.0))
    ppl.vmap(lambda x: sample("y", dist.Normal(slope * x, 0.5)))(x)


def test_sentences(net):
    for told, (program, wrong) in {
        "no site 'z'": (waits(3), {"site": "z"}),
        "site 'y' is computed from mu, noise without noise of its own": (simulated(3), {"site": "y"}),
        "give the law of 't' one other site or more": (waits(3), {"site": "t", "given": ("t",)}),
        "site 'b' is computed from 'a', but in a program with a network the site comes last": (chained(), {"site": "a"}),
        r"computed from 'mu' too, .* given=\('a', 'mu'\)": (forked(), {"site": "b", "given": ("a",)}),
        "site 'inner.y' lies in a nested program": (nested(), {"site": "inner.y"}),
        "site 'y' is observed; expected one that is latent or deterministic": (written(), {"site": "y"}),
        "whole numbers, but not one of 0, 1, ..., k": (counts(), {"site": "y"}),
        "the rows of site 'y' are not alike": (unlike(jnp.array([0.1, 1.0])), {"site": "y"}),
        "rows: 'z' is neither 't' nor given": (waits(3), {"site": "t", "rows": ("z",)}),
        r"a value of site 't' has shape \(\), and this Mixture makes values of shape \(2,\)": (
            waits(3),
            {"site": "t", "head": Mixture(2, 2)},
        ),
    }.items():
        with pytest.raises(ValueError, match=told):
            rough(program, **wrong)
    with pytest.raises(ValueError, match="expected a program, got Model"):
        rough(waits, site="t")
    with pytest.raises(ValueError, match="reads mu, but there is no value of 'mu'"):
        net.given({"nu": 0.0})
    with pytest.raises(ValueError, match=r"'mu' must have shape \(\), as in training, got \(2,\)"):
        net.given({"mu": jnp.zeros(2)})
    with pytest.raises(ValueError, match="into: the program has no site 'y'. Known names"):
        net.into(waits(3))
    assert "NeuralLikelihood of y given mu, a row" in repr(net)


def test_heads_for_sites():
    """In the units of the draws, on the support; matrices are refused."""
    table = waits(3).sites()
    draws = np.exp(3.0 + 0.1 * np.random.default_rng(0).normal(size=1000))
    head = head_for("t", table["t"], draws)
    inside = jnp.asarray(head.law(head.start()).sample(KEY, (2000,)))
    assert (inside > 0.0).all() and 2.5 < jnp.log(inside).mean() < 3.5
    vector: Any = head_for("y", plane().sites()["y"], np.ones((10, 2)))
    assert isinstance(vector.head, Flow)
    assert head_for("n", votes(3).sites()["n"], np.ones(10, int)) == Categories(4)
    with pytest.raises(ValueError, match="heads are of numbers and vectors"):
        head_for("t", table["t"], np.ones((10, 2, 2)))
