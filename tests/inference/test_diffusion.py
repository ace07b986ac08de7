"""Diffusion models steered by exact weights, by correctors, and by data; all against quadrature or Gaussian algebra.

False-alarm rates: means over repeated runs within 5 standard errors (3 where said), some 40 comparisons.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
from inference.metrics import Dense
from inference.smc.move import Move
from inference.steering import correct
from inference.steering.correct import Correct
from inference.steering.denoise import Denoise, FirstOrder, SecondOrder
from inference.steering.diffusion import correcting, denoising
from inference.steering.noised import Density, Reward, Score, from_denoiser, preserving, sigma_of
from ppl import dist
from tests.inference.diffusions import (
    ANNEALED,
    EVEN,
    OTHER,
    UNEVEN,
    assert_unbiased,
    by_quadrature,
    denoiser_of,
    estimates,
    mixture,
)

REWARD = Reward(lambda x, sigma: -1.5 * jnp.abs(x - 0.5))
LAWS = {
    "annealing": ANNEALED**3,
    "guidance": EVEN**-1 * UNEVEN**2,
    "product": ANNEALED * OTHER,
    "reward": ANNEALED * REWARD ** (lambda sigma: 1 / (1 + sigma**2)),
    "annealed along the way": ANNEALED ** (lambda sigma: 1 + 2 / (1 + sigma)),
}
FEW = np.append(np.geomspace(6.0, 0.2, 6), 0.0)
MANY = np.append(np.geomspace(10.0, 0.01, 50), 0.0)


def test_what_the_anchors_say_of_the_laws_is_what_quadrature_says():
    log_z, left, *_ = by_quadrature(LAWS["annealing"])
    assert (round(log_z, 4), round(left, 4)) == (-3.1826, 0.7597)  # all mass below zero, both modes': the left one's is .7599
    np.testing.assert_allclose(by_quadrature(LAWS["guidance"])[1:3], [0.0130, 1.9562], atol=1e-4)


# -- exact weights ----------------------------------------------------------------------------------------------------------


def integrals(law, denoise, particles=4, num=8_000):
    """Estimates of the integrals of 1, x and x^2, and what they are: with few levels and few particles."""
    log_evidence, _, means = estimates(law, denoising(FEW, (), denoise=denoise), particles, num)
    log_z, _, mean, square = by_quadrature(law)
    return np.exp(log_evidence)[:, None] * np.insert(means[:, 1:], 0, 1.0, axis=1), np.exp(log_z) * np.array([1, mean, square])


slow_too = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name", ["annealing", "guidance", slow_too("reward"), slow_too("product"), slow_too("annealed along the way")]
)
def test_weights_are_exact_with_few_levels(name):
    assert_unbiased(*integrals(LAWS[name], Denoise()))


@pytest.mark.parametrize("denoise", [slow_too(Denoise(FirstOrder())), Denoise(SecondOrder(), noise=1.3)])
def test_any_proposal_and_any_noise_are_right(denoise):
    assert_unbiased(*integrals(LAWS["guidance"], denoise))


@pytest.mark.parametrize("bug", ["clamped", slow_too("centred"), "no normalised kernel"])
def test_weights_that_are_not_exact_are_found(bug, monkeypatch):
    from inference.steering import denoise

    class Wrong(Denoise):
        def __call__(self, key, population, memory, path):
            new = super().__call__(key, population, memory, path)
            ratio = new.population.log_weights - population.log_weights
            ratio = jnp.clip(ratio, -1, 1) if bug == "clamped" else ratio - jnp.mean(ratio)
            wrong = population.reweighted(ratio)._replace(particles=new.population.particles, level=new.population.level)
            return new._replace(population=wrong)

    if bug == "no normalised kernel":
        monkeypatch.setattr(denoise, "log_normal", lambda x, variance: -0.5 * jnp.sum(x**2) / variance)
    with pytest.raises(AssertionError):
        assert_unbiased(*integrals(LAWS["annealing"], Denoise() if bug == "no normalised kernel" else Wrong()))


def assert_on_target(name, method, particles, num):
    """Over `num` runs: mode mass within 0.03, the mean of evidence over truth one within 3 errors, which are small."""
    log_z, left, mean, _ = by_quadrature(LAWS[name])
    log_evidence, error, means = estimates(LAWS[name], method, particles, num)
    ratio = np.exp(log_evidence - log_z)
    assert abs(means[:, 0].mean() - left) < 0.03
    assert abs(means[:, 1].mean() - mean) < 0.1
    assert_unbiased(ratio, 1.0, errors=3)
    assert ratio.std() / np.sqrt(num) < 0.03
    assert 0.6 < np.std((log_evidence - log_z) / error) < 1.5


def test_annealing_of_few_runs():
    assert_on_target("annealing", denoising(MANY, ()), 500, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
def test_every_way_of_steering_over_fifty_runs(name):
    assert_on_target(name, denoising(MANY, ()), 2000, 50)


@pytest.mark.slow
def test_moves_at_every_level_make_estimates_better():
    move = Move(inf.RandomWalk(1.0, Dense.identity(1, jnp.float32)), 3)
    plain, moved = (estimates(LAWS["annealing"], denoising(MANY, (), move=m), 500, 50) for m in (None, move))
    log_z, left, *_ = by_quadrature(LAWS["annealing"])
    assert moved[0].std() < 0.85 * plain[0].std()
    assert_unbiased(np.exp(moved[0] - log_z), 1.0, errors=3)
    assert abs(moved[2][:, 0].mean() - left) < 0.01


PLANE = Density(mixture([0.3, 0.3, 0.4], [[-3.0, 0.0], [2.0, 2.0], [1.0, -3.0]], [0.5, 1.0, 0.7]))


def of_the_plane(law, reach=8.0, num=801):
    """log of the integral, and the mass left of -1."""
    line = jnp.linspace(-reach, reach, num)
    x = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = np.asarray(jax.jit(jax.vmap(lambda x: law.log_density(x, 0.0)))(x), np.float64)
    p, cell = np.exp(log_p), float(line[1] - line[0]) ** 2
    return np.log(p.sum() * cell), p[np.asarray(x)[:, 0] < -1].sum() / p.sum()


def assert_on_the_plane(particles, num):
    law = PLANE**2 * Reward(lambda x, sigma: x[1]) ** (lambda sigma: 0.5 / (1 + sigma))
    log_z, left = of_the_plane(law)
    method = denoising(MANY, (2,))
    log_evidence, _, mass = estimates(law, method, particles, num, f=lambda x: x[0] < -1)
    assert_unbiased(np.exp(log_evidence - log_z), 1.0, errors=3)
    assert abs(mass.mean() - left) < 0.03


@pytest.mark.slow
def test_a_mixture_on_the_plane_annealed_and_tilted():
    assert_on_the_plane(2000, 50)


def test_the_door():
    """A posterior as of any other method; moves by a kernel that learns from the population; two islands."""
    levels = MANY[::2]
    method = denoising(levels, (), move=Move(inf.RandomWalk(), 2))
    posterior = inf.smc(
        LAWS["annealing"], method, key=jax.random.key(0), particles=500, islands=2, progress=False, check=False
    )
    log_z, left, *_ = by_quadrature(LAWS["annealing"])
    x = posterior["x"]
    assert x.shape == (1, 1000)
    assert abs((x < 0).mean() - left) < 0.1
    assert abs(posterior.log_evidence - log_z) < 5 * posterior.log_evidence_error < 0.2
    np.testing.assert_allclose(posterior.stages["sigma"][0, 1:], levels[1:], rtol=1e-5)
    assert 0.1 < posterior.stages["acceptance_rate"][:, 1:].mean() < 0.6


@pytest.mark.slow
def test_double_precision():
    jax.config.update("jax_enable_x64", True)
    try:
        log_evidence, error, _ = estimates(LAWS["annealing"], denoising(MANY, ()), 500, 2)
        start = denoising(MANY, ()).way.of(LAWS["annealing"]).start(jax.random.key(0), 4)
    finally:
        jax.config.update("jax_enable_x64", False)
    assert start.log_weights.dtype == np.float64
    assert (np.abs(log_evidence + 3.1826) < 5 * error).all()


@pytest.mark.slow
def test_a_reward_may_look_ahead_and_levels_begin_where_one_likes():
    """From a given distribution, at little noise; the reward is of the denoised x."""
    law = ANNEALED * Reward(lambda x, sigma: 0.5 * denoiser_of(ANNEALED.fn)(x, sigma))
    method = denoising(np.array([1.0, 0.5, 0.2]), (), first=dist.Normal(0.0, 4.0))
    log_z, *_ = by_quadrature(law, sigma=0.2)
    assert_unbiased(np.exp(estimates(law, method, 50, 1000)[0] - log_z), 1.0)


# -- other units, and what networks give ------------------------------------------------------------------------------------


def test_models_that_keep_the_variance_are_the_same_in_other_units():
    def in_their_units(x, s):
        a = jnp.sqrt(1 - s**2)
        return ANNEALED.log_density(x / a, s / a) - jnp.log(a)

    x, s = jnp.float32(0.7), jnp.float32(0.6)
    known, guessed = Density(in_their_units), Score(jax.grad(in_their_units))
    sigma = sigma_of(s)
    np.testing.assert_allclose(preserving(known).log_density(x, sigma), ANNEALED.log_density(x, sigma), rtol=1e-5)
    np.testing.assert_allclose(preserving(guessed).score(x, sigma), ANNEALED.score(x, sigma), rtol=1e-5)
    denoised = from_denoiser(denoiser_of(ANNEALED.fn))
    np.testing.assert_allclose(denoised.score(x, sigma), ANNEALED.score(x, sigma), rtol=1e-4)


def test_the_score_of_a_denoiser_is_at_the_state_that_it_was_given():
    """The published sampler takes, in its second-order branch, the state of the level before (anchors D6)."""
    score = from_denoiser(lambda x, sigma: 0.25 * x)
    np.testing.assert_allclose(score.score(jnp.array([2.0, -1.0]), 0.5), -0.75 * np.array([2.0, -1.0]) / 0.25, rtol=1e-6)


# -- correctors ---------------------------------------------------------------------------------------------------------------


def after_one_step(law, sigma, new, x):
    """Log weights after a step, from equal ones, of particles at x."""
    path = correcting(np.array([sigma, new]), ()).way.of(law)
    population = path.start(jax.random.key(0), len(x))
    at_x = population._replace(
        particles=population.particles._replace(position=jnp.asarray(x)[:, None]), log_weights=jnp.zeros(len(x))
    )
    return np.asarray(Correct()(jax.random.key(1), at_x, (), path).population.log_weights)


def published():
    """Name to: law, and the rate of the log weight that its authors give, from the scores."""

    def score(law):
        return lambda x: np.asarray(jax.vmap(lambda x: law.score(x, 1.5))(jnp.asarray(x)), np.float64)

    s1, s2, r1 = score(EVEN), score(UNEVEN), score(REWARD)
    return {
        "annealing": (EVEN**3, lambda x: 3.0 * s1(x) ** 2),
        "guidance": (EVEN**-3 * UNEVEN**4, lambda x: 6.0 * (s1(x) - s2(x)) ** 2),
        "product": (EVEN * UNEVEN, lambda x: s1(x) * s2(x)),
        "reward": (EVEN * REWARD**2, lambda x: 0.5 * s1(x) * 2 * r1(x)),
    }


X = np.array([-12.0, -3.0, -0.5, 0.1, 2.0, 14.0])


@pytest.mark.parametrize("name", ["annealing", "guidance", "product", "reward"])
def test_weights_of_correctors_are_the_formula_itself(name):
    """Not centred, clamped or floored: increments of 90, of one sign, stay as they are (anchors D6)."""
    law, rate = published()[name]
    found = after_one_step(law, 1.5, 1.0, X)
    np.testing.assert_allclose(found, rate(X) * (1.5**2 - 1.0), rtol=2e-4, atol=1e-4)
    assert np.abs(found).max() > (2.0 if name != "guidance" else 0.1)


@pytest.mark.parametrize("wrong", [lambda w: jnp.clip(w, -2, 2), lambda w: w - jnp.mean(w)], ids=["clamped", "centred"])
def test_stabilised_weights_are_found(wrong, monkeypatch):
    right = correct.Population.reweighted
    monkeypatch.setattr(correct.Population, "reweighted", lambda self, w, level=None: right(self, wrong(w), level))
    law, rate = published()["annealing"]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(after_one_step(law, 1.5, 1.0, X), rate(X) * (1.5**2 - 1.0), rtol=2e-4)


@pytest.mark.slow
def test_correctors_go_to_the_truth_with_the_number_of_levels():
    """Guidance, where their weights are even: with four times the levels a mode's mass is off by less than half."""
    law, (log_z, left, *_) = LAWS["guidance"], by_quadrature(LAWS["guidance"])
    off = []
    for num in (25, 100):
        log_evidence, _, means = estimates(law, correcting(np.geomspace(10.0, 0.02, num), ()), 1000, 10)
        off.append(abs(means[:, 0].mean() - left))
        assert abs(log_evidence.mean() - log_z) < 0.1
    assert off[1] < 0.5 * off[0] and off[1] < 0.02


