"""Discrete states summed out: a mixture of two normals, and two hidden Markov models.

Components are told apart by an order. An ordered prior is a flat one on ordered vectors, times a factor.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import ppl
from ppl import dist, sample

from .reference import Data, Reference

ordered, positive_ordered = dist.constraints.ordered_vector, dist.constraints.positive_ordered_vector


@ppl.model
def two_normals(n):
    mu = sample("mu", dist.ImproperUniform(ordered, (), (2,)))
    ppl.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu))
    sigma = sample("sigma", dist.HalfNormal(2.0).expand([2]))
    theta = sample("theta", dist.Beta(5.0, 5.0))
    label = dist.Categorical(jnp.array([theta, 1 - theta]))
    sample("y", dist.MixtureSameFamily(label, dist.Normal(mu, sigma)).expand([n]))


@ppl.model
def two_state_normal(y):
    theta1 = sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = sample("mu", dist.ImproperUniform(positive_ordered, (), (2,)))
    ppl.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu))
    ppl.factor("paths", all_paths(jnp.stack([theta1, theta2]), dist.Normal(mu, 1.0).log_prob(y[:, None])))


@ppl.model
def drive(u, v, alpha):
    """A player's inverse speed u and distance to the hoop v, when driving to it and when not."""
    theta1 = sample("theta1", dist.Dirichlet(alpha[0]))
    theta2 = sample("theta2", dist.Dirichlet(alpha[1]))
    phi = sample("phi", dist.ImproperUniform(positive_ordered, (), (2,)))
    rate = sample("lambda", dist.ImproperUniform(positive_ordered, (), (2,)))
    prior = dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    ppl.factor("rate_priors", prior.log_prob(phi) + prior.log_prob(rate))
    emission = dist.Exponential(phi).log_prob(u[:, None]) + dist.Exponential(rate).log_prob(v[:, None])
    ppl.factor("paths", all_paths(jnp.stack([theta1, theta2]), emission))


def all_paths(transition, emission):
    """Log of the summed probability of all paths through the states, every first state counting 1.

    transition: (states, states), rows sum to 1. emission: (times, states), log densities of the data in each state.
    """
    log_transition = jnp.log(transition)

    def forward(alpha, log_p):
        return logsumexp(alpha[:, None] + log_transition, axis=0) + log_p, None

    return logsumexp(jax.lax.scan(forward, emission[0], emission[1:])[0])


def low_dim_gauss_mix(d: Data):
    return two_normals(len(d["y"])) | {"y": d["y"]}


def hmm_example(d: Data):
    return two_state_normal(d["y"])


def hmm_drive_0(d: Data):
    return drive(d["u"], d["v"], d["alpha"])


REFERENCES = {
    "bball_drive_event_0-hmm_drive_0": Reference(hmm_drive_0),
    "hmm_example-hmm_example": Reference(hmm_example),
    "low_dim_gauss_mix-low_dim_gauss_mix": Reference(low_dim_gauss_mix, constant=2 * np.log(2.0)),
}
