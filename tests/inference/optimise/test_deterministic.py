"""Modes, Laplace, DADVI, multi-path Pathfinder and SVGD against exact answers, and sentences."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning
from inference.optimise import climb, dadvi, find_mode, laplace, pathfinder, svgd
from inference.optimise.svgd import push
from inference.vi import FullRank, Mixture, prior_of
from ppl import dist, sample
from tests.inference.optimise.models import (
    COVARIANCE,
    LABELS,
    MEAN,
    X,
    exact_logistic,
    funnel,
    line,
    line_exact,
    logistic,
    normal,
)

PROGRAM = logistic(X) | {"y": LABELS}


# -- climbing --------------------------------------------------------------------------------------------------------------


def test_a_climb_ends_at_the_top():
    """Rosenbrock's valley, and a function that is infinite on the way."""
    with jax.enable_x64(True):
        top = climb.climb(lambda x: -100.0 * (x[1] - x[0] ** 2) ** 2 - (1.0 - x[0]) ** 2, jnp.array([-1.2, 1.0]), steps=200)
        np.testing.assert_allclose(top.position, 1.0, atol=1e-6)
        top = climb.climb(lambda x: jnp.sum(jnp.log(x) - x), jnp.array([0.01, 9.0]), steps=200)  # NaN below 0
        np.testing.assert_allclose(top.position, 1.0, atol=1e-6)
        assert top.num < 60


# -- the mode --------------------------------------------------------------------------------------------------------------


def test_the_mode_is_that_of_the_choices():
    """Beta(8, 4) has its mode at 0.7, and that of its log odds lies elsewhere."""

    @ppl.model
    def coin():
        p = sample("p", dist.Beta(8.0, 4.0))
        ppl.deterministic("odds", p / (1 - p))

    with jax.enable_x64(True):
        mode = find_mode(coin(), key=jax.random.key(0))
        assert mode.shape == (1, 1)
        np.testing.assert_allclose(mode["p"], 0.7, atol=1e-7)
        np.testing.assert_allclose(mode["odds"], 7 / 3, atol=1e-6)
        np.testing.assert_allclose(mode.stats["lp"], dist.Beta(8.0, 4.0).log_prob(0.7), atol=1e-10)
        assert mode.provenance["algorithm"] == "find_mode"


def test_the_highest_of_several_modes_is_taken():
    @ppl.model
    def two():
        x = sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        ppl.factor("f", jnp.logaddexp(math.log(0.3) - 0.5 * (x + 4.0) ** 2, math.log(0.7) - 0.5 * (x - 4.0) ** 2))

    mode = find_mode(two(), key=jax.random.key(0), starts=16, init=inf.Uniform(6.0))
    assert abs(mode["x"][0, 0] - 4.0) < 1e-2
    assert {-4, 4} == {round(float(x)) for x in mode.run.tops.position[:, 0]}


def test_a_climb_without_end_is_told():
    with pytest.warns(SamplingWarning, match=r"find_mode: the climb was not done after 5 steps.*no highest point"):
        find_mode(funnel(), key=jax.random.key(0), steps=5)


# -- Laplace ---------------------------------------------------------------------------------------------------------------


def test_laplace_is_exact_where_the_posterior_is_normal():
    with jax.enable_x64(True):
        x, y = line(0, 30)
        posterior = laplace(normal(x) | {"y": y}, key=jax.random.key(0))
        mean, covariance, log_evidence = line_exact(x, y)
        law = posterior.run.guide.law
        np.testing.assert_allclose(law.location, mean, atol=1e-9)
        np.testing.assert_allclose(law.factor @ law.factor.T, covariance, atol=1e-9)
        np.testing.assert_allclose(posterior.provenance["log_evidence_laplace"], log_evidence, atol=1e-9)
        np.testing.assert_allclose(posterior.log_evidence, log_evidence, atol=1e-9)
        assert not posterior.stages["pareto_k"][-1] > 0.7


