"""A Distribution Transformer as a filter: each posterior is carried a step on and is the next prior; against Kalman's filter.

    x[t] ~ Normal(A x[t-1], 0.5),   z[t] ~ Normal(x[t], 0.7) of the first half of the coordinates

in 1 to 4 dimensions, A a slow turn that shrinks by 0.95. The network does the update, x[t] given z[t]; the step in between is
linear, and exact. All is seen from the prior's mean, for where that is does not matter to such a model: so the network learns
what priors' covariances do. Which are there to learn? Those that filtering meets: after each round of training the network
filters new series, and its priors there are what the next round draws from. The first round's are those of a filter that
learns nothing. (Ross, Gordon and Bagnell, "A reduction of imitation learning to no-regret online learning", AISTATS 2011.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
import surrogates as sur
from benchmarks.dt_oracles import conditioned, gaussians
from ppl import dist, sample
from surrogates.distribution_transformer import DistributionTransformer, log_score
from surrogates.training import trained as climbed

DRIFT, NOISE, DEPTH, SERIES = 0.5, 0.7, 100, 500
# Steps whose priors are learned. The first differ most, from each other and from all others, and come once in a series.
KEPT = np.concatenate([np.repeat(np.arange(10), [8, 4, 2, 1, 1, 1, 1, 1, 1, 1]), np.arange(10, DEPTH, 9)])


def turning(dim: int):
    """A (dim, dim): a turn by 0.3 in each plane of neighbours, times 0.95."""
    turn = np.eye(dim)
    for i in range(dim - 1):
        plane = np.eye(dim)
        plane[i : i + 2, i : i + 2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
        turn = turn @ plane
    return jnp.asarray(0.95 * turn, jnp.float32)


def half(x):
    return x[: (len(x) + 1) // 2]


@ppl.model
def update(prior):
    x = sample("x", prior)
    sample("z", dist.Normal(half(x), NOISE).to_event(1))


@ppl.model
def met(trils):
    """One of the priors that filtering met, about zero."""
    i = sample("i", dist.DiscreteUniform(0, len(trils) - 1))
    return about_zero(trils[i])


def about_zero(tril):
    return gaussians(jnp.ones(1), jnp.zeros((1, len(tril))), tril[None])


def series(key, dim: int, length: int):
    """Data z (length, m), from the stationary law on."""
    key_begin, key_steps = jax.random.split(key)

    def step(x, key):
        key_x, key_z = jax.random.split(key)
        x = turning(dim) @ x + DRIFT * jax.random.normal(key_x, (dim,))
        return x, half(x) + NOISE * jax.random.normal(key_z, half(x).shape)

    begin = jnp.linalg.cholesky(stationary(dim)) @ jax.random.normal(key_begin, (dim,))
    return jax.lax.scan(step, begin, jax.random.split(key_steps, length))[1]


def stationary(dim: int):
    """The covariance of x[t] if nothing is known: A turns, so it is the same in all directions."""
    return DRIFT**2 / (1.0 - 0.95**2) * jnp.eye(dim)


def filtered(learn, z, dim: int):
    """Priors and posteriors of each step, leaves (T, ...): (mean, tril). `learn` (prior, z) -> posterior."""
    turn = turning(dim)

    def step(prior, z):
        law = learn(about_zero(prior[1]), z - half(prior[0])).component_distribution
        mean, tril = prior[0] + law.loc[0], law.scale_tril[0]
        with jax.default_matmul_precision("highest"):
            after = turn @ mean, jnp.linalg.cholesky(turn @ tril @ tril.T @ turn.T + DRIFT**2 * jnp.eye(dim))
        return after, (prior, (mean, tril))

    return jax.lax.scan(step, (jnp.zeros(dim), jnp.linalg.cholesky(stationary(dim))), z)[1]


def exact(prior, z):
    dim = prior.event_shape[0]
    return conditioned(prior, half(jnp.eye(dim)), jnp.full(len(z), NOISE), z)


def on_policy(dim: int, *, key, rounds: tuple[int, ...], **training: Any) -> sur.DistributionTransformer:
    """A network of width 32 and depth 2 that was trained for so many steps in each round; `training` as of `trained`."""
    keys = jax.random.split(key, len(rounds) + 1)
    pool = _pool(lambda prior, z: prior, keys[-1], dim)
    training = {"batch": 128, "progress": False} | training
    shape = {"components": 1, "hidden": 0.0, "width": 32, "depth": 2}
    net = sur.distribution_transformer(update, priors=met(pool), data=("z",), key=key, steps=rounds[0], **shape, **training)
    for key_round, steps in zip(keys, rounds[1:], strict=False):
        pool = _pool(net, jax.random.fold_in(key_round, 1), dim)
        cases = eqx.tree_at(lambda cases: cases.priors, net.cases, met(pool))
        law, fit = climbed(log_score, cases, net.net, key=key_round, steps=steps, **training)
        net = DistributionTransformer(law, cases, fit)
    return net


def _pool(learn, key, dim: int):
    """Cholesky factors of the priors that a filter meets, (SERIES * steps kept, dim, dim)."""

    @eqx.filter_jit
    def run(learn, keys):
        return jax.vmap(lambda key: filtered(_learner(learn), series(key, dim, DEPTH), dim)[0][1][KEPT])(keys)

    return jnp.reshape(run(learn, jax.random.split(key, SERIES)), (-1, dim, dim))


def _learner(learn):
    return (lambda prior, z: learn.net.law(prior, {"z": z})) if isinstance(learn, DistributionTransformer) else learn


def gaps(net: sur.DistributionTransformer, key, dim: int, num: int = 200) -> np.ndarray:
    """KL(Kalman || network) of the state at each step, of new series: (num, DEPTH)."""

    @jax.jit
    def run(net, keys):
        def one(key):
            z = series(key, dim, DEPTH)
            laws = (filtered(learn, z, dim)[1] for learn in (exact, _learner(net)))
            known, said = (dist.MultivariateNormal(mean, scale_tril=tril) for mean, tril in laws)
            return dist.kl_divergence(known, said)

        return jax.vmap(one)(keys)

    return np.asarray(run(net, jax.random.split(key, num)))
