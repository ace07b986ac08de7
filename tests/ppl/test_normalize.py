"""What importance sampling ends with, as a distribution: its laws with every random number enumerated, so to rounding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.vi import Enumerate, expectation
from ppl import Importance, dist, importance, normalize, sample
from ppl.importance import Picked
from tests.ppl.enumerated import EVERYTHING, QUICKLY, exactly

OUTCOMES = np.array(list(itertools.product((0, 1), repeat=2)))


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@ppl.model
def two_coins(t):
    a = sample("a", dist.Bernoulli(jax.nn.sigmoid(t)))
    b = sample("b", dist.Bernoulli(jax.nn.sigmoid(1.2 * a - t)))
    sample("y", dist.Normal(1.0 * a - 2.0 * b, 0.9))
    ppl.factor("odd", 0.4 * (a + b) % 2)


@ppl.model
def guide(t):
    b = sample("b", dist.Bernoulli(jax.nn.sigmoid(0.5 - t)))
    sample("a", dist.Bernoulli(jax.nn.sigmoid(t + 0.3 * b)))


def posterior(t):
    return two_coins(t) | {"y": 0.3}


def nested(t):
    return Importance(2, normalize(posterior(0.2), by=Importance(2, guide(t))))


FORMS = {
    "one draw": lambda t: Importance(1, guide(t)),
    "the prior": lambda t: Importance(2),
    "a guide": lambda t: Importance(3, guide(t)),
    "a function": lambda t: Importance(2, lambda data: guide(t * data["y"])),
    "a run of a run": nested,
    "a run of a run of a run": lambda t: Importance(1, normalize(posterior(t), by=nested(t))),
}


def choices_of(outcome):
    return {"a": outcome[0], "b": outcome[1]}


def is_it(choices, outcome):
    return 1.0 * ((choices["a"] == outcome[0]) & (choices["b"] == outcome[1]))


def law(run):
    """P(drawn = x), E[exp(-w) | x] P(x), and E[exp(density(x))], each (4,)."""

    def share(x, weighted):
        choices, log_r = ppl.draw(run)
        return is_it(choices, x) * jnp.where(weighted, jnp.exp(-log_r), 1.0)

    def density(x):
        return jnp.exp(run.log_density(choices_of(x)))

    both = exactly(share, np.tile(OUTCOMES, (2, 1)), np.repeat([False, True], 4))
    return both[:4], both[4:], exactly(density, OUTCOMES)


def gamma(t):
    return np.exp(jax.vmap(lambda x: posterior(t).log_density(choices_of(x)))(OUTCOMES))


ALWAYS = ("one draw", "the prior", "a guide")
CASES = [pytest.param(form, marks=[] if form in ALWAYS else [pytest.mark.slow]) for form in FORMS]


@pytest.mark.parametrize("form", CASES)
def test_laws(form):
    by = FORMS[form](0.4)
    share, reciprocal, density = law(normalize(posterior(0.7), by=by))
    np.testing.assert_allclose(reciprocal, 1.0, rtol=1e-9)
    np.testing.assert_allclose(density, share, rtol=1e-9)
    (evidence,) = exactly(lambda t: jnp.exp(by.log_evidence(posterior(t))), np.array([0.7]))
    np.testing.assert_allclose(evidence, gamma(0.7).sum(), rtol=1e-9)


@pytest.mark.slow
def test_more_draws_come_nearer_to_the_posterior():
    exact = gamma(0.7) / gamma(0.7).sum()
    off = [np.abs(law(normalize(posterior(0.7), by=Importance(num, guide(0.4))))[0] - exact).sum() for num in (1, 2, 4)]
    assert off[0] > 1.3 * off[1] > 1.69 * off[2] > 0


def test_a_run_that_does_not_hold_the_given_draw_is_found():
    """Planted: the density of given choices is weighed by fresh draws alone."""
    run = normalize(posterior(0.7), by=Importance(2, guide(0.4)))

    def wrong(x):
        log_evidence = importance.log_mean(importance._weighted(run.program, run.proposal, run.num)[2])
        return jnp.exp(run.program.log_density(choices_of(x)) - log_evidence)

    assert np.abs(exactly(wrong, OUTCOMES).sum() - 1) > 0.02


def test_a_proposals_density_in_place_of_the_runs_is_found(monkeypatch):
    """Planted: what was picked is said to have the density of the proposal."""
    drawn = Picked.drawn
    monkeypatch.setattr(Picked, "drawn", lambda self: (c := drawn(self)[0], self.proposal.log_density(c)))
    _, reciprocal, _ = law(normalize(posterior(0.7), by=Importance(3, guide(0.4))))
    assert np.abs(reciprocal - 1).max() > 0.2


def objective(guide):
    """Not a bound: which draw was picked matters, not the weights alone."""
    choices, log_r = ppl.draw(guide)
    return choices["a"] * 2.0 + jnp.sin(log_r) * choices["b"]


def by_hand(t):
    """E objective for two draws of `guide(t)`, summed over pairs, and over which is picked."""
    log_q = jax.vmap(lambda x: guide(t).log_density(choices_of(x)))(OUTCOMES)
    log_p = jax.vmap(lambda x: posterior(0.7).log_density(choices_of(x)))(OUTCOMES)
    first, second = (x.reshape(-1) for x in np.indices((4, 4)))
    log_w = (log_p - log_q)[jnp.array([first, second])]
    log_r = log_p[first] - (jax.nn.logsumexp(log_w, axis=0) - jnp.log(2.0))
    a, b = OUTCOMES[first].T  # pairs are alike in either order, so let the first be picked
    weight = 2 * jnp.exp(log_q[first] + log_q[second]) * jax.nn.softmax(log_w, axis=0)[0]
    return jnp.sum(weight * (2.0 * a + jnp.sin(log_r) * b))


def estimates(strategies, t, num):
    run = expectation(objective).using(strategies)

    def one(key, t):
        return run.estimate(key, normalize(posterior(0.7), by=Importance(2, guide(t))))

    keys = jax.random.split(jax.random.key(0), num)
    return jax.jit(jax.vmap(jax.value_and_grad(one, argnums=1), (0, None)), compiler_options=QUICKLY)(keys, t)


def test_gradients():
    """Exact when enumerated; by default, and with the picked one alone enumerated, within 4.5 standard errors."""
    value, slope = jax.jit(jax.value_and_grad(by_hand), compiler_options=QUICKLY)(0.4)
    found = estimates(EVERYTHING, 0.4, 1)
    np.testing.assert_allclose((found[0][0], found[1][0]), (value, slope), rtol=1e-9)
    spread = {}
    for name, strategies in {"score": {}, "index": {"index": Enumerate()}}.items():
        values, slopes = (np.asarray(x) for x in estimates(strategies, 0.4, 20_000))
        for xs, exact in ((values, value), (slopes, slope)):
            assert abs(xs.mean() - exact) < 4.5 * xs.std() / np.sqrt(len(xs))
        spread[name] = slopes.std()
    assert spread["index"] < spread["score"]
    assert abs(slope) > 0.05


@ppl.model
def impossible():
    a = sample("a", dist.Bernoulli(0.3))
    ppl.factor("alive", jnp.where(a == 1, 0.0, -jnp.inf))


def test_runs_whose_draws_are_all_impossible_count_as_none():
    run = normalize(impossible(), by=Importance(2))

    def reciprocal(a):
        choices, log_r = ppl.draw(run)
        return jnp.where(choices["a"] == a, jnp.exp(-log_r), 0.0)

    def density(a):
        return jnp.exp(run.log_density({"a": a}))

    given = np.array([0, 1])
    np.testing.assert_allclose(exactly(reciprocal, given), [0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(exactly(density, given), [0.0, 1 - 0.7**2], atol=1e-12)


def test_from_outside():
    run, key = normalize(posterior(0.7), by=Importance(3, guide(0.4))), jax.random.key(1)
    trace = jax.jit(run.simulate, compiler_options=QUICKLY)(key)
    assert set(trace.choices) == {"a", "b"} and trace.log_density.shape == ()
    density = jax.jit(lambda run: run.log_density(trace.choices, key=key), compiler_options=QUICKLY)
    assert np.isfinite(density(run))  # a run is a pytree
    exact = normalize(posterior(0.7), by=Importance(1, guide(0.4)))
    np.testing.assert_allclose(exact.log_density(trace.choices), guide(0.4).log_density(trace.choices))  # needs no key


@ppl.model
def other(name, d):
    sample(name, d)


@ppl.model
def real():
    sample("z", dist.Normal(0.0, 1.0))


WRONG = {
    "draws": (lambda: Importance(0), r"^Importance: the number of draws must be a whole number of at least 1, got 0\.$"),
    "proposal": (lambda: Importance(2, 3.0), "^Importance: the proposal must be a program, a Generative, or a .* got float"),
    "by": (lambda: normalize(posterior(0.7), by=3), "^normalize: `by` must be an algorithm such as .*, got int"),
    "model": (lambda: normalize(two_coins, by=Importance(2)), "^normalize: expected a program, got Model. Call the model"),
    "sites": (
        lambda: normalize(posterior(0.7), by=Importance(2, other("z", dist.Normal(0.0, 1.0)))),
        "^Importance: the proposal has the latent sites 'z', but those to be proposed are 'a' and 'b'. They must be the same",
    ),
    "sites of a run": (
        lambda: normalize(posterior(0.7), by=Importance(2, normalize(real(), by=Importance(2)))),
        "^Importance: the proposal has the latent sites 'z', but those to be proposed are 'a' and 'b'. They must be the same",
    ),
    "data": (
        lambda: normalize(posterior(0.7), by=Importance(2, posterior(0.7))),
        "^Importance: the proposal has data or factors at 'y' and 'odd', so its draws do not follow its density.",
    ),
    "shape": (
        lambda: normalize(real(), by=Importance(2, other("z", dist.Normal(jnp.zeros(2), 1.0)))),
        r"^Importance: site 'z' has shape \(\), but \(2,\) in the proposal; they must agree\.$",
    ),
    "support": (
        lambda: normalize(real(), by=Importance(2, other("z", dist.LogNormal(0.0, 1.0)))),
        "^Importance: site 'z' is real, but positive in the proposal, which never proposes what the site can be",
    ),
    "function": (
        lambda: normalize(real(), by=Importance(2, lambda data: 3)),
        "^Importance: the proposal's function must return a program or a Generative, but returned int",
    ),
    "key": (
        lambda: normalize(real(), by=Importance(2)).log_density({"z": 0.0}),
        "there is no key to draw it with: this density is an estimate",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_told(what):
    wrong, sentence = WRONG[what]
    with pytest.raises(ValueError, match=sentence):
        wrong()
