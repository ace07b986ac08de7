"""Distribution Transformers whose prior is a mixture of Normals, against the exact posterior, which is one too.

x ~ a mixture of five Normals in 1 to 8 dimensions, z ~ Normal(x, 1). Priors are drawn as in the paper's appendix C.1:
weights Dirichlet(1), means Normal(0, 1), precisions Wishart(d + 1, 1) + 0.1. One network answers for all priors: so the prior
of a program can be changed without training again. *Changed* priors, in two dimensions: two independent coordinates, strongly
correlated ones (-0.95, where run-time priors that are products must fail), and two far peaks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
import surrogates as sur
from benchmarks.dt_oracles import conditioned, gaussians, kl_by_draws, mean_and_error
from ppl import dist, sample

COMPONENTS, NOISE = 5, 1.0


@ppl.model
def mixtures(dim):
    weights = sample("weights", dist.Dirichlet(jnp.ones(COMPONENTS)))
    means = sample("means", dist.Normal(0.0, 1.0).expand([COMPONENTS, dim]).to_event(2))
    factors = sample("factors", dist.Normal(0.0, 1.0).expand([COMPONENTS, dim + 1, dim]).to_event(3))
    precisions = jnp.swapaxes(factors, -1, -2) @ factors + 0.1 * jnp.eye(dim)
    return gaussians(weights, means, jnp.linalg.cholesky(jnp.linalg.inv(precisions)))


@ppl.model
def seen(prior):
    x = sample("x", prior)
    sample("z", dist.Normal(x, NOISE).to_event(1))


def trained(dim: int, *, key, steps: int, **settings: Any) -> sur.DistributionTransformer:
    """A network of width 64 and depth 2."""
    settings = {"batch": 64, "width": 64, "depth": 2, "progress": False} | settings
    return sur.distribution_transformer(
        seen, priors=mixtures(dim), data=("z",), components=COMPONENTS, hidden=0.1, key=key, steps=steps, **settings
    )


def exact(prior, z):
    """The posterior of `seen(prior) | {"z": z}`."""
    dim = len(z)
    return conditioned(prior, jnp.eye(dim), jnp.full(dim, NOISE), z)


def gaps(net: sur.DistributionTransformer, key, num: int, draws: int = 200) -> np.ndarray:
    """KL(exact || .) of the network, of the prior, and of one Normal with the exact moments; `num` cases, (num, 3)."""

    @jax.jit
    def run(net, keys):
        def one(key):
            key_case, key_draws = jax.random.split(key)
            case = net.cases.simulate(key_case).choices
            prior, z = case["prior"], case["data"]["z"]
            known = exact(prior, z)
            laws = [net.net.law(prior, {"z": z}), prior, single(known)]
            return jnp.stack([kl_by_draws(key_draws, known, law, draws) for law in laws])

        return jax.lax.map(one, keys, batch_size=100)

    return np.asarray(run(net, jax.random.split(key, num)))


def single(law):
    """The Normal with a mixture's mean and covariance: the best there is, in this divergence."""
    weights, parts = law.mixing_distribution.probs, law.component_distribution
    mean = weights @ parts.loc
    away = parts.loc - mean
    covs = parts.scale_tril @ jnp.swapaxes(parts.scale_tril, -1, -2) + away[:, :, None] * away[:, None, :]
    return dist.MultivariateNormal(mean, jnp.tensordot(weights, covs, 1))


def priors() -> dict[str, Any]:
    """Priors in two dimensions, by name; each is of as many components, some of them alike."""
    even = jnp.full(COMPONENTS, 1.0 / COMPONENTS)
    nowhere, one = jnp.zeros((COMPONENTS, 2)), jnp.ones((COMPONENTS, 1, 1))
    spread = jnp.linspace(-0.2, 0.2, COMPONENTS)[:, None] * jnp.ones(2)
    correlated = jnp.linalg.cholesky(jnp.array([[1.0, -0.95], [-0.95, 1.0]]))
    peaks = jnp.where(jnp.arange(COMPONENTS)[:, None] % 2, 1.5, -1.5) * jnp.ones(2)
    return {
        "independent": gaussians(even, nowhere + spread, 0.8 * one * jnp.eye(2)),
        "correlated, -0.95": gaussians(even, nowhere, one * correlated),
        "two far peaks": gaussians(even, peaks, 0.3 * one * jnp.eye(2)),
    }


def changed(net: sur.DistributionTransformer, prior, key, num: int = 300) -> tuple[float, float, float]:
    """For one prior, data drawn from it: the mean KL of the network, its standard error; and, for the first data set, how many
    standard deviations of the posterior the mean is off after importance sampling."""

    @jax.jit
    def run(net, prior, keys):
        def one(key):
            key_case, key_draws = jax.random.split(key)
            z = seen(prior).simulate(key_case).choices["z"]
            known = exact(prior, z)
            return kl_by_draws(key_draws, known, net.net.law(prior, {"z": z}), 200), z

        return jax.vmap(one)(keys)

    kl, z = run(net, prior, jax.random.split(key, num))
    data = {"z": z[0]}
    posterior = inf.importance(seen(prior) | data, proposal=net.given(data, prior), key=key, num=20_000)
    known = single(exact(prior, z[0]))
    off = np.abs(np.asarray(posterior["x"]).reshape(-1, 2).mean(0) - known.loc) / jnp.sqrt(jnp.diag(known.covariance_matrix))
    return *mean_and_error(kl), float(off.max())
