"""Continuous sites integrated out: against closed forms and quadrature; what is not conjugate is refused by its structure."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from jax.scipy.special import gammaln

import ppl
from ppl import dist, sample

QUICKLY = {"xla_backend_optimization_level": 0}
COUNTS = jnp.array([3, 0, 2])
X = jnp.array([[0.5, -1.0], [1.0, 0.3], [-0.2, 0.8]])
A = jnp.array([1.0, 2.0, 0.5])


def once(name, prior, child, data):
    """A site, and data below it in a plate."""

    @ppl.model
    def model(y):
        x = sample(name, prior)
        ppl.vmap(lambda y: sample("y", child(x), obs=y))(y)

    return model(data)


@ppl.model
def lanes(y):
    a = sample("a", dist.Gamma(2.0, 1.0))

    def unit(y):
        x = sample("x", dist.Beta(a, 2.0))
        sample("y", dist.Binomial(10, x), obs=y)

    ppl.vmap(unit)(y)


@ppl.model
def regression(y):
    s = sample("s", dist.HalfNormal(1.0))
    x = sample("x", dist.Normal(jnp.array([1.0, 2.0]), 3.0))
    b = sample("b", dist.Normal(0.0, 2.0))
    ppl.vmap(lambda row, y: sample("y", dist.Normal(row @ x + b, s), obs=y))(X, y)


@ppl.model
def drifting(y):
    """The site enters through the carry of a loop, and a multivariate child."""
    x = sample("x", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)))

    def step(level, y):
        level = 0.5 * level + x[0] - 1.0
        sample("y", dist.Normal(level, 1.0), obs=y)
        return level, None

    ppl.scan(step, 0.0, y)
    sample("w", dist.MultivariateNormal(X @ x, jnp.eye(3)), obs=y)


def _binomials():
    log_beta = lambda a, b: gammaln(a) + gammaln(b) - gammaln(a + b)  # noqa: E731  (numpyro's BetaBinomial is good to 1e-6)
    ways = gammaln(11.0) - gammaln(COUNTS + 1.0) - gammaln(11.0 - COUNTS)
    return nd.Gamma(2.0, 1.0).log_prob(1.5) + jnp.sum(ways + log_beta(1.5 + COUNTS, 12.0 - COUNTS) - log_beta(1.5, 2.0))


def _normals():
    cov = 0.49 * jnp.eye(3) + 9.0 * X @ X.T + 4.0
    return nd.HalfNormal(1.0).log_prob(0.7) + nd.MultivariateNormal(X @ jnp.array([1.0, 2.0]), cov).log_prob(A)


def _drifts():
    level, rows, means = jnp.zeros(2), [], []
    mean = 0.0
    for _ in range(3):
        level, mean = 0.5 * level + jnp.array([1.0, 0.0]), 0.5 * mean - 1.0
        rows.append(level), means.append(mean)
    design = jnp.concatenate([jnp.stack(rows), X])
    mean = jnp.append(jnp.array(means), jnp.zeros(3))
    return nd.MultivariateNormal(mean, design @ design.T + jnp.eye(6)).log_prob(jnp.append(A, A))


def _categories():
    y = jnp.array([0, 1, 1, 2])
    counts = jnp.array([1, 2, 1])
    arrangements = gammaln(5.0) - jnp.sum(gammaln(counts + 1.0))
    want = nd.DirichletMultinomial(jnp.array([1.0, 2.0, 3.0]), 4).log_prob(counts) - arrangements
    return once("x", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), dist.Categorical, y), want


def _gamma_gamma():
    grid = jnp.linspace(0.0, 60.0, 200001)[1:]
    each = nd.Gamma(3.0, 2.0).log_prob(grid) + nd.Gamma(2.0, 0.5 * grid).log_prob(A[:, None]).sum(0)
    return once("x", dist.Gamma(3.0, 2.0), lambda x: dist.Gamma(2.0, 0.5 * x), A), jnp.log(jnp.trapezoid(jnp.exp(each), grid))


def _cases():
    return {
        "beta, binomial, in lanes": (lanes(COUNTS), {"a": 1.5}, ("x",), _binomials()),
        "gamma, Poisson": (
            once("x", dist.Gamma(2.0, 3.0), lambda x: dist.Poisson(2.0 * x), COUNTS[:1]),
            {},
            ("x",),
            nd.GammaPoisson(2.0, 1.5).log_prob(3),
        ),
        "gamma, gamma": (_gamma_gamma()[0], {}, ("x",), _gamma_gamma()[1]),
        "Dirichlet, multinomial": (
            once("x", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), lambda x: dist.Multinomial(5, x), COUNTS[None]),
            {},
            ("x",),
            nd.DirichletMultinomial(jnp.array([1.0, 2.0, 3.0]), 5).log_prob(COUNTS),
        ),
        "Dirichlet, categorical": (_categories()[0], {}, ("x",), _categories()[1]),
        "linear regression": (regression(A), {"s": 0.7}, ("x", "b"), _normals()),
        "through a loop": (drifting(A), {}, ("x",), _drifts()),
    }


def test_integrals_are_exact():
    with jax.enable_x64(True):
        for name, (program, kept, removed, want) in _cases().items():
            density = jax.jit(lambda m, kept: m.log_density(kept), compiler_options=QUICKLY)
            np.testing.assert_allclose(density(program.marginal(*removed), kept), want, rtol=1e-6, err_msg=name)


def test_draws_of_what_was_integrated_out_have_the_moments_of_the_posterior():
    num, kept = 4000, {"s": 0.7}
    marginal = regression(A).marginal("x", "b")
    keys = jax.random.split(jax.random.key(0), num)
    draws = jax.jit(jax.vmap(lambda key: marginal.draw_removed(key, kept)), compiler_options=QUICKLY)(keys)
    design = jnp.c_[X, jnp.ones(3)]
    prior = jnp.diag(jnp.array([9.0, 9.0, 4.0]))
    cov = jnp.linalg.inv(jnp.linalg.inv(prior) + design.T @ design / 0.49)
    mean = cov @ (jnp.linalg.inv(prior) @ jnp.array([1.0, 2.0, 0.0]) + design.T @ A / 0.49)
    flat = jnp.c_[draws["x"], draws["b"]]
    sd = jnp.sqrt(jnp.diagonal(cov))
    assert jnp.all(jnp.abs(flat.mean(0) - mean) < 5.0 * sd / num**0.5)
    assert jnp.all(jnp.abs(jnp.cov(flat.T) - cov) < 5.0 * 2.0**0.5 * jnp.outer(sd, sd) / num**0.5)


@pytest.mark.parametrize(
    ("prior", "child", "sentence"),
    [
        (dist.Normal(0.0, 1.0), lambda x: dist.Normal(x**2, 1.0), "'y' \\(loc of Normal\\) is computed from it in a way"),
        (dist.Normal(0.0, 1.0), lambda x: dist.Normal(0.0, jnp.exp(x)), "'y' \\(scale of Normal\\)"),
        (dist.Normal(0.0, 1.0), lambda x: dist.StudentT(3.0, x, 1.0), "'y' \\(StudentT\\)"),
        (dist.Gamma(1.0, 1.0), lambda x: dist.Poisson(x + 1.0), "'y' \\(rate of Poisson\\)"),
        (dist.Gamma(1.0, 1.0), lambda x: dist.Gamma(x, 1.0), "'y' \\(concentration of Gamma\\)"),
        (dist.Beta(1.0, 1.0), lambda x: dist.Bernoulli(0.5 * x), "'y' \\(probs of BernoulliProbs\\)"),
        (dist.HalfNormal(1.0), lambda x: dist.Normal(0.0, x), "HalfNormal is not among the conjugate priors"),
    ],
)
def test_what_is_not_conjugate_is_refused(prior, child, sentence):
    with pytest.raises(ValueError, match=sentence):
        once("x", prior, child, jnp.ones(2, int)).marginal("x")


def test_sites_that_are_conjugate_only_one_by_one_are_not_removed_together():
    @ppl.model
    def bilinear():
        a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(a * b, 1.0), obs=1.0)

    want = nd.Normal(0.0, 1.0).log_prob(0.3) + nd.Normal(0.0, 1.09**0.5).log_prob(1.0)
    np.testing.assert_allclose(bilinear().marginal("a").log_density({"b": 0.3}), want, rtol=1e-5)
    with pytest.raises(ValueError, match="site 'a' cannot be integrated out exactly"):
        bilinear().marginal("a", "b")

    @ppl.model
    def mixture(y):
        mu = sample("mu", dist.Normal(0.0, 1.0).expand([2]))

        def point(y):
            z = sample("z", dist.Bernoulli(0.3))
            sample("y", dist.Normal(mu[z], 1.0), obs=y)

        ppl.vmap(point)(y)

    with pytest.raises(ValueError, match="sites 'mu' and 'z' cannot both be removed"):
        mixture(A).marginal("mu", "z")


def test_a_continuous_chain_is_not_summed():
    @ppl.model
    def walk(y):
        def step(x, y):
            x = sample("x", dist.Normal(x, 1.0))
            sample("y", dist.Normal(x, 1.0), obs=y)
            return x, None

        ppl.scan(step, 0.0, y)

    with pytest.raises(ValueError, match="the Kalman filter"):
        walk(A).marginal("x")