@pytest.mark.slow
def test_laplace_streams():
    """Regression, ten data at a time: to 1e-8 what all at once are."""

    @ppl.model
    def next_day(prior, x):
        theta = sample("theta", prior)["theta"]
        sample("y", dist.Normal(x @ theta, 0.5).to_event(1))

    with jax.enable_x64(True):
        x, y = line(1, 30)
        key = jax.random.key(0)
        posterior = laplace(normal(x[:10]) | {"y": y[:10]}, key=key, draws=10)
        prior = prior_of(posterior)
        for part in (slice(10, 20), slice(20, 30)):
            posterior = laplace(next_day(prior, x[part]) | {"y": y[part]}, key=key, draws=10)
            prior = prior_of(posterior, prior)
        mean, covariance, _ = line_exact(x, y)
        law = prior.args[0]
        np.testing.assert_allclose(law.location, mean, atol=1e-8)
        np.testing.assert_allclose(law.factor @ law.factor.T, covariance, atol=1e-8)


@pytest.mark.slow
def test_laplace_corrected_is_exact():
    """Logistic regression: means and evidence against quadrature, from draws that are independent: 4 standard errors."""
    exact = exact_logistic()
    rough = laplace(PROGRAM, key=jax.random.key(0))
    assert rough.stages["pareto_k"][-1] < 0.7
    posterior = inf.importance(PROGRAM, rough.run.guide, key=jax.random.key(1), num=20_000)
    assert abs(posterior.log_evidence - exact.log_evidence) < 4 * posterior.log_evidence_error < 0.1
    sd = np.sqrt(np.diag(exact.covariance))
    np.testing.assert_allclose(posterior["beta"].mean((0, 1)), exact.mean, atol=float(4 * sd.max() / math.sqrt(5000)))


def test_a_density_without_maximum_is_told():
    @ppl.model
    def flat():
        a = sample("a", dist.ImproperUniform(dist.constraints.real, (), ()))
        b = sample("b", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(b, 1.0), obs=0.0 * a + 1.0)

    with pytest.raises(
        ValueError, match=r"laplace: the density has no maximum where the climb ended: it does not fall along a,"
    ):
        laplace(flat(), key=jax.random.key(0))


# -- DADVI -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_linear_response_has_the_covariance_of_a_normal():
    """The mean field has the right means and is too narrow; linear response is as good as the noise is Normal, and for the
    means' own block exact: the law of a tilt."""
    with jax.enable_x64(True):
        x, y = line(0, 30)
        posterior = dadvi(normal(x) | {"y": y}, key=jax.random.key(0))
        mean, covariance, _ = line_exact(x, y)
        np.testing.assert_allclose(posterior.run.guide.law.location, mean, atol=1e-6)
        narrow = np.exp(2 * posterior.run.guide.law.log_scale)
        assert np.all(narrow < 1.1 * np.diag(covariance))
        law = posterior.run.linear_response().law
        np.testing.assert_allclose(law.location, mean, atol=1e-6)
        np.testing.assert_allclose(law.factor @ law.factor.T, covariance, rtol=0.15, atol=1e-3)


@pytest.mark.slow
def test_full_rank_finds_a_normal():
    """As well as the covariance of the fixed noise is the identity: with 4000 draws to 5 / sqrt(4000) of it."""
    with jax.enable_x64(True):
        x, y = line(0, 30)
        posterior = dadvi(normal(x) | {"y": y}, FullRank(), key=jax.random.key(0), num=4000)
        mean, covariance, _ = line_exact(x, y)
        law = posterior.run.guide.law
        np.testing.assert_allclose(law.location, mean, atol=1e-6)
        np.testing.assert_allclose(law.factor @ law.factor.T, covariance, atol=5 / math.sqrt(4000) * float(covariance.max()))


@pytest.mark.slow
def test_dadvi_on_a_logistic_regression():
    """Means to a tenth of a standard deviation, standard deviations of linear response to a tenth."""
    exact = exact_logistic()
    posterior = dadvi(PROGRAM, key=jax.random.key(0), num=200)
    sd = np.sqrt(np.diag(exact.covariance))
    wider = posterior.run.linear_response()
    assert np.all(np.abs(wider.law.location - exact.mean) < 0.1 * sd)
    np.testing.assert_allclose(np.sqrt(np.diag(wider.law.factor @ wider.law.factor.T)), sd, rtol=0.1)


