"""The library of objectives: values and gradients against sums over all outcomes, quadrature and closed forms.

On a model of three outcomes every site is enumerated, so that an objective of K draws is its exact mean, and is compared to
1e-9 with a sum over K-tuples that is written without the library; then it is sampled, and must agree to four standard errors.
False-alarm rate of the sampled laws: some 200 margins of four standard errors, 1%, with fixed keys.
"""

import importlib
import itertools
import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import inference.vi as vi
import ppl
from inference.smc.particle_filter import particle_filter
from inference.vi import Enumerate, expectation
from inference.vi.objectives.watch import drew
from ppl import dist, sample
from ppl.importance import Importance
from ppl.log_sums import log_mean

NUM = 20_000
QUICKLY = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(5)


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def estimated(objective, *args, num: int = NUM, which: tuple[int, ...] = (0, 1)):
    """Values (num,), and gradients (num, numbers) by the arguments `which`, of arguments that are arrays; see `build`."""
    one = jax.value_and_grad(lambda *args: objective(jax.random.wrap_key_data(args[-1]), *args[:-1]), argnums=which)
    many = jax.jit(jax.vmap(one, (*(None for _ in args), 0)), compiler_options=QUICKLY)
    values, slopes = many(*args, jax.random.key_data(jax.random.split(KEY, num)))
    return np.asarray(values), np.concatenate([np.reshape(x, (num, -1)) for x in jax.tree.leaves(slopes)], 1)


def surprise(draws, exact) -> float:
    """The largest deviation of means (num, ...) from what they should be, in standard errors."""
    draws, exact = np.asarray(draws), np.asarray(exact)
    error = draws.std(0) / np.sqrt(len(draws)) + 1e-9
    return float(np.max(np.abs(draws.mean(0) - exact) / error))


def exactly(fn, *args, which: tuple[int, ...] = (0, 1)):
    """The value of an exact mean, and its gradient, flat."""
    value, slopes = jax.jit(jax.value_and_grad(fn, argnums=which), compiler_options=QUICKLY)(*args)
    return np.asarray(value), np.concatenate([np.reshape(x, -1) for x in jax.tree.leaves(slopes)])


# -- three outcomes --------------------------------------------------------------------------------------------------------

LEVELS = np.array([-1.0, 0.3, 1.2])
Y = 0.8
THETA, PHI = np.array([0.2, -0.3, 0.1]), np.array([0.4, -0.5, 0.0])


@ppl.model
def three(theta):
    z = sample("z", dist.Categorical(logits=theta))
    sample("y", dist.Normal(jnp.asarray(LEVELS)[z], 1.0))


@ppl.model
def any_of_three(phi):
    sample("z", dist.Categorical(logits=phi))


def log_p(theta):
    return jax.nn.log_softmax(theta) + norm.logpdf(Y, LEVELS, 1.0)


def log_q(phi):
    return jax.nn.log_softmax(phi)


def stop(x):
    return lax.stop_gradient(x)


def over(num: int, q, fn):
    """Sum over all `num`-tuples of outcomes, weighted by q, of `fn` of the tuple (num,)."""
    tuples = jnp.asarray(list(itertools.product(range(3), repeat=num)))
    return jnp.sum(jax.vmap(lambda zs: jnp.exp(jnp.sum(q[zs])) * fn(zs))(tuples))


def exact_elbo(theta, phi):
    return jnp.sum(jnp.exp(log_q(phi)) * (log_p(theta) - log_q(phi)))


def exact_iwelbo(num):
    return lambda theta, phi: over(num, log_q(phi), lambda zs: logsumexp((log_p(theta) - log_q(phi))[zs]) - math.log(num))


def exact_renyi(alpha, num):
    def mean(theta, phi):
        log_w = (1 - alpha) * (log_p(theta) - log_q(phi))
        return over(num, log_q(phi), lambda zs: logsumexp(log_w[zs]) - math.log(num)) / (1 - alpha)

    return mean


def exact_forward_kl(theta, phi, num=2, proposal=None):
    r = stop(log_q(phi) if proposal is None else proposal)
    log_w, log_ratio = stop(log_p(theta)) - r, stop(log_p(theta)) - log_q(phi)
    return over(num, r, lambda zs: logsumexp(log_w[zs]) - math.log(num) - jnp.sum(jax.nn.softmax(log_w[zs]) * log_ratio[zs]))


def exact_symmetric_kl(theta, phi):
    log_w = log_p(theta) - log_q(phi)
    return over(2, log_q(phi), lambda zs: jnp.mean(log_w[zs]) - jnp.sum(jax.nn.softmax(log_w[zs]) * log_w[zs]))


def exact_q_wake(theta, phi):
    log_w = stop(log_p(theta) - log_q(phi))
    return over(2, stop(log_q(phi)), lambda zs: jnp.sum(jax.nn.softmax(log_w[zs]) * log_q(phi)[zs]))


