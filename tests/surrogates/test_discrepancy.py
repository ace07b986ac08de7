"""The discrepancy: its covariances against NumPy's, and the ball drops, whose answers are exact and whose truth is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from benchmarks import ball_drop
from benchmarks.ball_drop import TRUE_G, by_eigenvectors, by_grid, drops
from ppl import dist, sample
from surrogates.discrepancy import Discrepancy, discrepancy, matern52, squared_exponential

KEY = jax.random.key(0)
multivariate_normal: Any = stats.multivariate_normal
halfnorm: Any = stats.halfnorm
lognorm: Any = stats.lognorm
QUICK = (60, 24, 30, 30)  # nodes: log evidence to 1e-4, mean of g to 2e-4 (against twice as many)
X = np.array([0.2, 0.7, 0.7, 1.5, 2.6, 4.0])


def fixed(x=X, amplitude=0.8, length=1.3, kernel=squared_exponential):
    """A discrepancy of known settings, outside any model."""
    table = jnp.asarray(x).reshape(len(x), -1)
    none = jnp.zeros((len(x), 0), table.dtype)
    return Discrepancy("delta", table, jnp.asarray(amplitude), jnp.asarray(length), kernel, none)


def gram(x, y, amplitude=0.8, length=1.3):
    x, y = np.reshape(x, (len(x), -1)), np.reshape(y, (len(y), -1))
    return amplitude**2 * np.exp(-0.5 * (((x[:, None] - y) / length) ** 2).sum(-1))


def conditioned(K, which, rest):
    """Covariance of the `rest` of a normal vector, given the `which`, by the textbook."""
    return K[np.ix_(rest, rest)] - K[np.ix_(rest, which)] @ np.linalg.pinv(K[np.ix_(which, which)]) @ K[np.ix_(which, rest)]


# -- the process -----------------------------------------------------------------------------------------------------------


def test_covariances(x64):
    delta = fixed()
    np.testing.assert_allclose(delta.covariance(), gram(X, X), atol=1e-12)
    new = np.array([0.0, 3.0])
    np.testing.assert_allclose(delta.covariance(jnp.asarray(new)[:, None]), gram(new, X), atol=1e-12)
    wide = np.random.default_rng(0).normal(size=(5, 2))
    made = fixed(wide, length=np.array([0.5, 2.0])).covariance()
    np.testing.assert_allclose(made, gram(wide, wide, length=np.array([0.5, 2.0])), atol=1e-12)
    r = np.sqrt(5) * np.abs(X[:, None] - X) / 1.3
    np.testing.assert_allclose(fixed(kernel=matern52).covariance(), 0.64 * (1 + r + r**2 / 3) * np.exp(-r), atol=1e-12)


def test_orthogonal_is_conditioned(x64):
    """Against the law of the joint vector (process, inner products), given that those are 0."""
    directions = np.stack([np.sqrt(X), X**2 - 1.0], axis=1)
    delta = fixed().orthogonal_to(directions)
    points = np.concatenate([X, [0.1, 3.3]])
    lift = np.concatenate([np.eye(8), np.pad(directions, ((0, 2), (0, 0))).T])
    joint = lift @ gram(points, points) @ lift.T
    exact = conditioned(joint, [8, 9], list(range(8)))
    np.testing.assert_allclose(delta.covariance(), exact[:6, :6], atol=1e-10)
    np.testing.assert_allclose(delta.covariance(jnp.asarray([[0.1], [3.3]])), exact[6:, :6], atol=1e-10)
    np.testing.assert_allclose(directions.T @ np.asarray(delta.covariance()), 0.0, atol=1e-10)
    assert np.abs(directions.T @ np.asarray(fixed().covariance())).max() > 0.1  # as it is, it is not
    one_by_one = fixed().orthogonal_to(directions[:, 0]).orthogonal_to(directions[:, 1])
    np.testing.assert_allclose(one_by_one.covariance(), delta.covariance(), atol=1e-12)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_elsewhere_given_residuals(x64, orthogonal):
    new, residuals, noise = np.array([0.5, 3.0, 9.0]), np.sin(X), np.linspace(0.1, 0.3, 6)
    delta = fixed().orthogonal_to(np.sqrt(X)) if orthogonal else fixed()
    K, across = np.asarray(delta.covariance()), np.asarray(delta.covariance(jnp.asarray(new)[:, None]))
    here = np.asarray(delta.covariance(*(jnp.asarray(new)[:, None],) * 2))
    solved = np.linalg.solve(K + np.diag(noise**2), np.column_stack([residuals, across.T]))
    law = delta.at(new, residuals, noise)
    np.testing.assert_allclose(law.loc, across @ solved[:, 0], atol=1e-9)
    np.testing.assert_allclose(law.covariance_matrix, here - across @ solved[:, 1:], atol=1e-9)


def test_around_is_the_sum_of_three(precision):
    mean, noise, own = np.cos(X), np.linspace(0.1, 0.3, 6), np.full((6, 6), 0.2)
    law = fixed().around(jnp.asarray(mean), jnp.asarray(noise), covariance=jnp.asarray(own))
    exact = gram(X, X) + np.diag(noise**2) + own
    np.testing.assert_allclose(law.covariance_matrix, exact, atol=1e-4 if precision == "float32" else 1e-12)
    np.testing.assert_allclose(law.loc, mean, atol=1e-6)


@ppl.model
def latent(x):
    delta = discrepancy("delta", x, amplitude=dist.HalfNormal(1.0), length=1.3)
    return delta.values()


def test_values_have_that_covariance(precision):
    """They are linear in standard normals: the covariance is that of the map. Two inputs are the same, so it is singular."""
    program = latent(jnp.asarray(X))
    assert set(program.sites()) == {"delta.amplitude", "delta_white"}
    slope = jax.jacobian(lambda z: program.retval({"delta": {"amplitude": jnp.asarray(0.8)}, "delta_white": z}))(jnp.zeros(6))
    np.testing.assert_allclose(slope @ slope.T, gram(X, X), atol=1e-4 if precision == "float32" else 1e-12)
    np.testing.assert_allclose(slope[1], slope[2], atol=0.02 if precision == "float32" else 1e-5)  # root of the jitter


@ppl.model
def noisy(x, kernel):
    delta = discrepancy("delta", x, amplitude=dist.HalfNormal(0.5), length=dist.LogNormal(0.0, 1.0), kernel=kernel)
    sample("y", delta.around(jnp.zeros(len(x)), 0.1))


@pytest.mark.parametrize("kernel", [squared_exponential, matern52])
def test_density_and_gradient(precision, kernel):
    """Against SciPy's, and a gradient that is a number where inputs coincide."""
    program = noisy(jnp.asarray(X), kernel) | {"y": jnp.sin(jnp.asarray(X))}
    choices = {"delta": {"amplitude": jnp.asarray(0.8), "length": jnp.asarray(1.3)}}
    if kernel is squared_exponential:
        exact = multivariate_normal(np.zeros(6), gram(X, X) + 0.01 * np.eye(6)).logpdf(np.sin(X))
        exact += halfnorm(scale=0.5).logpdf(0.8) + lognorm(1.0).logpdf(1.3)
        assert float(program.log_density(choices)) == pytest.approx(exact, abs=3e-3 if precision == "float32" else 1e-8)
    slopes = jax.jit(jax.grad(program.log_density))(choices)
    assert all(np.isfinite(g) for g in jax.tree.leaves(slopes))