@pytest.mark.slow
def test_a_planted_sign_would_be_seen(monkeypatch):
    """Planted: the objective without the log Jacobian shrinks to the mode."""
    module = importlib.import_module("inference.optimise.dadvi")

    def mean(target, law, noise):
        return jnp.mean(jax.vmap(lambda z: target.log_density(law.forward(z)[0]))(noise))

    monkeypatch.setattr(module, "_mean", mean)
    with pytest.warns(SamplingWarning):
        posterior = dadvi(PROGRAM, key=jax.random.key(0), num=20)
    assert np.all(np.exp(posterior.run.guide.law.log_scale) < 0.5 * np.sqrt(np.diag(exact_logistic().covariance)))


# -- Pathfinder ------------------------------------------------------------------------------------------------------------


def test_pathfinder_on_a_normal():
    posterior = pathfinder(ppl.as_target(correlated()), key=jax.random.key(0), draws=2000)
    assert posterior.shape == (1, 2000) and posterior.stages["pareto_k"][-1] < 0.7
    draws = np.asarray(posterior["x"][0])
    np.testing.assert_allclose((draws.mean(0) - MEAN) / np.sqrt(np.diag(COVARIANCE)), 0.0, atol=5 / math.sqrt(1000))
    np.testing.assert_allclose(np.corrcoef(draws.T)[0, 1], 0.9, atol=0.03)
    log_z = 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
    assert abs(posterior.log_evidence - log_z) < 4 * posterior.log_evidence_error + 1e-4


def test_a_path_in_a_minor_mode_has_its_small_share():
    """Both modes are Normal, so weights are the same all over a mode. With a of 8 paths in the minor one, its share of 4000
    draws has the relative error sqrt((8 - a) / (4000 a))."""
    share, sd = 0.02, 0.3

    def log_density(choices):
        minor, major = (-0.5 * ((choices["x"] - place) / sd) ** 2 for place in (3.0, -3.0))
        return jnp.logaddexp(jnp.log(share) + minor, jnp.log1p(-share) + major)

    target = ppl.Target.from_log_density(log_density, {"x": jnp.zeros(())})
    law = pathfinder(target, key=jax.random.key(0), draws=100).run.guide.law
    minor = np.asarray(law.members.location[:, 0]) > 0
    num = int(minor.sum())
    assert 0 < num < 8
    found = float(np.asarray(jax.nn.softmax(law.logits))[minor].sum())
    assert abs(found / share - 1.0) < 4.0 * math.sqrt((8 - num) / (4000 * num))


def correlated():
    precision = jnp.asarray(np.linalg.inv(COVARIANCE))
    return ppl.Target.from_log_density(lambda c: -0.5 * (c["x"] - MEAN) @ precision @ (c["x"] - MEAN), {"x": jnp.zeros(3)})


@pytest.mark.slow
def test_the_mixture_of_paths_has_its_density():
    """The inverse of each Normal undoes it, and its Jacobian is that of the map."""
    with jax.enable_x64(True):
        posterior = pathfinder(PROGRAM, key=jax.random.key(0), paths=2, draws=50, proposals=100)
        member = jax.tree.map(lambda x: x[0], posterior.run.guide.law.members)
        noise = jnp.array([0.3, -1.0, 2.0])[: member.dim]
        position, log_jacobian = member.forward(noise)
        back, log_back = member.inverse(position)
        np.testing.assert_allclose(back, noise, atol=1e-8)
        slope = jax.jacobian(lambda z: member.forward(z)[0])(noise)
        np.testing.assert_allclose([log_jacobian, -log_back], np.linalg.slogdet(slope)[1], atol=1e-8)
        corrected = inf.importance(PROGRAM, posterior.run.guide, key=jax.random.key(1), num=4000)
        assert abs(corrected.log_evidence - exact_logistic().log_evidence) < 4 * corrected.log_evidence_error < 0.1


@pytest.mark.parametrize("algorithm", [laplace, *(pytest.param(f, marks=pytest.mark.slow) for f in (dadvi, pathfinder))])
def test_a_funnel_is_told(algorithm):
    """No Normal is near it, and Pareto's k knows."""
    with pytest.warns(SamplingWarning, match=r"heavy tails \(Pareto k"):
        posterior = algorithm(funnel(), key=jax.random.key(0))
    assert posterior.stages["pareto_k"][-1] > 0.7


