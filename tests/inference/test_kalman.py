"""Kalman filters and smoothers, one after another in time and parallel, against conditioning of one dense normal law.

The dense law is that of the whole path and all observations, in NumPy's double precision: nothing recursive is in it but the
means and covariances of the path.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from inference import exact
from inference.exact import Affine, Gaussian, LinearGaussian, associative, kalman

# Annual flow of the Nile at Aswan, 1871-1970, 1e8 m^3: Cobb, Biometrika 65 (1978); Durbin and Koopman, "Time Series Analysis
# by State Space Methods", 2012.
NILE = """1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100 1210 1150 1250 1260
1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120 1100 832 764 821 768 845 864 862 698
845 744 796 1040 759 781 865 845 944 984 897 822 1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986
797 923 975 815 1020 906 901 1170 912 746 919 718 714 740"""
NILE = np.array(NILE.split(), float)

FILTERS = {"in turn": exact.kalman_filter, "parallel": exact.associative_filter}
SMOOTHERS = {"in turn": exact.kalman_smoother, "parallel": exact.associative_smoother}
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # relative to the largest entry
in_time = pytest.mark.parametrize("how", FILTERS)
in_time_slow = pytest.mark.parametrize("how", ["in turn", pytest.param("parallel", marks=pytest.mark.slow)])


class Dense(NamedTuple):
    """What conditioning of the dense law gives; the fields of `Filtered` and `Smoothed`."""

    filtered_means: np.ndarray
    filtered_covariances: np.ndarray
    log_increments: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    cross_covariances: np.ndarray
    path_covariance: np.ndarray


def dense(model: LinearGaussian, y) -> Dense:
    at = [lambda law, t=t: [np.asarray(x, float) for x in jax.tree.leaves(law.at(t))] for t in range(len(y))]
    num, d = len(y), len(model.initial.mean)
    mean, cov = np.zeros((num, d)), np.zeros((num, d, num, d))
    mean[0], cov[0, :, 0] = np.asarray(model.initial.mean), np.asarray(model.initial.covariance)
    for t in range(num - 1):
        matrix, noise, offset = at[t](model.transition)
        mean[t + 1] = matrix @ mean[t] + offset
        for s in range(t + 1):
            cov[t + 1, :, s] = matrix @ cov[t, :, s]
            cov[s, :, t + 1] = cov[t + 1, :, s].T
        cov[t + 1, :, t + 1] = matrix @ cov[t, :, t] @ matrix.T + noise
    mean, cov = mean.ravel(), cov.reshape(num * d, num * d)
    rows, errors, shift, values, times = [], [], [], [], []
    for t in range(num):
        matrix, noise, offset = at[t](model.observation)
        there = np.flatnonzero(~np.isnan(y[t]))
        row = np.zeros((len(there), num, d))
        row[:, t] = matrix[there]
        rows.append(row.reshape(len(there), num * d))
        errors.append(noise[np.ix_(there, there)])
        shift.append(offset[there])
        values.append(y[t][there])
        times += [t] * len(there)
    rows, shift, values, times = np.concatenate(rows), np.concatenate(shift), np.concatenate(values), np.array(times)
    noise = np.zeros((len(rows), len(rows)))
    for t, error in enumerate(errors):
        noise[np.ix_(times == t, times == t)] = error

    def given(until):
        some = times <= until
        h, seen_cov = rows[some], rows[some] @ cov @ rows[some].T + noise[np.ix_(some, some)]
        if not some.any():
            return mean.reshape(num, d), cov.reshape(num, d, num, d), 0.0
        gain = np.linalg.solve(seen_cov, h @ cov).T
        expected = h @ mean + shift[some]
        log_p = multivariate_normal(expected, seen_cov, allow_singular=True).logpdf(values[some])
        new = mean + gain @ (values[some] - expected)
        return new.reshape(num, d), (cov - gain @ h @ cov).reshape(num, d, num, d), log_p

    found = [given(t) for t in range(num)]
    means, covs, _ = found[-1]
    return Dense(
        np.array([m[t] for t, (m, _, _) in enumerate(found)]),
        np.array([c[t, :, t] for t, (_, c, _) in enumerate(found)]),
        np.diff([log_p for *_, log_p in found], prepend=0.0),
        means,
        np.array([covs[t, :, t] for t in range(num)]),
        np.array([covs[t, :, t + 1] for t in range(num - 1)]).reshape(num - 1, d, d),
        covs.reshape(num * d, num * d),
    )


def spd(rng, *shape):
    root = rng.normal(size=(*shape, shape[-1] + 2)) / np.sqrt(shape[-1])
    return root @ np.swapaxes(root, -1, -2)


def random_model(seed, d, k, lead_transition=(), lead_observation=()) -> LinearGaussian:
    rng = np.random.default_rng(seed)
    return LinearGaussian(
        Gaussian(rng.normal(size=d), spd(rng, d)),
        Affine(
            rng.normal(size=(*lead_transition, d, d)) * 0.9 / np.sqrt(d),
            spd(rng, *lead_transition, d),
            rng.normal(size=(*lead_transition, d)),
        ),
        Affine(
            rng.normal(size=(*lead_observation, k, d)), spd(rng, *lead_observation, k), rng.normal(size=(*lead_observation, k))
        ),
    )


def second_order() -> LinearGaussian:
    """An autoregression of order two, observed as it is: filtered and predicted covariances are singular."""
    return LinearGaussian(
        Gaussian(jnp.zeros(2), jnp.diag(jnp.array([1.0, 0.5]))),
        transition=Affine([[0.5, 0.3], [1.0, 0.0]], jnp.diag(jnp.array([0.7, 0.0]))),
        observation=Affine([[1.0, 0.0]], [[0.0]]),
    )


def data(seed, num, k):
    return np.random.default_rng(seed).normal(size=(num, k)) * 2.0


def with_holes():
    y = data(5, 5, 3)
    y[0, 1] = y[2] = y[3, 0] = y[3, 2] = y[4, 1] = np.nan
    return y


CASES = {
    "one of each": lambda: (random_model(0, 1, 1), data(0, 3, 1)),
    "changing with time": lambda: (random_model(1, 3, 2, (4,), (5,)), data(1, 5, 2)),
    "holes": lambda: (random_model(2, 2, 3), with_holes()),
    "first row missing": lambda: (random_model(3, 2, 1), np.r_[np.full((2, 1), np.nan), data(3, 2, 1)]),
    "twenty": lambda: (random_model(4, 20, 5), data(4, 4, 5)),
    "more seen than hidden": lambda: (random_model(6, 2, 4), data(6, 3, 4)),
    "singular": lambda: (second_order(), data(7, 4, 1)),
    "one time": lambda: (random_model(8, 2, 2), data(8, 1, 2)),
}


def agree(found, truth, tolerance):
    for name, value in truth.items():
        scale = max(np.max(np.abs(value), initial=0.0), 1.0)
        np.testing.assert_allclose(getattr(found, name), value, rtol=0, atol=tolerance * scale, err_msg=name)


def check(how, case, tolerance):
    """The means and covariances of filter and smoother, the increments, and the evidence."""
    model, y = CASES[case]()
    truth = dense(model, y)
    filtered, smoothed = jax.jit(lambda model: (FILTERS[how](model, y), SMOOTHERS[how](model, y)))(model)
    means, covariances, log_increments = truth[:3]
    agree(filtered, dict(means=means, covariances=covariances, log_increments=log_increments), tolerance)
    agree(smoothed, {name: getattr(truth, name) for name in ("means", "covariances", "cross_covariances")}, tolerance)
    np.testing.assert_allclose([filtered.log_evidence, smoothed.log_evidence], np.sum(log_increments), rtol=tolerance * 10)
    assert filtered.means.dtype == ("float64" if jax.config.jax_enable_x64 else "float32")


OFTEN = {"holes", "changing with time", "singular", "one time"}


@pytest.mark.parametrize(
    "how, case",
    [("in turn", case) for case in CASES]
    + [pytest.param("parallel", case, marks=() if case in OFTEN else pytest.mark.slow) for case in CASES],
)
def test_filters_and_smoothers_against_the_dense_law(how, case, x64):
    check(how, case, TOLERANCE["float64"])


@pytest.mark.parametrize("how, case", [("in turn", "holes"), ("in turn", "singular"), ("parallel", "holes")])
def test_in_single_precision(how, case):
    check(how, case, TOLERANCE["float32"])


def local_level(initial: Gaussian, level=1469.1, noise=15099.0) -> LinearGaussian:
    return LinearGaussian(initial, transition=Affine(1.0, level), observation=Affine(1.0, noise))


@pytest.mark.parametrize(
    "how, precision", [("in turn", "float32"), ("in turn", "float64"), ("parallel", "float64")], indirect=["precision"]
)
def test_the_nile(how, precision):
    """Durbin and Koopman's local level; the numbers were computed apart, in double precision."""
    found = FILTERS[how](local_level(Gaussian(1000.0, 1e5)), NILE)
    digits = 1e-6 if precision == "float64" else 1e-3
    assert float(found.log_evidence) == pytest.approx(-639.300724, abs=digits)
    assert float(found.means[-1, 0]) == pytest.approx(798.3703, rel=1e-6)
    assert float(found.covariances[-1, 0, 0]) == pytest.approx(4032.158, rel=1e-6)
    diffuse = FILTERS[how](local_level(Gaussian(0.0, 1e11)), NILE)
    assert float(jnp.sum(diffuse.log_increments[1:])) == pytest.approx(-632.5456, abs=1e-4 if precision == "float64" else 2e-3)


