"""Distribution Transformers against exact posteriors, for priors that are numbers and priors that are mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.distribution_transformer import Exercises, distribution_transformer
from surrogates.heads.mixture import Gaussians
from tests.surrogates.programs import scales, variance

KEY, NOISE = jax.random.key(0), 0.5


def normals(weights, means, sds):
    return Gaussians(dist.Categorical(weights), dist.MultivariateNormal(means[:, None], scale_tril=sds[:, None, None]))


@ppl.model
def bumps():
    weights = sample("weights", dist.Dirichlet(jnp.ones(2)))
    means = sample("means", dist.Normal(0.0, 1.0).expand([2]))
    return normals(weights, means, sample("sds", dist.LogNormal(-1.0, 0.3).expand([2])))


@ppl.model
def seen(prior):
    u = sample("u", prior)
    sample("z", dist.Normal(u[0], NOISE))


def exact(prior, z):
    """Conjugate: the posterior of u is a mixture too."""
    weights, means = prior.mixing_distribution.probs, prior.component_distribution.mean[:, 0]
    variances = prior.component_distribution.scale_tril[:, 0, 0] ** 2
    again = 1.0 / (1.0 / variances + 1.0 / NOISE**2)
    logits = jnp.log(weights) + dist.Normal(means, jnp.sqrt(variances + NOISE**2)).log_prob(z)
    return normals(jax.nn.softmax(logits), again * (means / variances + z / NOISE**2), jnp.sqrt(again))


def trained(model, priors, **more):
    settings = {"data": ("z",), "key": KEY, "steps": 1200, "batch": 64, "width": 24, "depth": 2, "heads": 2, "progress": False}
    return distribution_transformer(model, priors=priors, **(settings | more))


def gap(net, log_exact, num=3000):
    """The mean KL, and its standard error."""

    @jax.jit
    def run(net, keys):
        def one(key):
            case = net.cases.simulate(key).choices
            prior, z, position = case["prior"], case["data"]["z"], case["position"]
            return log_exact(prior, z, position) - net.mixture({"z": z}, prior).log_prob(position)

        return jax.vmap(one)(keys)

    found = np.asarray(run(net, jax.random.split(jax.random.key(3), num)))
    return found.mean(), found.std() / num**0.5


@pytest.fixture(scope="module")
def by_mixtures():
    return trained(seen, bumps(), components=2)


@pytest.mark.slow
def test_the_untrained_network_says_the_prior():
    net = trained(seen, bumps(), components=2, steps=1, batch=2, optimizer=optax.set_to_zero())
    prior = normals(jnp.array([0.3, 0.7]), jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.2]))
    u = jnp.linspace(-2.0, 3.0, 9)[:, None]
    np.testing.assert_allclose(net.mixture({"z": 0.3}, prior).log_prob(u), prior.log_prob(u), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_numbers_in_mixture_out():
    """The mean KL is below 0.03 nats; of one Normal, the best is 0.04 (the family's floor)."""
    net = trained(variance, scales(), components=3)

    def log_exact(prior, z, position):
        v = jnp.exp(position[0])
        return dist.InverseGamma(prior[0] + 0.5, prior[1] + 0.5 * z**2).log_prob(v) + position[0]

    mean, error = gap(net, log_exact)
    assert -4.0 * error < mean < 0.03 + 2.0 * error, (mean, error)


def test_a_mixture_in_a_mixture_out(by_mixtures):
    """The exact posterior has as many components: no floor. The prior itself is 0.4 nats off, and more."""
    mean, error = gap(by_mixtures, lambda prior, z, position: exact(prior, z).log_prob(position))
    assert -4.0 * error < mean < 0.05 + 2.0 * error, (mean, error)


@pytest.mark.slow
def test_a_posterior_is_the_next_prior(by_mixtures):
    """Two data, one after the other: near the exact posterior of both, and what importance makes of it is exact."""
    prior = normals(jnp.array([0.5, 0.5]), jnp.array([-0.5, 1.0]), jnp.array([0.4, 0.4]))
    once = by_mixtures.mixture({"z": 0.8}, prior)
    q = by_mixtures.given({"z": 0.2}, once)
    known = exact(exact(prior, 0.8), 0.2)
    draws = known.sample(jax.random.key(1), (2000,))
    assert abs((known.log_prob(draws) - q.law.law.log_prob(draws)).mean()) < 0.1
    other = q.given(seen(once) | {"z": 1.5}).law.law  # reads the new data, under the same prior
    np.testing.assert_array_equal(other.log_prob(draws), by_mixtures.mixture({"z": 1.5}, once).log_prob(draws))
    posterior = inf.importance(seen(once) | {"z": 0.2}, proposal=q, key=KEY, num=2000)
    assert abs(posterior["u"].mean() - known.mean[0]) < 0.1 and posterior.stages["pareto_k"][-1] < 0.7


def test_sentences(by_mixtures):
    with pytest.raises(ValueError, match="the program has no site 'y' to be data; it has u, z"):
        trained(seen, bumps(), components=2, data=("y",))
    with pytest.raises(ValueError, match="the priors have 2 components, not 5"):
        trained(seen, bumps())
    with pytest.raises(ValueError, match="the network reads z, but got data of no site"):
        by_mixtures.given({}, None)


def test_siblings_estimate_the_same_with_less_noise():
    """The mean of u z over exercises by shares is that of one draw, to 5 standard errors; its noise is smaller."""

    @ppl.model
    def wide():
        return sample("loc", dist.Normal(0.0, 0.1)), sample("scale", dist.LogNormal(0.0, 0.1))

    @ppl.model
    def number(prior):
        u = sample("u", dist.Normal(*prior))
        sample("z", dist.Normal(u, 1.0))

    def moments(siblings, num=20_000):
        cases = Exercises(number, wide(), ("z",), (), 0, 0.0, siblings)

        def one(key):
            case = cases.simulate(key).choices
            return jnp.sum(case["shares"] * case["positions"][:, 0]) * case["data"]["z"]

        found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), num)))
        return found.mean(), found.std() / num**0.5

    (one, error), (many, less) = moments(1), moments(16)
    assert abs(one - many) < 5.0 * (error**2 + less**2) ** 0.5 and less < error, (one, error, many, less)