# -- SVGD ------------------------------------------------------------------------------------------------------------------


def test_particles_fill_a_normal():
    """Two correlated coordinates: means exact by symmetry of the fixed point, covariances to a fifth."""
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    target = ppl.Target.from_log_density(lambda c: -0.5 * (c["x"] - 1) @ precision @ (c["x"] - 1), {"x": jnp.zeros(2)})
    posterior = svgd(target, key=jax.random.key(0), particles=64, steps=600, optimizer=optax.adam(0.05), progress=False)
    x = posterior["x"][0]
    np.testing.assert_allclose(x.mean(0), 1.0, atol=0.03)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.2)
    assert posterior.run.moves[-1] < 0.02 * posterior.run.moves[0] and len(posterior.run.moves) == 600


def test_a_push_is_steins():
    """Against the two sums written out, with the kernel's own gradient."""
    x = jax.random.normal(jax.random.key(0), (5, 2))
    slopes = jax.random.normal(jax.random.key(1), (5, 2))
    squares = jnp.sum((x[:, None] - x) ** 2, -1)
    width = jnp.median(squares) / jnp.log(6.0)
    kernel = lambda a, b: jnp.exp(-jnp.sum((a - b) ** 2) / width)  # noqa: E731
    exact = jnp.stack([
        sum(kernel(x[j], x[i]) * slopes[j] + jax.grad(kernel)(x[j], x[i]) for j in range(5)) / 5 for i in range(5)
    ])  # fmt: skip
    np.testing.assert_allclose(push(x, slopes), exact, rtol=1e-4, atol=1e-5)


# -- sentences -------------------------------------------------------------------------------------------------------------


@ppl.model
def coins():
    z = sample("z", dist.Bernoulli(0.3))
    sample("x", dist.Normal(1.0 * z, 1.0))


@ppl.model
def many():
    sample("x", dist.Normal(jnp.zeros(2001), 1.0))


@ppl.model
def nowhere():
    x = sample("x", dist.Normal(0.0, 1.0))
    ppl.factor("f", jnp.where(x > 100.0, 0.0, -jnp.inf))


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: find_mode(coins(), key=KEY),
            r"site 'z' is discrete \(Bernoulli\), and find_mode moves continuous sites only. Sum it",
        ),
        (lambda: laplace(coins(), key=KEY), r"site 'z' is discrete.*laplace moves.*strategy=Enumerate\(\)"),
        (lambda: svgd(coins(), key=KEY), r"site 'z' is discrete.*svgd moves"),
        (lambda: find_mode(nowhere(), key=KEY), r"find_mode: the log density is not finite at any of 4 starts: site 'f'"),
        (lambda: pathfinder(nowhere(), key=KEY), r"pathfinder: none of 8 paths found.*site 'f' has log density -inf"),
        (lambda: svgd(nowhere(), key=KEY), r"svgd: the log density is not finite at 100 of 100 particles"),
        (lambda: dadvi(nowhere(), key=KEY), r"guide_for: the density is not finite where the guide begins"),
        (lambda: laplace(many(), key=KEY), r"the Hessian of 2001 dimensions would hold 4 million numbers"),
        (lambda: laplace(PROGRAM, key=0), r"laplace needs a typed random key such as"),
        (lambda: dadvi(PROGRAM, key=KEY, num=0), r"dadvi: num must be a whole number of at least 1, got 0"),
        (lambda: dadvi(PROGRAM, FullRank(), key=KEY, num=2), r"2 fixed draws in 2 dimensions leave directions.*num above"),
        (lambda: dadvi(PROGRAM, Mixture(2), key=KEY), r"Mixture of MeanField does not move noise"),
        (lambda: dadvi(PROGRAM, FullRank(), key=KEY, num=3, steps=5).run.linear_response(), r"for mean fields"),
    ],
)
@pytest.mark.filterwarnings("ignore::inference.diagnostics.SamplingWarning")
def test_wrong_use_is_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()