def exact_p_wake(theta, phi):
    return exact_iwelbo(2)(theta, stop(phi))


def exact_both(theta, phi):
    q_wake = exact_q_wake(theta, phi)
    return exact_p_wake(theta, phi) + q_wake - stop(q_wake)


def chi_squared(log_u):
    return jnp.expm1(log_u) ** 2


def exact_chi_squared(theta, phi):
    return -jnp.sum(jnp.exp(log_q(phi)) * jnp.expm1(log_p(theta) - log_q(phi)) ** 2)


class Case(NamedTuple):
    """An objective of (model, guide), and its exact mean as a function of (theta, phi)."""

    objective: Any
    mean: Any


@expectation
def from_elsewhere(model, guide):
    return vi.forward_kl(2).fn(model, guide, any_of_three(jnp.array([0.0, 0.3, -0.1])))


CASES = {
    "elbo": Case(vi.elbo, exact_elbo),
    "stl": Case(vi.stl, exact_elbo),
    "iwelbo": Case(vi.iwelbo(2), exact_iwelbo(2)),
    "vimco": Case(vi.vimco(3), exact_iwelbo(3)),
    "renyi": Case(vi.renyi(0.4, 2), exact_renyi(0.4, 2)),
    "renyi, negative": Case(vi.renyi(-1.5, 2), exact_renyi(-1.5, 2)),
    "forward kl": Case(vi.forward_kl(2), exact_forward_kl),
    "forward kl from elsewhere": Case(
        from_elsewhere, lambda t, p: exact_forward_kl(t, p, proposal=log_q(jnp.array([0.0, 0.3, -0.1])))
    ),
    "symmetric kl": Case(vi.symmetric_kl(2), exact_symmetric_kl),
    "f": Case(vi.f_divergence(chi_squared), exact_chi_squared),
    "wake": Case(vi.wake, lambda theta, phi: jnp.sum(stop(jnp.exp(log_q(phi))) * log_p(theta))),
    "p wake": Case(vi.p_wake(2), exact_p_wake),
    "q wake": Case(vi.q_wake(2), exact_q_wake),
    "reweighted wake-sleep": Case(vi.reweighted_wake_sleep(2), exact_both),
}


def on_three(objective):
    return lambda key, theta, phi: objective.estimate(key, three(theta) | {"y": Y}, any_of_three(phi))


def distance(case: Case) -> float:
    """How far the enumerated objective is from its exact mean, value and gradient."""
    values, slopes = estimated(on_three(case.objective.using({"z": Enumerate()})), THETA, PHI, num=1)
    value, slope = exactly(case.mean, THETA, PHI)
    return max(abs(float(values[0] - value)), float(np.abs(slopes[0] - slope).max()))


def sampled_surprise(case: Case) -> float:
    values, slopes = estimated(on_three(case.objective), THETA, PHI)
    value, slope = exactly(case.mean, THETA, PHI)
    return max(surprise(values, value), surprise(slopes, slope))


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_the_exact_one(name):
    assert distance(CASES[name]) < 1e-9


DAILY = ("vimco",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in DAILY else [pytest.mark.slow]) for name in CASES])
def test_so_it_is_when_sampled(name):
    assert sampled_surprise(CASES[name]) < 4.0


def test_bounds_rise():
    log_evidence = logsumexp(log_p(THETA))
    objectives = (vi.elbo, vi.iwelbo(2), vi.iwelbo(3))
    values = [estimated(on_three(x.using({"z": Enumerate()})), THETA, PHI, num=1)[0][0] for x in objectives]
    assert (np.diff([*values, log_evidence]) > 0.01).all()


def test_vimco_has_less_variance():
    vimco, iwelbo = (estimated(on_three(x), THETA, PHI, num=4000)[1].var(0)[3:] for x in (vi.vimco(5), vi.iwelbo(5)))
    assert (vimco < 0.2 * iwelbo).all()


@pytest.mark.slow
def test_a_scored_part_is_given_no_second_baseline():
    """Where samples are averaged the others' mean is a baseline for what has none; on top of VIMCO's it would be harm."""

    def variance(samples):
        def vimco(key, theta, phi):
            return vi.vimco(3).estimate(key, three(theta) | {"y": Y - 6.0}, any_of_three(phi), samples=samples)

        return estimated(vimco, THETA, PHI, num=4000)[1].var(0)[3:]

    np.testing.assert_allclose(3 * variance(3), variance(1), rtol=0.25)


# -- a Gaussian posterior --------------------------------------------------------------------------------------------------

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
WIDE = np.array([0.3, -0.4])  # a guide wider than the posterior
NOISE = 0.5


@ppl.model
def normal(theta):
    z = sample("z", dist.Normal(0.0, jnp.exp(theta)))
    sample("y", dist.Normal(z, NOISE))


