"""Posteriors of diffusion priors, by twisted filters: against the exact law of the discretised program where all is Gaussian,
and against the posterior of a mixture; forecasts of a series against conditioning of its Gaussian process.

False-alarm rates: means over repeated runs within 5 standard errors.
"""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import inference as inf
from inference.exact import Affine, Gaussian, predict, update
from inference.smc.history import Last
from inference.smc.loop import begin, finish
from inference.steering.reverse_diffusion import Ancestral, At, Tweedie, reverse_diffusion
from inference.steering.twisted import by_conditioning, by_gradient, first_order, linear_gaussian, second_order, twisted
from tests.inference.diffusions import OPTIONS, assert_unbiased, denoiser_of, mixture

# -- Gaussian data: every step is affine, and the law of the program is known -------------------------------------------------

MEAN, SPREAD = np.array([1.0, -0.5]), np.array([[1.0, 0.6], [0.6, 0.8]])
LAW = Affine(jnp.array([[1.0, -0.5]]), jnp.array([[0.3]]))
Y = jnp.array([2.0])
FEW = np.array([6.0, 2.0, 0.7, 0.2])


def gaussian_denoiser(mean, covariance):
    mean, covariance = jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32)
    eye = jnp.eye(len(mean))
    return lambda x, sigma: mean + covariance @ jnp.linalg.solve(covariance + sigma**2 * eye, x - mean)


STEPS = {"ancestral": Ancestral(gaussian_denoiser(MEAN, SPREAD)), "tweedie": Tweedie(gaussian_denoiser(MEAN, SPREAD))}


def exact_program(step):
    """The posterior of x at the last level under the discretised program, and its log evidence."""
    belief = Gaussian(jnp.zeros(2), FEW[0] ** 2 * jnp.eye(2))
    for old, new in zip(FEW[:-1], FEW[1:], strict=True):
        at = At(jnp.float32(old), jnp.float32(new), Y, False)
        origin = step.moments(jnp.zeros(2), at)
        matrix = jax.jacobian(lambda x, at=at: step.moments(x, at).mean)(jnp.zeros(2))
        belief = predict(belief, Affine(matrix, origin.covariance, origin.mean))
    return update(belief, LAW, Y)


def integrals(step, method, particles=4, num=8_000):
    """Estimates of the integrals of 1, x, and x x'."""
    program = reverse_diffusion(step, FEW, 2, linear_gaussian(LAW), Y)
    path = method.way.of(program)

    @partial(jax.jit, compiler_options=OPTIONS)
    def all_of(path, stage, keys):
        def one(key):
            population = finish(stage, path, key, begin(stage, path, key, particles)).population
            x = population.particles.choices["x"]
            parts = jnp.concatenate([jnp.ones((particles, 1)), x, x[:, :1] * x], axis=1)
            return jnp.mean(jnp.exp(population.log_divided + population.log_weights)[:, None] * parts, axis=0)

        return jax.vmap(one)(keys)

    return np.asarray(all_of(path, method.stage, jax.random.split(jax.random.key(0), num)), float)


def wanted(step):
    belief, log_evidence = exact_program(step)
    m, c = np.asarray(belief.mean, float), np.asarray(belief.covariance, float)
    return np.exp(float(log_evidence)) * np.concatenate([[1.0], m, c[0] + m[0] * m])


def methods(step):
    rough, fine = first_order(step, linear_gaussian(LAW)), second_order(step, LAW)
    return {
        "second order, given the data": twisted(step, LAW),
        "second order, along the gradient": inf.particle_filter(proposal=by_gradient(step, fine), twist=fine),
        "first order, along the gradient": inf.particle_filter(proposal=by_gradient(step, rough), twist=rough),
        "no twist, given the data": inf.particle_filter(proposal=by_conditioning(step, LAW)),
    }


OFTEN = ("first order, along the gradient",)


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in methods(STEPS["tweedie"])]
)
def test_any_twist_and_any_proposal_give_the_law_of_the_program(name):
    assert_unbiased(integrals(STEPS["tweedie"], methods(STEPS["tweedie"])[name]), wanted(STEPS["tweedie"]))


@pytest.mark.slow
def test_the_program_that_takes_x0_for_known_is_another_one():
    step = STEPS["ancestral"]
    assert_unbiased(integrals(step, methods(step)["second order, given the data"]), wanted(step))
    assert np.abs(wanted(step) / wanted(STEPS["tweedie"]) - 1).max() > 0.1


@pytest.mark.slow
def test_a_likelihood_counted_twice_is_found(monkeypatch):
    reverse = importlib.import_module("inference.steering.reverse_diffusion")
    right = reverse.factor
    monkeypatch.setattr(reverse, "factor", lambda name, x: right(name, 2 * x))
    step = STEPS["tweedie"]
    with pytest.raises(AssertionError):
        assert_unbiased(integrals(step, methods(step)["second order, given the data"]), wanted(step))


@pytest.mark.slow
def test_second_order_twists_make_weights_even():
    """Where the data are Gaussian the conditioned step is the right one: nearly all particles count."""
    step = STEPS["tweedie"]
    levels = np.geomspace(20.0, 0.02, 20)
    program = reverse_diffusion(step, levels, 2, linear_gaussian(LAW), Y)
    posterior = inf.smc(program, twisted(step, LAW), key=jax.random.key(0), particles=200, history=Last(), progress=False)
    assert posterior.stages["ess"].min() > 0.95 * 200
    exact = update(Gaussian(jnp.asarray(MEAN), jnp.asarray(SPREAD)), LAW, Y)[1]
    assert abs(posterior.log_evidence - float(exact)) < 0.03
    assert posterior["x"].shape == (1, 200, 2)