# -- the ball drops --------------------------------------------------------------------------------------------------------


def conditioned_drops(model):
    h, times = drops()
    return model(jnp.asarray(h)) | {"time": jnp.asarray(times)}


# model, nodes and ranges, what the table of the data has: means and standard deviations, log evidence
TABLE = {
    "without": (
        {"g": (40, 6.5, 10.5), "sigma": (40, 0.04, 0.15)},
        {"g": (8.165, 0.225), "sigma": (0.0802, 0.0074)},
        64.998,
    ),
    "with_offset": (
        {"g": (40, 4.0, 11.0), "sigma": (30, 0.04, 0.15), "offset": (60, -0.25, 0.1)},
        {"g": (7.087, 0.514), "offset": (-0.0586, 0.0283), "sigma": (0.0775, 0.0072)},
        65.884,
    ),
    "with_drag": (
        {"g": (48, 5.0, 16.0), "sigma": (30, 0.04, 0.15), "v": (90, 1.0, 30.0)},
        {"g": (10.680, 0.979), "v": (6.584, 1.784), "sigma": (0.0720, 0.0068)},
        70.066,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_models_without_it_have_the_answers_of_the_table(x64, name):
    """Within the last digits of the table, and a half more of the quadrature."""
    ranges, sites, log_evidence = TABLE[name]
    exact = by_grid(conditioned_drops(getattr(ball_drop, name)), ranges)
    assert exact.log_evidence == pytest.approx(log_evidence, abs=1.5e-3)
    for site, (mean, sd) in sites.items():
        last = 1.5e-3 if site in ("g", "v") else 1.5e-4
        assert exact.mean[site] == pytest.approx(mean, abs=last) and exact.sd[site] == pytest.approx(sd, abs=last), site


def log_likelihood(g, sigma, amplitude, length, h, times):
    cov = gram(h, h, amplitude, length) + sigma**2 * np.eye(len(h))
    return multivariate_normal(np.sqrt(2 * h / g), cov).logpdf(times)


def test_the_density_with_it_is_scipys(x64):
    h, times = drops()
    program = conditioned_drops(ball_drop.with_discrepancy)
    for g, sigma, amplitude, length in ((8.0, 0.07, 0.1, 2.0), (12.0, 0.3, 0.01, 0.5)):
        exact = log_likelihood(g, sigma, amplitude, length, h, times) - np.log(12.0 * 0.49)
        exact += halfnorm(scale=0.1).logpdf(amplitude) + lognorm(0.7, scale=2.0).logpdf(length)
        choices = {"g": g, "sigma": sigma, "delta": {"amplitude": amplitude, "length": length}}
        assert float(program.log_density(jax.tree.map(jnp.asarray, choices))) == pytest.approx(exact, abs=1e-7)


def test_the_quadrature_by_eigenvectors_is_a_plain_sum():
    """At three nodes an axis, over SciPy's densities of all 63 timings."""
    (h, times), num = drops(), 3
    ends = ((4.0, 16.0), (0.04, 0.2), (0.0, 0.6), (np.log(2.0) - 4.2, np.log(2.0) + 4.2))
    (g, wg), (s, ws), (a, wa), (u, wu) = (ball_drop.nodes(num, *e) for e in ends)
    total = 0.0
    for i, j, k, m in np.ndindex(num, num, num, num):
        likelihood = log_likelihood(g[i], s[j], a[k], np.exp(u[m]), h, times)
        prior = halfnorm(scale=0.1).pdf(a[k]) * np.exp(-0.5 * ((u[m] - np.log(2.0)) / 0.7) ** 2) / (0.7 * np.sqrt(2 * np.pi))
        total += wg[i] * ws[j] * wa[k] * wu[m] * prior / 12.0 / 0.49 * np.exp(likelihood)
    assert by_eigenvectors(num=(num, num, num, num)).log_evidence == pytest.approx(np.log(total), abs=1e-8)


def test_it_covers_the_truth_and_nothing_else_does(x64):
    """Without it g is 7 standard deviations off; with it 9.81 lies inside the interval, which is no more the prior's than that
    of the orthogonal one, which is sure of what fits best, is the truth's."""
    wrong, right, best = by_grid(conditioned_drops(ball_drop.without), TABLE["without"][0]), *both()
    assert (wrong.mean["g"] - TRUE_G) / wrong.sd["g"] < -7.0 and not wrong.interval[0] < TRUE_G < wrong.interval[1]
    assert right.interval[0] < TRUE_G < right.interval[1] and right.interval[1] - right.interval[0] < 0.6 * 12.0
    assert abs(right.mean["g"] - TRUE_G) < 1.5 * right.sd["g"]
    assert best.mean["g"] == pytest.approx(wrong.mean["g"], abs=0.1) and (best.mean["g"] - TRUE_G) / best.sd["g"] < -7.0
    assert right.log_evidence - wrong.log_evidence > 4.5  # and so near to the drag's, which had to be known
    assert abs(right.log_evidence - TABLE["with_drag"][2]) < 1.0


def both():
    return by_eigenvectors(num=QUICK), by_eigenvectors(num=QUICK, orthogonal=True)


# -- sentences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"amplitude": dist.Normal(0.0, 1.0)}, "amplitude must be above 0"),
        ({"length": -1.0}, "length must be above 0"),
        ({"length": dist.HalfNormal(1.0).expand([2])}, r"length must have shape \(\) or \(1,\), got \(2,\)"),
        ({"x": np.array([1.0, np.nan])}, "some that are not finite"),
        ({"x": np.zeros((2, 2, 2))}, r"got shape \(2, 2, 2\)"),
    ],
)
def test_what_discrepancy_refuses(given, words):
    @ppl.model
    def model():
        discrepancy("delta", **({"x": X, "amplitude": dist.HalfNormal(1.0), "length": dist.HalfNormal(1.0)} | given))

    with pytest.raises(ValueError, match=words):
        model().simulate(KEY)


def test_what_its_methods_refuse():
    with pytest.raises(ValueError, match=r"site 'delta', which has 6 inputs, mean must have shape \(6,\), got \(5,\)"):
        fixed().around(jnp.zeros(5), 0.1)
    with pytest.raises(ValueError, match=r"noise must have shape \(\) or \(6,\)"):
        fixed().around(jnp.zeros(6), jnp.ones(2))
    with pytest.raises(ValueError, match=r"covariance must have shape \(6, 6\)"):
        fixed().around(jnp.zeros(6), 0.1, covariance=jnp.ones(6))
    with pytest.raises(ValueError, match="residuals must have shape"):
        fixed().at(X, jnp.zeros(2), 0.1)
    with pytest.raises(ValueError, match="with fewer directions than inputs"):
        fixed().orthogonal_to(np.ones((6, 6)))


def test_a_model_of_known_settings_has_no_sites():
    @ppl.model
    def model():
        delta = discrepancy("delta", X, amplitude=0.8, length=1.3)
        sample("y", delta.around(jnp.zeros(6), 0.1))

    assert set(model().sites()) == {"y"}
