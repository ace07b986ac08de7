"""A language model as a program: scores steer it as incremental weights or as twists, and the limit is the exact posterior.

The model is a Markov chain of 8 tokens of 6 kinds, so that all is known by forward and backward sums. A published scheme
weighs particles by the *whole* score of what they have said, again at every step; its limit is another law.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from ppl import dist, sample

LENGTH, KINDS, PARTICLES = 8, 6, 50_000
rng = np.random.default_rng(0)
NEXT = rng.dirichlet(np.full(KINDS, 0.5), size=KINDS + 1)  # rows: the token before, or none
SCORE = rng.uniform(0.02, 1.0, size=KINDS)


def next_token(tokens, t):
    """log probabilities (KINDS,) of token number `t` after `tokens` (LENGTH,): what a language model is."""
    before = jnp.where(t == 0, KINDS, tokens[jnp.maximum(t - 1, 0)])
    return jnp.log(jnp.asarray(NEXT))[before]


def score(tokens, t):
    """log of the score of tokens 0 to t: a process reward."""
    said = jnp.arange(LENGTH) <= t
    return jnp.sum(jnp.where(said, jnp.log(jnp.asarray(SCORE))[tokens], 0.0))


@ppl.model
def scored_at_once():
    """Every token is scored when it is said."""
    ppl.scan(_say(lambda tokens, t: jnp.log(jnp.asarray(SCORE))[tokens[t]]), jnp.zeros(LENGTH, int), jnp.arange(LENGTH))


@ppl.model
def scored_at_the_end():
    """The whole is scored when it is complete; until then scores are only hints."""
    ppl.scan(
        _say(lambda tokens, t: jnp.where(t == LENGTH - 1, score(tokens, t), 0.0)), jnp.zeros(LENGTH, int), jnp.arange(LENGTH)
    )


def _say(weight):
    def step(tokens, t):
        tokens = tokens.at[t].set(sample("token", dist.Categorical(logits=next_token(tokens, t))))
        ppl.factor("score", weight(tokens, t))
        return tokens, None

    return step


def exact():
    """log evidence, and the marginals (LENGTH, KINDS)."""
    forward, backward = [NEXT[KINDS] * SCORE], [np.ones(KINDS)]
    for _ in range(LENGTH - 1):
        forward.append((forward[-1] @ NEXT[:KINDS]) * SCORE)
        backward.append(NEXT[:KINDS] @ (SCORE * backward[-1]))
    both = np.array(forward) * np.array(backward[::-1])
    return np.log(forward[-1].sum()), both / both.sum(axis=1, keepdims=True)


def off(posterior) -> np.ndarray:
    """Total variation between the marginal of each token and the exact one (LENGTH,)."""
    tokens = posterior["token"][0]
    shares = np.stack([np.bincount(tokens[:, t], minlength=KINDS) / len(tokens) for t in range(LENGTH)])
    return 0.5 * np.abs(shares - exact()[1]).sum(axis=1)


PREFIX = inf.particle_filter(twist=lambda tokens, t, data: score(tokens, t - 1))
METHODS = {
    "incremental weights": (scored_at_once, inf.particle_filter()),
    "a twist that is taken back": (scored_at_the_end, PREFIX),
}


@pytest.mark.parametrize("name", METHODS)
def test_steering_is_exact(name):
    model, method = METHODS[name]
    posterior = inf.smc(model(), method, key=jax.random.key(0), particles=PARTICLES, progress=False)
    assert off(posterior).max() < 0.01
    assert abs(posterior.log_evidence - exact()[0]) < max(5 * posterior.log_evidence_error, 0.005)


def test_whole_scores_applied_again_and_again_would_be_seen():
    """Planted: at every step the score of all that was said, in full."""

    @ppl.model
    def again():
        ppl.scan(_say(score), jnp.zeros(LENGTH, int), jnp.arange(LENGTH))

    posterior = inf.smc(
        again(), inf.particle_filter(), key=jax.random.key(0), particles=PARTICLES, progress=False, check=False
    )
    assert off(posterior).max() > 0.05


def test_particle_gibbs_over_sentences():
    posterior = inf.mcmc(
        scored_at_the_end(), inf.ParticleGibbs(particles=30, method=PREFIX), key=jax.random.key(0), chains=4, draws=2000,
        warmup=50, progress=False, check=False,
    )  # fmt: skip
    tokens = posterior["token"].reshape(-1, LENGTH)
    shares = np.stack([np.bincount(tokens[:, t], minlength=KINDS) / len(tokens) for t in range(LENGTH)])
    assert 0.5 * np.abs(shares - exact()[1]).sum(axis=1).max() < 0.04
