"""Marginals by estimates: their laws with every random number enumerated, closed forms of Gaussian ones, bounds and gradients
by guides that are marginals, and pseudo-marginal MCMC on one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.vi import expectation
from ppl import Importance, dist, importance, normalize, random_weight, sample
from ppl.random_weight import Marginal, Normaliser
from tests.ppl.enumerated import EVERYTHING, QUICKLY, exactly

SIDES = np.array([0, 1])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@ppl.model
def hidden(t):
    u = sample("u", dist.Bernoulli(jax.nn.sigmoid(t)))
    group = sample("pair", pair(u, t))
    sample("x", dist.Bernoulli(jax.nn.sigmoid(t + u - 1.5 * group)))


@ppl.model
def pair(u, t):
    w = sample("w", dist.Bernoulli(0.3 + 0.4 * u))
    return w * t


@ppl.model
def back(t, x):
    sample("u", dist.Bernoulli(jax.nn.sigmoid(t - x)))
    sample("pair", back_pair(t))


@ppl.model
def back_pair(t):
    sample("w", dist.Bernoulli(jax.nn.sigmoid(t)))


@ppl.model
def wider(t):
    v = sample("v", dist.Bernoulli(jax.nn.sigmoid(t)))
    sample("u", dist.Bernoulli(0.2 + 0.5 * v))
    sample("pair", back_pair(t - v))


def through_a_run(t):
    return Importance(1, lambda kept: normalize(hidden(t) | kept, by=Importance(2, back(t, kept["x"]))))


# r is itself a marginal, of a program with one more site, by a proposal of its own
FORMS = {
    "by one draw": lambda t: Importance(1),
    "by two": lambda t: Importance(2),
    "given what is kept": lambda t: Importance(2, lambda kept: back(t, kept["x"])),
    "by a run": through_a_run,
    "by a marginal": lambda t: Importance(2, wider(t).marginal("v", by=Importance(1))),
}


def table(t):
    """P(u, w, x), (2, 2, 2)."""
    grid = jnp.array(list(itertools.product((0, 1), repeat=3)))
    log_p = jax.jit(jax.vmap(lambda c: hidden(t).log_density({"u": c[0], "pair": {"w": c[1]}, "x": c[2]})))(grid)
    return np.exp(np.asarray(log_p)).reshape(2, 2, 2)


def without_u_and_w(by):
    return hidden(0.6).marginal("u", "pair.w", by=by)


def law(marginal):
    """E[exp(density(x))] and E[exp(-w) | x] P(drawn = x), for both x."""

    def density(x):
        return jnp.exp(marginal.log_density({"x": x}))

    def reciprocal(x):
        choices, log_q = ppl.draw(marginal)
        return jnp.where(choices["x"] == x, jnp.exp(-log_q), 0.0)

    return exactly(density, SIDES), exactly(reciprocal, SIDES)


@pytest.mark.parametrize("form", FORMS)
def test_laws(form, x64):
    density, reciprocal = law(without_u_and_w(FORMS[form](-0.3)))
    np.testing.assert_allclose(density, table(0.6).sum((0, 1)), rtol=1e-9)
    np.testing.assert_allclose(reciprocal, 1.0, rtol=1e-9)


def test_several_sites_and_whole_groups(x64):
    by = Importance(2)

    def density(w, x):
        return jnp.exp(hidden(0.6).marginal("u", by=by).log_density({"x": x, "pair": {"w": w}}))

    w, x = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    np.testing.assert_allclose(exactly(density, w, x), table(0.6).sum(0).reshape(4), rtol=1e-9)


def test_data_are_part_of_the_density(x64):
    marginal = (hidden(0.6) | {"x": 1}).marginal("pair", by=Importance(2))
    found = exactly(lambda u: jnp.exp(marginal.log_density({"u": u})), SIDES)
    np.testing.assert_allclose(found, table(0.6)[:, :, 1].sum(1), rtol=1e-9)


def test_a_fresh_draw_in_place_of_the_programs_own_is_found(monkeypatch, x64):
    """Planted: what was dropped is drawn again, and the density of the drawn x estimated as that of any x."""

    def drawn(self):
        kept, _ = self._split(ppl.draw(self.program)[0])
        return kept, self.density(kept)

    monkeypatch.setattr(Marginal, "drawn", drawn)
    _, reciprocal = law(without_u_and_w(Importance(1)))
    assert np.abs(reciprocal - 1).max() > 0.02


def test_a_run_that_forgets_what_it_holds_is_found(monkeypatch, x64):
    """Planted: all draws of the run that estimates the reciprocal are fresh."""

    def forgetful(self, choices):
        weights = importance._weighted(self.program, self.proposal, self.num)[2]
        return self.program.log_density(choices) - importance.log_mean(weights)

    monkeypatch.setattr(importance.Picked, "density", forgetful)
    density, reciprocal = law(without_u_and_w(Importance(2)))
    np.testing.assert_allclose(density, table(0.6).sum((0, 1)), rtol=1e-9)  # which needs no such run
    assert np.abs(reciprocal - 1).max() > 0.01


# -- Gaussian: y = z + noise ------------------------------------------------------------------------------------------------


@ppl.model
def shifted(t):
    z = sample("z", dist.Normal(t, 1.0))
    sample("y", dist.Normal(z, 1.0))


@ppl.model
def backwards(t, y):
    sample("z", dist.Normal((t + y) / 2, jnp.sqrt(0.5)))


@ppl.model
def standard():
    sample("y", dist.Normal(0.0, 1.0))


def test_by_the_posterior_itself_the_density_is_exact(x64):
    """Whatever was drawn, and nested once more."""
    exact = Importance(2, lambda kept: backwards(0.4, kept["y"]))
    again = Importance(2, lambda kept: normalize(shifted(0.4) | kept, by=exact))

    def both(key):
        marginal = again.marginal(shifted(0.4), "z")
        return marginal.simulate(key), marginal.log_density({"y": 2.0}, key=key)

    trace, density = jax.jit(both, compiler_options=QUICKLY)(jax.random.key(0))
    normal = dist.Normal(0.4, jnp.sqrt(2.0))
    np.testing.assert_allclose(trace.log_density, normal.log_prob(trace["y"]), rtol=1e-9)
    np.testing.assert_allclose(density, normal.log_prob(2.0), rtol=1e-9)


@expectation
def elbo(guide):
    choices, log_q = ppl.draw(guide)
    return standard().log_density(choices) - log_q


def slopes(by, num, ts):
    """Values and slopes of the bound, (num, len(ts)), with one key for all `ts`."""

    def one(t, key):
        return elbo.estimate(key, shifted(t).marginal("z", by=by(t)))

    both = jax.vmap(jax.vmap(jax.value_and_grad(one), (0, None)), (None, 0))
    found = jax.jit(both, compiler_options=QUICKLY)(jnp.array(ts), jax.random.split(jax.random.key(0), num))
    return tuple(np.asarray(x) for x in found)


def test_hierarchical_bounds_and_their_gradients(x64):
    """By one draw from the prior: log q(y | z) is -log(2 pi e)/2 in the mean, so the bound is -t^2/2 - 1/2. By more it lies
    between that and the exact one, -t^2/2 - 1 + log(2)/2 + 1/2, as does no fewer. Within 4.5 standard errors."""
    means = []
    for num in (1, 4):
        values, gradients = slopes(lambda t, num=num: Importance(num), 20_000, [0.7])
        means.append((values.mean(), values.std() / np.sqrt(len(values))))
        assert abs(gradients.mean() + 0.7) < 4.5 * gradients.std() / np.sqrt(len(values))  # shifts leave the gap as it is
    assert abs(means[0][0] - (-(0.7**2) / 2 - 0.5)) < 4.5 * means[0][1]
    assert means[0][0] + 0.05 < means[1][0] < -(0.7**2) / 2 - 0.5 + 0.5 * np.log(2) + 4.5 * means[1][1]


def test_gradients_of_one_play_are_those_of_its_arithmetic(x64):
    """All sites are reparameterised: differences with the same random numbers are exact up to rounding; the proposal's too."""

    def by(t):
        return Importance(3, lambda kept: backwards(1.5 * t, kept["y"]))

    h = 1e-5
    values, found = slopes(by, 4, [0.7 - h, 0.7, 0.7 + h])
    np.testing.assert_allclose(found[:, 1], (values[:, 2] - values[:, 0]) / (2 * h), rtol=1e-6, atol=1e-6)
    assert np.abs(found).min() > 1e-3