def tracked(num):
    """A thing that moves almost straight on, seen well, of which nothing was known: hard for short digits."""
    step = 0.01
    transition = Affine([[1.0, step], [0.0, 1.0]], 1e-3 * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]]))
    rng = np.random.default_rng(0)
    y = (3.0 + np.cumsum(np.full(num, 2.0 * step)) + 0.05 * rng.normal(size=num))[:, None]
    return LinearGaussian(Gaussian(jnp.zeros(2), 1e6 * jnp.eye(2)), transition, Affine([[1.0, 0.0]], 0.05**2)), y


@in_time_slow
def test_long_series_in_single_precision(how):
    model, y = tracked(2000)
    found, smooth = FILTERS[how](model, y), SMOOTHERS[how](model, y)
    jax.config.update("jax_enable_x64", True)
    try:
        model, y = tracked(2000)
        exactly = exact.kalman_filter(model, y), exact.kalman_smoother(model, y)
        truth, smooth_truth = jax.tree.map(np.asarray, exactly)
    finally:
        jax.config.update("jax_enable_x64", False)
    for laws, exactly in [(found, truth), (smooth, smooth_truth)]:
        assert np.linalg.eigvalsh(np.asarray(laws.covariances, float)).min() > 0
        sd = np.sqrt(np.diagonal(exactly.covariances, axis1=1, axis2=2))[1:]  # the velocity is unknown at first
        assert np.max(np.abs(laws.means[1:] - exactly.means[1:]) / sd) < 0.05
        np.testing.assert_allclose(np.sqrt(np.diagonal(laws.covariances, axis1=1, axis2=2))[2:], sd[1:], rtol=0.02)
    np.testing.assert_allclose(found.log_evidence, truth.log_evidence, rtol=1e-4)


