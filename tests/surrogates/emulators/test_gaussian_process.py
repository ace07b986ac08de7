"""The Gaussian process: predictions against dense normals, leave-one-out against refits, room, transformations, sentences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import qmc

from surrogates.emulators import kriging
from surrogates.emulators.charts import Given, Log, Reciprocal, Search
from surrogates.emulators.components import Principal
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.kernels import Matern52
from surrogates.emulators.runs import Runs
from surrogates.emulators.trend import Linear, Quadratic

KEY = jax.random.key(0)
TIMES = np.linspace(0.0, 1.0, 7)
LOW, HIGH = np.array([0.5, 1.0]), np.array([4.0, 10.0])
PLAIN = GaussianProcess(charts=Given(), components=Principal(num=3))


def curve(a, b):
    return 3.0 * np.exp(-TIMES / b) + 0.2 / a + 0.1 * TIMES * b / a


def runs(num=16, seed=0):
    x = qmc.scale(qmc.Sobol(2, seed=seed).random(num), LOW, HIGH)
    return Runs.of(x, np.stack([curve(*row) for row in x]), names=("a", "b"))


def test_predictions_are_conditional_normals(x64):
    """Component by component, of a process with the fitted scales, by dense algebra; and then in outputs."""
    noise = 0.02 * np.random.default_rng(0).normal(size=runs().y.shape)  # a nugget, so that dense algebra keeps its digits
    r = Runs.of(runs().x, runs().y + noise, names=("a", "b"))
    family = GaussianProcess(charts=Given(a=Log.of), components=Principal(num=3), trend=Linear(), kernel=Matern52())
    emulator = family.fit(KEY, r)
    x = np.array([1.3, 4.4])
    prediction = emulator.predict(*x)
    u, v = emulator.charts(np.asarray(r.x)), emulator.charts(x)
    every = np.concatenate([u, v[None]])
    w = emulator.basis.encode(r.y)
    means, variances = [], []
    for c in range(3):
        s = jax.tree.map(lambda a, c=c: np.asarray(a)[c], emulator.solved)
        h = Linear()(every)
        k = (1 - s.share) * Matern52()(np.sum(((every[:, None] - every) / s.scales) ** 2, -1)) + s.share * np.eye(17)
        k = s.variance * (k + h @ h.T / kriging.VAGUE)
        gain = np.linalg.solve(k[:16, :16], k[:16, 16])
        means.append(gain @ w[:, c])
        variances.append(k[16, 16] - gain @ k[:16, 16])
    vectors = np.asarray(emulator.basis.vectors)
    # the vague prior of variance 1e8, over a nugget of 1e-3, costs the dense solution twelve digits of sixteen
    np.testing.assert_allclose(prediction.mean, emulator.basis.center + np.array(means) @ vectors, atol=5e-4)
    np.testing.assert_allclose(emulator.components(*x)[1], variances, rtol=0.02, atol=1e-6)
    covariance = vectors.T @ np.diag(emulator.components(*x)[1]) @ vectors + np.diag(emulator.basis.residual)
    np.testing.assert_allclose(prediction.covariance, covariance, atol=1e-14)
    np.testing.assert_allclose(prediction.variance, np.diag(covariance), atol=1e-14)
    np.testing.assert_allclose(emulator(*x), prediction.mean, atol=1e-12)


def test_leave_one_out_in_outputs(x64):
    """As a process that is refitted without the run, in the same components, says it: to 1e-8."""
    r = runs()
    emulator = PLAIN.fit(KEY, r)
    w, u = np.asarray(emulator.basis.encode(r.y)), np.asarray(emulator.points)
    at = np.concatenate(
        [np.log(emulator.solved.scales), np.log(emulator.solved.share / (1 - emulator.solved.share))[:, None]], 1
    )
    for i in (0, 7, 15):
        rest = np.delete(np.arange(16), i)
        mean, variance = [], []
        for c in range(3):
            data = kriging.Data(u[rest], np.ones((15, 1)), w[rest, c])
            other, _, _ = kriging.solve(PLAIN.kernel, data, at[c])
            mean.append(kriging.predicted(PLAIN.kernel, other, u[rest], u[i : i + 1], np.ones((1, 1)))[0])
            other = other._replace(variance=np.asarray(emulator.solved.variance)[c])
            variance.append(kriging.uncertainty(PLAIN.kernel, other, u[rest], u[i : i + 1], np.ones((1, 1)))[0])
        vectors = np.asarray(emulator.basis.vectors)
        np.testing.assert_allclose(emulator.left_out.mean[i], emulator.basis.center + np.array(mean) @ vectors, atol=1e-8)
        spread = np.sqrt(np.array(variance) @ vectors**2 + emulator.basis.residual)
        np.testing.assert_allclose(emulator.left_out.sd[i], spread, rtol=1e-6)


def test_a_smooth_function_is_followed_and_the_error_is_honest():
    emulator = GaussianProcess(charts=Given(a=Reciprocal.of)).fit(KEY, runs(32))
    fresh = runs(128, seed=1)
    prediction = jax.vmap(lambda x: emulator.predict(*x))(fresh.x)
    z = np.asarray((prediction.mean - fresh.y) / jnp.sqrt(prediction.variance))
    rms = float(jnp.sqrt(jnp.mean((prediction.mean - fresh.y) ** 2)))
    assert rms < 0.02 * float(jnp.std(fresh.y, 0).mean()), rms
    assert np.mean(np.abs(z) < 1.96) > 0.85
    assert rms < 3.0 * float(jnp.sqrt(jnp.mean(emulator.accuracy.rms**2)))


def test_variances_are_raised_to_what_errors_are():
    """Of folds that the scales have not seen: with eight inputs, of which one matters, and few runs, scales are overfitted."""
    rng = np.random.default_rng(0)
    x = rng.random((40, 8))
    r = Runs.of(x, np.sin(6.0 * x[:, 0]) + 0.05 * rng.normal(size=40))
    plain, wider = (GaussianProcess(charts=Given(), folds=k).fit(KEY, r) for k in (0, 4))
    ratio = wider.solved.variance / plain.solved.variance
    assert 1.05 < ratio[0] < 4.0
    np.testing.assert_allclose(wider.left_out.sd**2, plain.left_out.sd**2 * ratio[0], rtol=1e-4)
    np.testing.assert_allclose(wider.left_out.mean, plain.left_out.mean, rtol=1e-5)
    assert GaussianProcess(charts=Given()).fit(KEY, Runs.of(x[:7], r.y[:7])).solved.variance > 0.0  # too few for folds


def test_the_search_finds_the_chart_of_one_over_x():
    x = np.geomspace(0.2, 4.0, 9)[:, None]
    r = Runs.of(x, 1.0 / x + 0.3 / x**2, names=("x",))
    found, plain = (GaussianProcess(charts=c).fit(KEY, r) for c in (Search(), Given()))
    assert type(found.charts.charts[0]) is Reciprocal
    assert found.left_out.nats > plain.left_out.nats + 0.5
    fresh = jnp.linspace(0.25, 3.9, 50)
    truth = 1.0 / fresh + 0.3 / fresh**2
    errors = [float(jnp.sqrt(jnp.mean((jax.vmap(e)(fresh)[:, 0] - truth) ** 2))) for e in (found, plain)]
    assert errors[0] < 0.2 * errors[1], errors


def test_room_and_failed_runs_have_no_influence():
    r = runs()
    roomy = r.room(24).add(np.array([[1.0, 2.0]]), np.full((1, 7), np.nan))
    garbage = eqx.tree_at(lambda r: (r.x, r.y), roomy, (roomy.x.at[17:].set(1e3), roomy.y.at[16:].set(-7e4)))
    one, other = PLAIN.fit(KEY, r), PLAIN.fit(KEY, garbage)
    np.testing.assert_allclose(one(1.0, 2.0), other(1.0, 2.0), rtol=1e-6)
    np.testing.assert_allclose(one.predict(1.0, 2.0).variance, other.predict(1.0, 2.0).variance, rtol=1e-3)
    np.testing.assert_allclose(one.left_out.mean, other.left_out.mean[:16], rtol=1e-6)
    assert not other.left_out.mean[16:].any() and (other.left_out.sd[16:] == 1.0).all()
    assert int(other.accuracy.failed) == 1 and "1 failed" in other.report()


def test_more_runs_compile_nothing_anew():
    traced = []

    @jax.jit
    def ask(emulator, x):
        traced.append(None)
        return emulator.predict(*x)

    r = runs().room(32)
    one = PLAIN.fit(KEY, r)
    two = PLAIN.refit(one, r.add(runs(8, seed=2).x, runs(8, seed=2).y), key=KEY)
    x = jnp.array([1.0, 2.0])
    ask(one, x), ask(two, x)
    assert len(traced) == 1
    error = [float(jnp.abs(e(1.0, 2.0) - curve(1.0, 2.0)).max()) for e in (one, two)]
    assert error[1] < error[0]


def test_transformations(precision):
    emulator = PLAIN.fit(KEY, runs())
    xs = jnp.asarray(runs(8, seed=3).x)
    plain = jnp.stack([emulator(*x) for x in xs])
    batched = jax.jit(jax.vmap(lambda x: emulator(*x)))(xs)
    assert batched.dtype == jnp.dtype(precision) and batched.shape == (8, 7)
    near = 2e-4 if precision == "float32" else 1e-10  # of weights up to 1e3, of which sums cancel
    np.testing.assert_allclose(batched, plain, atol=near)
    slope = jax.jacobian(lambda a: emulator(a, 4.0))(2.0)
    step = 1e-2
    around = (emulator(2.0 + step, 4.0) - emulator(2.0 - step, 4.0)) / (2 * step)
    np.testing.assert_allclose(slope, around, atol=1e-3 + near / step)
    assert jnp.isfinite(jax.grad(lambda a: jnp.sum(emulator.predict(a, 4.0).variance))(float(emulator.low[0])))
    matern = GaussianProcess(kernel=Matern52(), charts=Given(), components=Principal(num=1)).fit(KEY, runs())
    assert jnp.isfinite(jax.grad(lambda a: jnp.sum(matern(a, runs().x[0, 1])))(runs().x[0, 0]))  # at a run: distance zero
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), emulator)
    np.testing.assert_allclose(jax.vmap(lambda e: e(1.0, 2.0))(stacked)[1], emulator(1.0, 2.0), atol=near)


def test_outside():
    emulator = PLAIN.fit(KEY, runs())
    assert not emulator.outside(2.0, 5.0) and emulator.outside(2.0, 30.0) and emulator.outside(0.01, 5.0)
    assert jnp.isfinite(GaussianProcess(charts=Given(a=Log.of)).fit(KEY, runs())(-5.0, 2.0)).all()


def test_samples_have_the_covariance():
    emulator = PLAIN.fit(KEY, runs())
    p = emulator.predict(3.9, 1.2)
    p = p._replace(residual=p.residual + 1e-4)
    draws = np.asarray(jax.vmap(p.sample)(jax.random.split(KEY, 4000)), np.float64)
    sd = np.sqrt(np.diag(p.covariance))
    # correlations of 4000 draws: standard error 0.016; 49 of them, 4.5 of these
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), p.covariance / np.outer(sd, sd), atol=0.1)
    np.testing.assert_allclose(draws.mean(0), p.mean, atol=5 * sd.max() / np.sqrt(4000))


def test_subsets_shapes_and_the_report():
    """Scales from some runs, predictions from all; a scalar output; the report names what was chosen."""
    r = runs(64)
    scalar = Runs.of(r.x, r.y[:, 3], names=("a", "b"))
    emulator = GaussianProcess(most=20, charts=Given(b=Log.of)).fit(KEY, scalar)
    assert emulator(1.0, 2.0).shape == () and emulator.predict(1.0, 2.0).factor.shape == (1,)
    assert abs(emulator(1.0, 2.0) - curve(1.0, 2.0)[3]) < 0.02
    text = repr(emulator.report())
    for part in ("SquaredExponential", "64 runs", "R2 0.99", "95 % intervals cover", "a Identity, b Log"):
        assert part in text, text


def test_too_few_runs():
    with pytest.raises(ValueError, match="trend Quadratic needs at least 8 runs that did not fail, got 7. Make more runs"):
        GaussianProcess(trend=Quadratic()).fit(KEY, Runs.of(runs().x[:7], runs().y[:7]))
    with pytest.raises(ValueError, match=r"shapes \[\(\), \(\)\]"):
        PLAIN.fit(KEY, runs())(1.0)