@ppl.model
def target():
    sample("x", dist.Bernoulli(0.8))


@expectation
def discrete_elbo(guide):
    choices, log_q = ppl.draw(guide)
    return target().log_density(choices) - log_q


def bound(t):
    """By two draws of the prior, one the program's own: E over u, w, x and fresh u', w' of log p(x) / mean q(x | .)."""
    grid = jnp.array(list(itertools.product((0, 1), repeat=3)))
    p = jnp.exp(jax.vmap(lambda c: hidden(t).log_density({"u": c[0], "pair": {"w": c[1]}, "x": c[2]}))(grid)).reshape(4, 2)
    prior = p.sum(1)
    given = p / prior[:, None]  # q(x | u, w)
    mean = (given[:, None] + given[None]) / 2
    return jnp.sum(p[:, None] * prior[None, :, None] * (jnp.log(jnp.array([0.2, 0.8])) - jnp.log(mean)))


def test_gradients_through_discrete_sites(x64):
    """Exact when enumerated; with scores, the default, within 4.5 standard errors."""

    def one(strategies):
        run = discrete_elbo.using(strategies)
        return jax.value_and_grad(lambda t, key: run.estimate(key, hidden(t).marginal("u", "pair", by=Importance(2))))

    value, slope = jax.jit(jax.value_and_grad(bound), compiler_options=QUICKLY)(0.6)
    found = jax.jit(one(EVERYTHING), compiler_options=QUICKLY)(0.6, jax.random.key(0))
    np.testing.assert_allclose(found, (value, slope), rtol=1e-9)
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = np.asarray(jax.jit(jax.vmap(one({}), (None, 0)), compiler_options=QUICKLY)(0.6, keys)[1])
    assert abs(drawn.mean() - slope) < 4.5 * drawn.std() / np.sqrt(len(keys))
    assert abs(slope) > 4.5 * drawn.std() / np.sqrt(len(keys))