@in_time_slow
def test_gradients_reach_every_field(how, x64):
    """Against central differences, along one random direction in each field."""
    model, y = CASES["holes"]()
    gradient = jax.grad(lambda m: FILTERS[how](m, y).log_evidence)(model)
    rng = np.random.default_rng(0)
    leaves, treedef = jax.tree.flatten(model)
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        way = rng.normal(size=leaf.shape)
        way = way + way.T if leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1] else way

        def along(h, i=i, way=way):
            return FILTERS[how](jax.tree.unflatten(treedef, [*leaves[:i], leaves[i] + h * way, *leaves[i + 1 :]]), y)

        numeric = (along(1e-5).log_evidence - along(-1e-5).log_evidence) / 2e-5
        np.testing.assert_allclose(jnp.sum(slope * way), numeric, rtol=1e-6, atol=1e-7)


@in_time_slow
def test_gradients_are_finite_where_covariances_are_singular(how):
    model, y = CASES["singular"]()
    y = np.r_[y[:2], [[np.nan]]]
    slopes = jax.jit(jax.grad(lambda m: FILTERS[how](m, y).log_evidence + jnp.sum(SMOOTHERS[how](m, y).means)))(model)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(slopes))


@in_time
def test_models_side_by_side(how):
    """`vmap` over models, inside `jit`."""
    levels, noises = jnp.array([100.0, 1469.1, 9000.0]), jnp.array([9000.0, 15099.0, 100.0])
    starts = jax.vmap(lambda q, r: local_level(Gaussian(1000.0, 1e5), q, r))(levels, noises)
    together = jax.jit(jax.vmap(lambda m: FILTERS[how](m, NILE).log_evidence))(starts)
    pairs = zip(levels, noises, strict=True)
    apart = [FILTERS[how](local_level(Gaussian(1000.0, 1e5), q, r), NILE).log_evidence for q, r in pairs]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-5)