@pytest.mark.slow
def test_scores_alone_are_enough():
    law = Score(lambda x, sigma: EVEN.score(x, sigma)) ** -1 * from_denoiser(denoiser_of(UNEVEN.fn)) ** 2
    method = correcting(np.geomspace(10.0, 0.02, 60), ())
    posterior = inf.smc(law, method, key=jax.random.key(0), particles=1000, progress=False, check=False)
    assert posterior["x"].shape == (1, 1000)
    assert abs(posterior["x"].mean() - by_quadrature(LAWS["guidance"])[2]) < 0.3


# -- wrong use ----------------------------------------------------------------------------------------------------------------


def run(law, method):
    return inf.smc(law, method, key=jax.random.key(0), particles=4, progress=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: run(ANNEALED, denoising(MANY[::-1], ())),
            r"^steering: noise levels must decrease, to at least 0, but they are",
        ),
        (
            lambda: run(ANNEALED, denoising(3.0, ())),
            r"^steering: levels are at least two noise levels in a row, got .* shape \(\)",
        ),
        (lambda: run(ANNEALED, denoising(MANY, 2)), r"^steering: shape must be a tuple, such as \(\) or \(2,\), got 2\.$"),
        (
            lambda: run(lambda x: x, denoising(MANY, ())),
            r"^steering: expected a law at every noise level, .*, got function\.$",
        ),
        (lambda: run(Density(lambda x, s: x), denoising(MANY, (2,))), r"^Density: for x of shape \(2,\) .* shape \(2,\), but"),
        (
            lambda: run(Score(lambda x, s: x.sum()), correcting(MANY[:-1], (2,))),
            r"^Score: for x of shape \(2,\) .* shape \(\), b",
        ),
        (
            lambda: run(Score(lambda x, s: x), denoising(MANY, ())),
            r"^steering: of a Score no density is known, .*correcting\(",
        ),
        (lambda: run(EVEN**-2 * UNEVEN, denoising(MANY, ())), r"^steering: the exponents of the laws sum to -1 at some level"),
        (lambda: run(LAWS["annealed along the way"], correcting(MANY, ())), r"the exponent of a law must be a number"),
        (lambda: Density(3.0), r"^Density: expected a function of \(x, sigma\), got float\.$"),
        (lambda: EVEN * 2.0, r"^steering: a law is multiplied by another one, not by float"),
        (lambda: Denoise(None), r"^Denoise: expected a proposal such as SecondOrder\(\) or FirstOrder\(\), got NoneType\.$"),
        (lambda: Denoise(FirstOrder), r"got the class FirstOrder\.$"),
        (lambda: Denoise(noise=0.0), r"^Denoise: noise must be above 0, got 0\.0\.$"),
        (lambda: Correct(noise=-1.0), r"^Correct: noise must be above 0, got -1\.0\.$"),
        (lambda: run(EVEN, correcting(MANY, (), correct=Denoise())), r"^Denoise: CorrectedPath has no density at every"),
        (lambda: run(EVEN, denoising(MANY, (), denoise=Correct())), r"^Correct: DenoisingPath is not for correctors"),
    ],
)
def test_wrong_use_is_told(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