@ppl.model
def normal_guide(phi):
    sample("z", dist.Normal(phi[0], jnp.exp(phi[1])))


def posterior(theta, y=Y):
    """Its mean and log scale, and the log evidence."""
    prior, noise = jnp.exp(2 * theta), NOISE**2
    return jnp.array([y * prior / (prior + noise), 0.5 * jnp.log(prior * noise / (prior + noise))]), norm.logpdf(
        y, 0.0, jnp.sqrt(prior + noise)
    )


def on_normal(objective, *rest):
    return lambda key, theta, phi: objective.estimate(key, normal(theta) | {"y": Y}, normal_guide(phi), *rest)


def log_weight(theta, phi, z):
    return norm.logpdf(z, 0.0, jnp.exp(theta)) + norm.logpdf(Y, z, NOISE) - norm.logpdf(z, phi[0], jnp.exp(phi[1]))


def quadrature(fn, num=1):
    """E fn(log weights (num,)), of draws that follow the guide's parameters."""

    def mean(theta, phi):
        log_w = log_weight(theta, phi, phi[0] + jnp.exp(phi[1]) * NODES)
        grids = jnp.meshgrid(*[log_w] * num, indexing="ij")
        weights = math.prod(np.meshgrid(*[WEIGHTS] * num, indexing="ij")[i] for i in range(num))
        return jnp.sum(weights * fn(jnp.stack(grids)))

    return mean


def log_mean_of_two(log_w):
    return logsumexp(log_w, axis=0) - math.log(2)


def hellinger(log_u):
    return jnp.expm1(log_u / 2) ** 2


LOG_EVIDENCE = -1.1  # near the truth; f_divergence takes what it is given

NORMAL_CASES = {
    "iwelbo": (vi.iwelbo(2), (), quadrature(log_mean_of_two, 2)),
    "dreg": (vi.dreg(2), (), quadrature(log_mean_of_two, 2)),
    "symmetric kl": (
        vi.symmetric_kl(2),
        (),
        quadrature(lambda w: jnp.mean(w, 0) - jnp.sum(jax.nn.softmax(w, 0) * w, 0), 2),
    ),
    "hellinger": (
        vi.f_divergence(hellinger),
        (LOG_EVIDENCE,),
        quadrature(lambda w: -hellinger(w[0] - LOG_EVIDENCE)),
    ),
    "kl, forward": (
        vi.f_divergence(lambda log_u: log_u * jnp.exp(log_u)),
        (LOG_EVIDENCE,),
        quadrature(lambda w: -(w[0] - LOG_EVIDENCE) * jnp.exp(w[0] - LOG_EVIDENCE)),
    ),
}


def normal_surprise(objective, rest, mean) -> float:
    values, slopes = estimated(on_normal(objective, *rest), 0.1, WIDE)
    value, slope = exactly(mean, 0.1, WIDE)
    return max(surprise(values, value), surprise(slopes, slope))


PLAIN = ("dreg", "hellinger")


@pytest.mark.parametrize("name", [pytest.param(x, marks=[] if x in PLAIN else [pytest.mark.slow]) for x in NORMAL_CASES])
def test_gradients_along_draws(name):
    assert normal_surprise(*NORMAL_CASES[name]) < 4.0


def test_divergences_are_numbers_by_quadrature():
    """With the evidence given, an f-divergence is that of the normalised posterior."""
    phi, log_evidence = posterior(0.1)
    z = np.linspace(-6.0, 6.0, 4001)
    p, q = np.exp(norm.logpdf(z, phi[0], jnp.exp(phi[1]))), np.exp(norm.logpdf(z, WIDE[0], np.exp(WIDE[1])))
    exact = -np.trapezoid((np.sqrt(p) - np.sqrt(q)) ** 2, z)
    values, _ = estimated(on_normal(vi.f_divergence(hellinger), log_evidence), 0.1, WIDE)
    assert surprise(values, exact) < 4.0
    values, _ = estimated(on_normal(vi.forward_kl(1000)), 0.1, WIDE, num=200)
    exact = -np.trapezoid(p * np.log(p / q), z)
    np.testing.assert_allclose(values.mean(), exact, atol=0.005)  # its bias is of the order 1/1000
    values, _ = estimated(on_normal(vi.symmetric_kl(1000)), 0.1, WIDE, num=200)
    np.testing.assert_allclose(values.mean(), -np.trapezoid((p - q) * np.log(p / q), z), atol=0.005)


BOUNDS = (vi.elbo, vi.stl, vi.iwelbo(3), vi.vimco(3), vi.dreg(3), vi.renyi(0.5, 3), vi.renyi(-1.0, 3), vi.p_wake(3))
BOUNDS += (vi.reweighted_wake_sleep(3),)
DIVERGENCES = (vi.forward_kl(3), vi.symmetric_kl(3))