# -- a mixture --------------------------------------------------------------------------------------------------------------

SHARES, CENTRES, WIDTH = np.array([0.3, 0.3, 0.4]), np.array([[-3.0, 0.0], [2.0, 2.0], [1.0, -3.0]]), 0.7


def mixture_posterior(matrix, noise, y):
    """Weights, means and covariance of the components given y, and log evidence."""
    prior = WIDTH**2 * np.eye(2)
    expected = matrix @ prior @ matrix.T + noise
    gain = prior @ matrix.T @ np.linalg.inv(expected)
    parts = SHARES * np.array([multivariate_normal(matrix @ c, expected).pdf(y) for c in CENTRES])
    means = CENTRES + (y - CENTRES @ matrix.T) @ gain.T
    return parts / parts.sum(), means, prior - gain @ matrix @ prior, np.log(parts.sum())


@pytest.mark.slow
def test_an_inverse_problem_with_a_mixture_for_a_prior():
    """Two of three modes explain the data: masses, means and covariance within five errors of that many particles."""
    matrix, noise, y = np.array([[1.0, 0.7]]), np.array([[0.25]]), np.array([0.5])
    weights, means, within, log_evidence = mixture_posterior(matrix, noise, y)
    step, law = Tweedie(denoiser_of(mixture(SHARES, CENTRES, [WIDTH] * 3))), Affine(jnp.asarray(matrix), jnp.asarray(noise))
    program = reverse_diffusion(step, np.geomspace(15.0, 0.03, 40), 2, linear_gaussian(law), jnp.asarray(y))
    posterior = inf.smc(program, twisted(step, law), key=jax.random.key(1), particles=2000, history=Last(), progress=False)
    x = posterior["x"][0]
    mean = weights @ means
    covariance = within + (weights[:, None] * (means - mean)).T @ (means - mean)
    error = np.sqrt(np.diag(covariance) / 1000)
    assert (np.abs(x.mean(axis=0) - mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.15 * np.diag(covariance).max())
    assert abs(posterior.log_evidence - log_evidence) < 5 * posterior.log_evidence_error + 0.03
    assert posterior.log_evidence_error < 0.1


# -- forecasting: the part of a series that is observed guides a diffusion of whole series ------------------------------------

TIME, SEEN = 16, 11


def autoregression(num, a=(1.2, -0.6)):
    """Stationary covariance of x_t = a1 x_{t-1} + a2 x_{t-2} + noise."""
    impulse = np.zeros(400)
    impulse[0], impulse[1] = 1.0, a[0]
    for t in range(2, 400):
        impulse[t] = a[0] * impulse[t - 1] + a[1] * impulse[t - 2]
    lags = np.array([impulse[: 400 - k] @ impulse[k:] for k in range(num)])
    return lags[np.abs(np.subtract.outer(np.arange(num), np.arange(num)))]


def crps(x, draws):
    """Mean continuous ranked probability score of draws (num, T) of x (T,)."""
    apart = np.abs(draws[:, None] - draws[None]).mean((0, 1))
    return float((np.abs(draws - x).mean(0) - 0.5 * apart).mean())


def crps_of_normal(x, mean, sd):
    z = (x - mean) / sd
    return float((sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))).mean())


def forecast(particles):
    """Draws of what is missing (num, missing), and its truth, exact mean and covariance."""
    covariance, noise = autoregression(TIME), 0.05
    series = np.random.default_rng(3).multivariate_normal(np.zeros(TIME), covariance)
    y = np.where(np.arange(TIME) < SEEN, series, np.nan)
    step = Tweedie(gaussian_denoiser(np.zeros(TIME), covariance))
    law = Affine(jnp.eye(TIME), noise**2 * jnp.eye(TIME))
    program = reverse_diffusion(step, np.geomspace(30.0, 0.02, 40), TIME, linear_gaussian(law), jnp.asarray(y))
    posterior = inf.smc(
        program, twisted(step, law), key=jax.random.key(0), particles=particles, history=Last(), progress=False
    )
    gain = np.linalg.solve(covariance[:SEEN, :SEEN] + noise**2 * np.eye(SEEN), covariance[:SEEN, SEEN:]).T
    mean = gain @ series[:SEEN]
    return posterior["x"][0, :, SEEN:], series[SEEN:], mean, covariance[SEEN:, SEEN:] - gain @ covariance[:SEEN, SEEN:]


@pytest.mark.slow
def test_a_series_forecasts_itself():
    """As conditioning does: means within five errors, and a score that is the exact one's to 5 %."""
    draws, truth, mean, covariance = forecast(300)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * sd / np.sqrt(300)).all()
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.25)
    assert abs(crps(truth, draws) / crps_of_normal(truth, mean, sd) - 1) < 0.05


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: reverse_diffusion(lambda x, s: x, FEW, 2), r"expected a step such as Tweedie\(denoiser\) or Anc"),
        (
            lambda: reverse_diffusion(STEPS["tweedie"], FEW[::-1], 2),
            r"noise levels must decrease and stay above 0, but they go f",
        ),
        (
            lambda: reverse_diffusion(STEPS["tweedie"], 1.0, 2),
            r"levels are at least two noise levels, got an array of shape \(\)",
        ),
        (
            lambda: reverse_diffusion(Tweedie(lambda x, s: x[:1]), FEW, 2),
            r"of shape \(2,\) the denoiser returned shape \(1,\), b",
        ),
        (
            lambda: linear_gaussian(Affine(jnp.eye(2), jnp.eye(2)))(jnp.zeros(2), jnp.zeros(3)),
            r"^linear_gaussian: y should have shape \(2,\), as its law has, got \(3,\)\.$",
        ),
    ],
)
def test_wrong_use_is_told(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