# -- pseudo-marginal MCMC ---------------------------------------------------------------------------------------------------

Y = np.array([0.3, 1.9, -0.4])
VARIANCE = 1.0 / (1.0 / 4.0 + len(Y) / 1.36)


@ppl.model
def effects(mu):
    effect = sample("effect", dist.Normal(mu, 1.0).expand([len(Y)]))
    sample("y", dist.Normal(effect, 0.6))


def key_of(u):
    """Two normals as a random key."""
    return jax.random.wrap_key_data(jax.lax.bitcast_convert_type(u.astype(jnp.float32), jnp.uint32))


@ppl.model
def estimated():
    mu = sample("mu", dist.Normal(0.0, 2.0))
    u = sample("u", dist.Normal(0.0, 1.0).expand([2]))
    ppl.factor("y", effects(mu).marginal("effect", by=Importance(5)).log_density({"y": Y}, key=key_of(u)))


def test_pseudo_marginal_chains_have_the_exact_posterior():
    """mu's posterior is Normal(2.2 V, V): mean and standard deviation within 4.5 standard errors."""
    kernel = inf.pseudo_marginal(inf.RandomWalk(), "u")
    posterior = inf.mcmc(estimated(), kernel, key=jax.random.key(0), chains=8, draws=3000, progress=False)
    mu = np.asarray(posterior["mu"], np.float64)
    z = (mu - VARIANCE * Y.sum() / 1.36) / np.sqrt(VARIANCE)
    means, squares = z.mean(1), (z**2).mean(1)  # chains are independent: their spread is the error
    assert abs(means.mean()) < 5.5 * means.std(ddof=1) / np.sqrt(8)
    assert abs(squares.mean() - 1) < 5.5 * squares.std(ddof=1) / np.sqrt(8)
    assert means.std(ddof=1) < 0.1


# -- wrong use --------------------------------------------------------------------------------------------------------------


class Own(Normaliser):
    """An algorithm of a user's, which defines `normalize` alone."""

    def normalize(self, program):
        return Importance(1).normalize(program)


def test_an_algorithm_of_ones_own(x64):
    marginal = without_u_and_w(Own())
    density = exactly(lambda x: jnp.exp(marginal.log_density({"x": x})), SIDES)
    np.testing.assert_allclose(density, table(0.6).sum((0, 1)), rtol=1e-9)


KEY = jax.random.key(0)
WRONG = {
    "address": (
        lambda: hidden(0.6).marginal("uu", by=Importance(2)),
        "^marginal: the program has no latent site 'uu'. Did you mean 'u'",
    ),
    "missing": (
        lambda: hidden(0.6).marginal("pair", by=Importance(2)).log_density({"x": 1}, key=KEY),
        "^marginal: 'u' has no value, but the marginal is that of 'u' and 'x', and of nothing else",
    ),
    "extra": (
        lambda: without_u_and_w(Importance(2)).log_density({"x": 1, "u": 0}, key=KEY),
        "^marginal: 'u' was given one, but the marginal is that of 'x', and of nothing else",
    ),
    "data": (
        lambda: (hidden(0.6) | {"x": 1}).marginal("u", by=Importance(2)).simulate(KEY),
        r"^marginal: the program has data or factors at 'x', so the marginal has a density, but draws do not follow it",
    ),
    "key": (
        lambda: without_u_and_w(Importance(2)).log_density({"x": 1}),
        "there is no key to draw it with: this density is an estimate",
    ),
    "own key": (random_weight.own_key, r"^an estimate needs random numbers, and there are none: give log_density\(choices"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_told(what):
    wrong, sentence = WRONG[what]
    with pytest.raises(ValueError, match=sentence):
        wrong()