def test_at_the_posterior_there_is_no_variance():
    def all_of(key, theta, phi):
        return jnp.stack([on_normal(objective)(key, theta, phi) for objective in BOUNDS + DIVERGENCES])

    phi, log_evidence = posterior(0.1)
    values = jax.jit(jax.vmap(all_of, (0, None, None)), compiler_options=QUICKLY)(jax.random.split(KEY, 50), 0.1, phi)
    np.testing.assert_allclose(values[:, : len(BOUNDS)], log_evidence, atol=1e-9)
    np.testing.assert_allclose(values[:, len(BOUNDS) :], 0.0, atol=1e-9)
    divergence = estimated(on_normal(vi.f_divergence(hellinger), log_evidence), 0.1, phi, num=50)[0]
    np.testing.assert_allclose(divergence, 0.0, atol=1e-9)


def gradient_spread(objective) -> float:
    """Of the gradient by the guide, at the posterior."""
    return float(estimated(on_normal(objective), 0.1, posterior(0.1)[0], num=50)[1][:, 1:].std(0).max())


def test_sticking_the_landing():
    assert gradient_spread(vi.stl) < 1e-9
    assert gradient_spread(vi.dreg(3)) < 1e-9
    assert gradient_spread(vi.elbo) > 0.1


@pytest.mark.slow
def test_dreg_has_less_variance():
    dreg, iwelbo = (estimated(on_normal(x), 0.1, WIDE, num=2000)[1].var(0)[1:] for x in (vi.dreg(10), vi.iwelbo(10)))
    assert (dreg < 0.1 * iwelbo).all()


# -- learning --------------------------------------------------------------------------------------------------------------


