"""Pseudo-marginal: the exact posterior of a random-effects model, from estimates of its likelihood; and a refreshed estimate,
the classic mistake, is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import inference as inf
import ppl
from inference.mcmc import pseudo_marginal
from ppl import dist

# mu ~ Normal(0, 2); effects b[i] ~ Normal(mu, 1); y[i] ~ Normal(b[i], 0.6). Integrated: y[i] ~ Normal(mu, sqrt(1.36)).
Y = np.array([0.3, 1.9, -0.4])
VARIANCE = 1.0 / (1.0 / 4.0 + len(Y) / 1.36)
MEAN = VARIANCE * Y.sum() / 1.36
NUM, STEPS = 20_000, 12
ALPHA = 1e-5  # four p-values a kernel


@ppl.model
def effects(terms):
    """The likelihood of each y is estimated by the mean over `terms` draws of its effect from their law."""
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))
    u = ppl.sample("u", dist.Normal(0.0, 1.0).expand([len(Y), terms]).to_event(2))
    log_terms = dist.Normal(mu + u, 0.6).log_prob(jnp.asarray(Y)[:, None])
    ppl.factor("y", jnp.sum(jax.nn.logsumexp(log_terms, axis=1) - jnp.log(terms)))


def exact(num, terms, key):
    """Draws from the extended law: mu from the posterior, and u from its law given mu: a mixture, over the terms of each y, of
    laws in which that term has the effect's own posterior and the others are normal. Terms are alike, so take the first."""
    rng = np.random.default_rng(key)
    mu = rng.normal(MEAN, np.sqrt(VARIANCE), size=num)
    u = rng.normal(size=(num, len(Y), terms))
    # given mu, the effect less its mean is Normal(w (y - mu), (1 - w)), w = 1 / 1.36
    weight = 1.0 / 1.36
    u[:, :, 0] = weight * (Y - mu[:, None]) + np.sqrt(1.0 - weight) * rng.normal(size=(num, len(Y)))
    return jnp.asarray(np.column_stack([mu, u.reshape(num, -1)]))


def surprise(kernel):
    """The smallest p-value of the hypothesis that exact draws stay exact: of mu, its mean and variance, and of the noise."""
    target = ppl.Target(effects(2))

    def chain(position, key):
        def move(state, key):
            return kernel.step(key, state, target)[0], None

        return jax.lax.scan(move, kernel.init(key, target, position), jax.random.split(key, STEPS))[0].position

    starts = exact(NUM, 2, 0)
    quickly = {"xla_backend_optimization_level": 0}
    move = jax.jit(jax.vmap(chain), compiler_options=quickly)
    ends = move(starts.astype(float), jax.random.split(jax.random.key(1), NUM))
    mu = np.asarray(ends[:, 0], np.float64)
    noise = np.asarray(ends[:, 1:], np.float64).sum(1)
    assert np.mean(starts[:, 0] != ends[:, 0]) > 0.5
    z = (mu - MEAN) / np.sqrt(VARIANCE)
    found = [
        stats.kstest(z, "norm").pvalue,
        2 * stats.norm.sf(abs(z.mean()) * np.sqrt(NUM)),
        2 * stats.norm.sf(abs(np.mean(z**2) - 1) * np.sqrt(NUM / 2)),
        stats.ks_2samp(noise, np.asarray(exact(NUM, 2, 1)[:, 1:], np.float64).sum(1)).pvalue,
    ]
    return min(found)


IDENTITY = inf.metrics.Diagonal(jnp.ones(1))
FORMS = {
    "random walk": lambda: inf.pseudo_marginal(inf.RandomWalk(1.5, IDENTITY), "u"),
    "correlated": lambda: inf.pseudo_marginal(inf.RandomWalk(1.5, IDENTITY), "u", correlation=0.8),
    "mala": lambda: inf.pseudo_marginal(inf.mala(1.0, IDENTITY), ["u"], correlation=0.5),
}


@pytest.mark.parametrize("form", FORMS)
def test_exact_draws_stay_exact(form):
    assert surprise(FORMS[form]()) > ALPHA


def refreshed(step):
    """The bug: the estimate of where the chain is, made anew in every step."""

    def wrong(self, key, state, target):
        parameters, noise = self._apart(target, state.position)
        position = noise.put(jax.random.normal(jax.random.fold_in(key, 7), (noise.dim,)))
        return step(self, key, state._replace(inner=pseudo_marginal.at(target, position)), target)

    return wrong


BUGS = {
    "estimate refreshed": lambda patch: patch.setattr(
        pseudo_marginal.PseudoMarginal, "step", refreshed(pseudo_marginal.PseudoMarginal.step)
    ),
    "law of the noise not divided out": lambda patch: patch.setattr(pseudo_marginal, "log_normal", lambda u: jnp.zeros(())),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(monkeypatch, bug):
    BUGS[bug](monkeypatch)
    assert surprise(FORMS["random walk"]()) < 1e-8


def test_the_front_door():
    """After a warm-up the mean and variance are the posterior's, within 4.5 Monte Carlo errors."""
    terms, kernel = 4, inf.pseudo_marginal(inf.RandomWalk(), "u", correlation=0.5)
    posterior = inf.mcmc(
        effects(terms), kernel, key=jax.random.key(2), draws=4000, progress=False, check=False, placement=inf.Vectorized()
    )
    mu = np.asarray(posterior["mu"])
    for values, truth in ((mu, MEAN), ((mu - MEAN) ** 2, VARIANCE)):
        size = float(array_stats.ess(values, chain_axis=0, draw_axis=1))
        assert size > 200 and abs(values.mean() - truth) < 4.5 * values.std() / np.sqrt(size)
    assert 0.06 < posterior.stats["acceptance_rate"].mean() < 0.2
    assert posterior["u"].shape == (4, 4000, 3, terms)


def test_other_kernels_may_move_the_chain_too():
    kernel = inf.cycle(FORMS["mala"](), inf.RandomWalk(0.3, inf.metrics.Diagonal(jnp.ones(7))))
    target = ppl.Target(effects(2))

    def chain(key):
        def move(state, key):
            state, info = kernel.step(key, state, target)
            return state, (info.lp, target.log_density(state.position))

        return jax.lax.scan(move, kernel.init(key, target, jnp.zeros(7)), jax.random.split(key, 20))[1]

    claimed, true = jax.jit(chain, compiler_options={"xla_backend_optimization_level": 0})(jax.random.key(0))
    np.testing.assert_allclose(claimed, true, rtol=1e-4)
    assert len(np.unique(true)) > 5


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: inf.pseudo_marginal(inf.NUTS(), "u"),
            r"^pseudo_marginal: the kernel must evaluate the density once in a step",
        ),
        (lambda: inf.pseudo_marginal(inf.HMC(3), "u"), r"got HMC\.$"),
        (lambda: inf.pseudo_marginal(inf.RandomWalk(), "u", correlation=1.0), r"correlation must lie in \[0, 1\), got 1.0\.$"),
        (
            lambda: inf.mcmc(effects(2), inf.pseudo_marginal(inf.RandomWalk(), "v"), key=jax.random.key(0)),
            r"^pseudo_marginal: the program has no latent site 'v'; it has mu, u\.$",
        ),
        (
            lambda: inf.mcmc(effects(2), inf.pseudo_marginal(inf.RandomWalk(), ["u", "mu"]), key=jax.random.key(0)),
            r"^pseudo_marginal: all latent sites are noise",
        ),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