def test_beliefs_side_by_side():
    """As a Rao-Blackwellised particle filter has them: a belief, and a law, for each particle."""
    models = [random_model(seed, 2, 1) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *models)
    y = jnp.array([0.3])
    found, log_p = jax.jit(jax.vmap(lambda m: exact.update(exact.predict(m.initial, m.transition), m.observation, y)))(stacked)
    for i, m in enumerate(models):
        one, increment = exact.update(exact.predict(m.initial, m.transition), m.observation, y)
        np.testing.assert_allclose(found.mean[i], one.mean, rtol=1e-4)
        np.testing.assert_allclose(log_p[i], increment, rtol=1e-4)


def test_masked_arrays_have_missing_entries():
    y = np.ma.masked_array(NILE, mask=(np.arange(100) // 20) % 2 == 1)
    holes = np.where(y.mask, np.nan, NILE)
    model = local_level(Gaussian(1000.0, 1e5))
    found = exact.kalman_filter(model, y)
    assert np.array_equal(found.means, exact.kalman_filter(model, holes[:, None]).means)
    assert np.all(found.log_increments[20:40] == 0) and np.all(found.log_increments[:20] < 0)
    whole = np.ma.masked_array(NILE.astype(int), mask=y.mask)
    assert np.array_equal(found.means, exact.kalman_filter(model, whole).means)


def test_paths_have_the_law_of_the_dense_one():
    """Means and covariances of 20,000 paths, 65 numbers: 5 standard errors, a false alarm in some 20,000 seeds."""
    check_paths()


def check_paths():
    model, y = random_model(9, 2, 1, (4,)), data(9, 5, 1)
    truth, size = dense(model, y), 20_000
    keys = jax.random.split(jax.random.key(0), size)
    paths = np.asarray(jax.vmap(lambda key: exact.sample_kalman_path(key, model, y))(keys), float).reshape(size, -1)
    off = paths - truth.means.ravel()
    sd = np.sqrt(np.diagonal(truth.path_covariance))
    assert np.all(np.abs(off.mean(0)) < 5 * sd / np.sqrt(size))
    error = np.sqrt((np.outer(sd**2, sd**2) + truth.path_covariance**2) / size)
    assert np.all(np.abs(off.T @ off / size - truth.path_covariance) < 5 * error)


def test_what_does_not_vary_is_drawn_as_it_is():
    model, y = CASES["singular"]()
    path = exact.sample_kalman_path(jax.random.key(0), model, y)
    np.testing.assert_allclose(path[:, 0], y[:, 0], atol=2e-2)
    np.testing.assert_allclose(path[1:, 1], y[:-1, 0], atol=2e-2)


# -- planted bugs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch):
    """Replace a name in a module for one test, with nothing compiled kept from before or for later."""
    jax.clear_caches()
    yield lambda module, name, value: monkeypatch.setattr(module, name, value)
    monkeypatch.undo()
    jax.clear_caches()


def test_a_gain_without_the_transition_would_be_seen(planted):
    def without(belief, law):
        found = exact.reverse(belief, Affine(jnp.eye(len(belief.mean)), law.covariance, law.offset))
        return Affine(found.matrix, found.covariance, found.offset)

    planted(kalman, "reverse", without)
    with pytest.raises(AssertionError):
        check("in turn", "holes", TOLERANCE["float32"])
    with pytest.raises(AssertionError):
        check_paths()


def test_missing_entries_that_count_would_be_seen(planted):
    from inference.exact import linear_gaussian

    def counted(law, y, seen=linear_gaussian.seen):
        return *seen(law, y)[:2], len(y)

    planted(linear_gaussian, "seen", counted)
    with pytest.raises(AssertionError):
        check("in turn", "holes", TOLERANCE["float32"])


@pytest.mark.slow
def test_elements_combined_the_wrong_way_round_would_be_seen(planted):
    def wrong(i, j, combined=associative._combined):
        return combined(i, j)._replace(precision=i.precision)

    planted(associative, "_combined", wrong)
    with pytest.raises(AssertionError):
        check("parallel", "changing with time", TOLERANCE["float32"])


def test_noise_left_out_of_backward_laws_would_be_seen(planted):
    planted(kalman, "_spread", lambda covariance: jnp.diag(jnp.sqrt(jnp.diagonal(covariance))))
    with pytest.raises(AssertionError):
        check_paths()


# -- wrong use -----------------------------------------------------------------------------------------------------------


def plain(d=2, k=2, *, transition=None, observation=None):
    eye = jnp.eye
    return LinearGaussian(
        Gaussian(jnp.zeros(d), eye(d)), transition or Affine(eye(d), eye(d)), observation or Affine(eye(k, d), eye(k))
    )


def test_sentences_about_models():
    with pytest.raises(ValueError, match=r"the initial covariance must have shape \(2, 2\), but has \(3, 3\)"):
        LinearGaussian(Gaussian(jnp.zeros(2), jnp.eye(3)), plain().transition, plain().observation)
    led = r"\(2, 2\), or \(times, 2, 2\) where it changes with time, but has \(3, 3\)"
    with pytest.raises(ValueError, match=f"the matrix of the transition must have shape {led}"):
        plain(transition=Affine(jnp.eye(3), jnp.eye(2)))
    with pytest.raises(ValueError, match=r"the offset of the observation must have shape \(1,\)"):
        plain(k=1, observation=Affine(jnp.ones((1, 2)), 1.0, jnp.zeros(2)))


def test_sentences_about_data():
    with pytest.raises(ValueError, match=r"must have shape \(T, 2\).*They have shape \(5,\)"):
        exact.kalman_filter(plain(), np.zeros(5))
    with pytest.raises(ValueError, match=r"They have shape \(5, 3\)"):
        exact.associative_smoother(plain(), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"They have shape \(0, 1\)"):
        exact.kalman_smoother(plain(k=1), np.zeros((0, 1)))
    with pytest.raises(
        ValueError, match="the transition changes with time and is given for 4 times, but 6 observations need 5"
    ):
        exact.kalman_filter(random_model(1, 3, 2, (4,), (5,)), np.zeros((6, 2)))
    with pytest.raises(
        ValueError, match="the observation changes with time and is given for 5 times, but 6 observations need 6"
    ):
        exact.sample_kalman_path(jax.random.key(0), random_model(1, 3, 2, (), (5,)), np.zeros((6, 2)))