def climbed(objective, numbers, *, steps: int, rate: float = 0.05, samples: int = 10):
    """What Adam makes of `objective(key, numbers)`, averaged over the last half."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.adam(schedule)

    def step(carry, key):
        numbers, state = carry
        slope = jax.grad(lambda x: -jnp.mean(jax.vmap(lambda k: objective(k, x))(jax.random.split(key, samples))))(numbers)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(numbers, updates), state), None

    (numbers, _), _ = jax.jit(
        lambda x: lax.scan(step, (x, optimizer.init(x)), jax.random.split(KEY, steps)), compiler_options=QUICKLY
    )(numbers)
    return numbers


def recognise(phi, data):
    return normal_guide(jnp.array([phi[0] * data["y"] + phi[1], phi[2]]))


def test_sleep_is_the_mean_under_the_model():
    def mean(theta, phi):
        square = (1 - phi[0]) ** 2 * jnp.exp(2 * theta) + phi[0] ** 2 * NOISE**2 + phi[1] ** 2
        return -phi[2] - 0.5 * math.log(2 * math.pi) - 0.5 * square * jnp.exp(-2 * phi[2])

    def sleeping(key, theta, phi):
        return vi.sleep.estimate(key, normal(theta) | {"y": Y}, jax.tree_util.Partial(recognise, phi))

    phi = np.array([0.4, 0.1, -0.3])
    values, slopes = estimated(sleeping, 0.1, phi)
    value, slope = exactly(lambda theta, phi: mean(stop(theta), phi), 0.1, phi)
    assert surprise(values, value) < 4.0
    assert surprise(slopes, slope) < 4.0
    assert (slopes[:, 0] == 0.0).all()  # the model is left alone


def test_sleep_finds_the_posterior_of_any_data():
    def sleeping(key, phi):
        return vi.sleep.estimate(key, normal(0.1) | {"y": 0.0}, jax.tree_util.Partial(recognise, phi))

    phi = climbed(sleeping, jnp.zeros(3), steps=400, samples=50)
    for y in (-1.0, 2.0):
        np.testing.assert_allclose([phi[0] * y + phi[1], phi[2]], posterior(0.1, y)[0], atol=0.05)


def test_reweighted_wake_sleep_learns_model_and_guide():
    """Of z ~ N(theta, 1) and y ~ N(z, noise) the likeliest theta is y; then the weights are equal, and nothing is noise."""

    @ppl.model
    def shifted(theta):
        sample("y", dist.Normal(sample("z", dist.Normal(theta, 1.0)), NOISE))

    def awake(key, numbers):
        theta, phi = numbers
        return vi.reweighted_wake_sleep(5).estimate(key, shifted(theta) | {"y": Y}, normal_guide(phi))

    theta, phi = climbed(awake, (jnp.zeros(()), jnp.zeros(2)), steps=800)
    np.testing.assert_allclose(theta, Y, atol=0.02)
    np.testing.assert_allclose(phi, [Y, 0.5 * math.log(NOISE**2 / (1 + NOISE**2))], atol=0.02)


# -- a particle filter -----------------------------------------------------------------------------------------------------


@ppl.model
def one_step(theta):
    def step(carry, _):
        sample("y", dist.Normal(sample("z", dist.Normal(0.0, jnp.exp(theta))), NOISE))
        return carry, None

    ppl.scan(step, 0.0, length=1)


@ppl.model
def path_guide(phi):
    def step(carry, _):
        sample("z", dist.Normal(phi[0], jnp.exp(phi[1])))
        return carry, None

    ppl.scan(step, 0.0, length=1)


def guided(phi):
    return particle_filter(proposal=lambda carry, x, data: normal_guide(phi))


def test_variational_smc_of_one_step_is_the_importance_weighted_bound():
    objective = vi.variational_smc(guided, particles=2)
    values, slopes = estimated(
        lambda key, theta, phi: objective.estimate(key, one_step(theta) | {"y": jnp.array([Y])}, phi), 0.1, WIDE
    )
    value, slope = exactly(quadrature(log_mean_of_two, 2), 0.1, WIDE)
    assert surprise(values, value) < 4.0
    assert surprise(slopes, slope) < 4.0


def test_nasmc_follows_the_paths_of_the_filter():
    objective = vi.nasmc(guided(jnp.asarray(WIDE)), particles=2)

    def mean(theta, phi):
        z = WIDE[0] + np.exp(WIDE[1]) * NODES
        log_w = np.asarray(log_weight(theta, WIDE, z))
        share = 1 / (1 + np.exp(log_w[None] - log_w[:, None]))  # of the first of two
        log_q = norm.logpdf(z, phi[0], jnp.exp(phi[1]))
        return jnp.sum(2 * WEIGHTS[:, None] * WEIGHTS * share * log_q[:, None])

    phi = np.array([0.5, -0.2])
    values, slopes = estimated(
        lambda key, phi: objective.estimate(key, one_step(0.1) | {"y": jnp.array([Y])}, path_guide(phi)), phi, which=(0,)
    )
    value, slope = jax.value_and_grad(lambda phi: mean(0.1, phi))(phi)
    assert surprise(values, value) < 4.0
    assert surprise(slopes, slope) < 4.0


# -- minibatches -----------------------------------------------------------------------------------------------------------

ROWS = 7
X = np.linspace(-1.0, 1.0, ROWS)
YS = np.array([0.3, -0.8, 0.5, 1.4, 0.1, 2.0, 1.1])
LOCAL = np.array([0.4, -0.6, 0.7, 0.1, -0.5])


@ppl.model
def nested(theta, x):
    centre = sample("centre", dist.Normal(0.0, jnp.exp(theta)))

    def row(x):
        z = sample("z", dist.Normal(centre, 1.0))
        sample("y", dist.Normal(z + x, NOISE))

    ppl.vmap(row)(x)


@ppl.model
def nested_guide(phi, x, y):
    sample("centre", dist.Normal(phi[0], jnp.exp(phi[1])))
    ppl.vmap(lambda x, y: sample("z", dist.Normal(phi[2] * (y - x) + phi[3], jnp.exp(phi[4]))))(x, y)


def nested_elbo(theta, phi):
    """In closed form: E log N(x; m, s) = -log s - log(2 pi) / 2 - E(x - m)^2 / (2 s^2)."""
    half = 0.5 * math.log(2 * math.pi)
    centre, spread, own = phi[0], jnp.exp(2 * phi[1]), jnp.exp(2 * phi[4])
    mean = phi[2] * (YS - X) + phi[3]
    of_centre = -theta - half - 0.5 * (centre**2 + spread) * jnp.exp(-2 * theta) + phi[1] + half + 0.5
    of_z = -half - 0.5 * ((mean - centre) ** 2 + own + spread) + phi[4] + half + 0.5
    of_y = -math.log(NOISE) - half - 0.5 * ((YS - X - mean) ** 2 + own) / NOISE**2
    return of_centre + jnp.sum(of_z + of_y)


def in_batches(objective):
    def estimate(key, theta, phi):
        model = jax.tree_util.Partial(lambda theta, x, y: nested(theta, x) | {"y": y}, theta)
        return objective.estimate(key, model, jax.tree_util.Partial(nested_guide, phi), (X, YS))

    return estimate


def batch_surprise(objective) -> float:
    values, slopes = estimated(in_batches(objective), 0.1, LOCAL)
    value, slope = exactly(nested_elbo, 0.1, LOCAL)
    return max(surprise(values, value), surprise(slopes, slope))


@pytest.mark.parametrize("size", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_a_minibatch_has_the_mean_of_all_rows(size):
    assert batch_surprise(vi.minibatch(vi.elbo, size=size)) < 4.0


@pytest.mark.slow
def test_so_it_has_when_the_landing_is_stuck():
    assert batch_surprise(vi.minibatch(vi.stl, size=3)) < 4.0


def test_a_plain_batch_of_data():
    """A global site that is enumerated, and data in one site: what is left to chance is the rows, and with all, nothing."""

    @ppl.model
    def levels(theta, x):
        z = sample("z", dist.Categorical(logits=theta))
        ppl.factor("more", 0.1 * x * z)
        sample("y", dist.Normal(jnp.asarray(LEVELS)[z] * x, 1.0))

    def estimate(size):
        objective = vi.minibatch(vi.elbo.using({"z": Enumerate()}), size=size)
        build = jax.tree_util.Partial(lambda theta, x, y: levels(theta, x) | {"y": y}, THETA)
        return lambda key, phi: objective.estimate(key, build, any_of_three(phi), (X, YS))

    def mean(phi):
        likelihood = np.sum(norm.logpdf(YS, LEVELS[:, None] * X, 1.0) + 0.1 * X * np.arange(3)[:, None], 1)
        return jnp.sum(jnp.exp(log_q(phi)) * (jax.nn.log_softmax(THETA) + likelihood - log_q(phi)))

    value, slope = exactly(mean, PHI, which=(0,))
    values, slopes = estimated(estimate(ROWS), PHI, num=3, which=(0,))
    np.testing.assert_allclose(values, np.full(3, value), atol=1e-9)
    np.testing.assert_allclose(slopes, np.broadcast_to(slope, (3, 3)), atol=1e-9)
    values, slopes = estimated(estimate(3), PHI, which=(0,))
    assert max(surprise(values, value), surprise(slopes, slope)) < 4.0
    assert values.std() > 0.1


def row_of_three(theta, y):
    return three(theta) | {"y": y}


def guide_of_a_row(phi, y):
    return any_of_three(phi * y)


def by_row_surprise(objective, size: int, num: int = NUM) -> float:
    """Of the sum over rows of importance-weighted bounds of two draws."""

    def mean(theta, phi):
        def of(y):
            p = jax.nn.log_softmax(theta) + norm.logpdf(y, LEVELS, 1.0)
            q = log_q(phi * y)
            return over(2, q, lambda zs: logsumexp((p - q)[zs]) - math.log(2))

        return jnp.sum(jax.vmap(of)(jnp.asarray(YS)))

    def estimate(key, theta, phi):
        model, guide = jax.tree_util.Partial(row_of_three, theta), jax.tree_util.Partial(guide_of_a_row, phi)
        return vi.by_row(objective, size=size).estimate(key, model, guide, (YS,))

    values, slopes = estimated(estimate, THETA, PHI, num=num)
    value, slope = exactly(mean, THETA, PHI)
    return max(surprise(values, value), surprise(slopes, slope))


def test_rows_with_latent_sites_of_their_own():
    """Each is enumerated by itself, 9 values a row and not 9^7; with all rows nothing is left to chance."""
    assert by_row_surprise(vi.iwelbo(2).using({"z": Enumerate()}), ROWS, num=1) < 1.0  # of an error of 1e-9


@pytest.mark.slow
def test_so_they_have_in_minibatches():
    assert by_row_surprise(vi.vimco(2), 3) < 4.0


def test_every_row_is_as_likely():
    @expectation
    def counts(weights):
        (chosen,), scale = vi.subsample((jnp.eye(ROWS),), 3)
        return scale * jnp.sum(chosen @ weights)

    values, slopes = estimated(lambda key, weights: counts.estimate(key, weights), X, which=(0,))
    assert surprise(values, X.sum()) < 4.0
    assert surprise(slopes, np.ones(ROWS)) < 4.0


def test_in_your_own_objective():
    @expectation
    def own(theta, phi):
        (x, y), scale = vi.subsample((X, YS), 2)
        model = vi.scaled(nested(theta, x) | {"y": y}, scale, of=("z", "y"))
        return vi.elbo.fn(model, vi.scaled(nested_guide(phi, x, y), scale, of=("z",)))

    values, slopes = estimated(own.estimate, 0.1, LOCAL)
    value, slope = exactly(nested_elbo, 0.1, LOCAL)
    assert max(surprise(values, value), surprise(slopes, slope)) < 4.0


# -- planted bugs ----------------------------------------------------------------------------------------------------------


class Bug(NamedTuple):
    """What stands in for a function of a file, and what the laws then find: at least so much."""

    file: str
    name: str
    instead: Any
    found: Any
    least: float


def all_alike(num):
    """In place of `numpy.arange`: rows that lie at the borders of parts are left out."""
    return np.arange(num) // 2


BUGS = {
    "no 1/K": Bug("iwelbo", "log_mean", logsumexp, lambda: distance(CASES["iwelbo"]), 0.1),
    "a baseline that looks": Bug("vimco", "without_one", stop, lambda: sampled_surprise(CASES["vimco"]), 8.0),
    "nothing stopped": Bug("stl", "stopped", lambda guide: guide, lambda: gradient_spread(vi.stl), 0.1),
    "draws not slowed": Bug("dreg", "slowed", lambda x, share: x, lambda: normal_surprise(*NORMAL_CASES["dreg"]), 8.0),
    "draws not stopped": Bug("forward_kl", "stopped", lambda x: x, lambda: distance(CASES["forward kl"]), 0.01),
    "rows counted once": Bug(
        "minibatch", "_part", lambda build, few, scale: build(*few), lambda: batch_surprise(vi.minibatch(vi.elbo, size=2)), 8.0
    ),
    "rows left out": Bug(
        "minibatch",
        "np",
        SimpleNamespace(arange=all_alike),
        lambda: batch_surprise(vi.minibatch(vi.elbo, size=2)),
        8.0,
    ),
}
QUICK = ("no 1/K", "a baseline that looks", "nothing stopped", "draws not stopped", "rows counted once")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in BUGS])
def test_the_laws_catch_bugs(name, monkeypatch):
    bug = BUGS[name]
    monkeypatch.setattr(importlib.import_module(f"inference.vi.objectives.{bug.file}"), bug.name, bug.instead)
    assert bug.found() > bug.least


# -- wrong use -------------------------------------------------------------------------------------------------------------


def traced(objective, *args):
    """What is wrong is found without computing."""
    return jax.eval_shape(lambda: objective.estimate(KEY, *args))


def told(sentence: str):
    """What is raised begins so."""
    return pytest.raises(ValueError, match=f"^{sentence}")


@ppl.model
def positive():
    sample("scale", dist.HalfNormal(1.0))
    sample("rate", dist.Uniform(0.0, 2.0))
    sample("weights", dist.Dirichlet(jnp.ones(3)))
    sample("kind", dist.Bernoulli(0.5))
    sample("y", dist.Normal(0.0, 1.0), obs=0.3)


def guide_of(**changes):
    """A guide that fits `positive`, but for the changes; a site given None is left out."""
    sites = {
        "scale": dist.LogNormal(0.0, 1.0),
        "rate": dist.Beta(1.0, 1.0),
        "weights": dist.Dirichlet(2 * jnp.ones(3)),
        "kind": dist.Bernoulli(0.2),
    } | changes

    @ppl.model
    def guide():
        for name, d in sites.items():
            if d is not None:
                sample(name, d)

    return guide()


def test_a_guide_that_fits_passes():
    vi.same_sites(positive(), guide_of())
    vi.same_sites(positive(), Importance(2).marginal(guide_of(more=dist.Normal(0.0, 1.0)), "more"))
    vi.same_sites(positive(), vi.guide_for(positive().intervene({"kind": 1})))  # it has no table


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"rate": None},
            r"^the guide lacks the model's latent site 'rate' \(shape \(\), support interval\)\. Sample it in the guide under "
            r"that name; or give it data, model \| \{'rate': value\}\.",
        ),
        (
            {"rate": None, "rates": dist.Beta(1.0, 1.0)},
            r"^the guide samples a site 'rates', but the model has no latent site of that name\. Did you mean 'rate'\? A "
            r"choice that only helps the guide must be integrated out of it: guide\.marginal\('rates', by=\.\.\.\)\.",
        ),
        ({"y": dist.Normal(0.0, 1.0)}, r"^the guide samples 'y', but in the model that site is observed\. Leave it out"),
        (
            {"scale": dist.LogNormal(jnp.zeros(2), 1.0)},
            r"^site 'scale' has shape \(\) in the model, but \(2,\) in the guide\. Sample one value for each entry",
        ),
        (
            {"scale": dist.Normal(0.0, 1.0)},
            r"^site 'scale' has the support positive in the model, but real in the guide \(a Normal\): the guide would draw "
            r"what the model holds impossible\. Choose a distribution for the guide that has the model's support\.",
        ),
        ({"rate": dist.Uniform(-1.0, 1.0)}, r"interval from 0 to 2 in the model, but interval from -1 to 1 in the guide"),
        ({"weights": dist.Normal(jnp.zeros(3), 1.0).to_event(1)}, r"'weights' has the support simplex in the model, but real"),
        ({"kind": dist.Beta(1.0, 1.0)}, r"'kind' has the support boolean .* Both must be of whole numbers, or neither\."),
        ({"kind": dist.Poisson(1.0)}, r"'kind' has the support boolean in the model, but integer nonnegative in the guide"),
    ],
)
def test_a_guide_that_does_not_fit_is_told(changes, sentence):
    for objective in (vi.elbo, vi.iwelbo(2)):
        with pytest.raises(ValueError, match=sentence):
            traced(objective, positive(), guide_of(**changes))


def test_supports_of_several_bounds_are_compared_under_jit():
    low, high = jnp.zeros(2), jnp.array([1.0, 2.0])

    @ppl.model
    def fixed(scale):
        sample("x", dist.Uniform(low, scale * high))

    @ppl.model
    def closed():
        sample("x", dist.Uniform(low, 2 * np.asarray(high)))

    program = ppl.model(lambda: sample("x", dist.Uniform(low, high)))()
    traced(vi.elbo, program, program)
    traced(vi.elbo, program, fixed(0.5))
    with told("site 'x' has the support interval in the model, but interval in the guide"):
        traced(vi.elbo, program, closed())


def test_sites_of_plates_and_nested_programs_are_compared():
    guide = nested_guide(jnp.asarray(LOCAL), X[:3], YS[:3])
    with told(r"site 'z' has shape \(7,\) \(in vmap\[7\]\) in the model, but \(3,\) in the guide"):
        traced(vi.elbo, nested(0.1, X) | {"y": YS}, guide)

    @ppl.model
    def outer():
        sample("inner", positive())

    with pytest.raises(ValueError, match=r"latent site 'inner\.scale'"):
        traced(vi.elbo, outer(), ppl.model(lambda: None)())


@ppl.model
def helped(phi):
    sample("z", dist.Normal(sample("u", dist.Normal(0.0, 1.0)), jnp.exp(phi[1])))


def test_wrong_use_is_told():
    model, guide = normal(0.1) | {"y": Y}, normal_guide(WIDE)
    marginal = Importance(2).marginal(helped(WIDE), "u")
    traced(vi.elbo, model, marginal)
    with told(r"stl needs densities that are known, but that of the Marginal is an estimate"):
        traced(vi.stl, model, marginal)
    with told(r"dreg needs densities that are known"):
        traced(vi.dreg(2), model, marginal)
    with told(r"dreg: site 'z' has the strategy Score.*, but doubly reparameterised gradients need"):
        traced(vi.dreg(2).using({"z": vi.Score()}), model, guide)
    with told(r"iwelbo: the number of draws must be a whole number of at least 1, got 0\."):
        vi.iwelbo(0)
    with told(r"vimco: the number of draws must be a whole number of at least 2, got 1\."):
        vi.vimco(1)
    with told(r"renyi: alpha must be a number other than 1 \(in the limit of 1 it is elbo\), got 1\.0"):
        vi.renyi(1.0, 2)
    with told(r"f_divergence: expected a function of the log ratio, such as lambda l: -l, got str\."):
        vi.f_divergence("kl")
    with told(r"scored belongs in a function decorated with @expectation; it was called where none"):
        vi.scored(lambda: 0.0)
    with told(r"sleep needs a program with data, program \| data, so as to know which sites are data"):
        traced(vi.sleep, normal(0.1), jax.tree_util.Partial(recognise, jnp.zeros(3)))
    with told(r"variational_smc: expected a function from the guide to a method, got Method\."):
        vi.variational_smc(particle_filter(), particles=2)


def test_wrong_minibatches_are_told():
    batched = vi.minibatch(vi.elbo, size=3)
    build, guide = (lambda x, y: nested(0.1, x) | {"y": y}), jax.tree_util.Partial(nested_guide, LOCAL)
    with told(r"this objective is no sum of log densities, so from a minibatch its mean would be"):
        traced(vi.minibatch(vi.iwelbo(2), size=3), build, guide, (X, YS))
    with told(r"minibatch: the rows must be arrays of one length, .*; theirs are \[7, 6\]"):
        traced(batched, build, guide, (X, YS[1:]))
    with told(r"minibatch: size must be a whole number from 1 to 2, the number of rows, got 3\."):
        traced(batched, build, guide, (X[:2], YS[:2]))
    with told(r"minibatch: a function of rows must return a program, .* got int\."):
        traced(batched, lambda x, y: 3, guide, (X, YS))
    with told(r"minibatch: expected an objective such as elbo, got iwelbo\."):
        vi.minibatch(vi.iwelbo, size=3)
    with told(r"scaled: the program has no site 'zz'\. Did you mean 'z'\?"):
        vi.scaled(nested(0.1, X), 2.0, of=("zz",))


def test_one_objective_for_a_setting():
    assert vi.iwelbo(5) is vi.iwelbo(5)
    assert vi.renyi(0.5, 2) is not vi.renyi(0.5, 3)


def test_what_a_part_drew():
    @expectation
    def looks(phi):
        choices, sites = drew(lambda: ppl.draw(normal_guide(phi))[0])
        assert set(sites) == {"z"}
        assert drew(lambda: normal_guide(phi).log_density(choices))[1] == {}
        return choices["z"]

    traced(looks, jnp.asarray(WIDE))


def test_log_mean():
    np.testing.assert_allclose(log_mean(jnp.log(jnp.array([1.0, 3.0]))), math.log(2.0), atol=1e-12)
