"""Ensembles of networks: what is known of their errors, and what has no influence on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from surrogates.emulators.charts import Given, Log, Search
from surrogates.emulators.ensemble import FOLDS, Ensemble, Law, hidden
from surrogates.emulators.runs import Runs

KEY = jax.random.key(0)
T = np.linspace(0.0, 1.0, 5)
FAMILY = Ensemble(members=8, width=24, steps=400)


def curves(x):
    """(n, 5) of x (n,)."""
    return np.sin(3.0 * np.asarray(x)[:, None] + T) * np.exp(-0.3 * np.asarray(x)[:, None])


def runs(num: int = 32, room: int = 32) -> Runs:
    x = np.linspace(0.0, 2.0, num)
    return Runs.of(x[:, None], curves(x), names=("a",)).room(room)


@pytest.fixture(scope="module")
def fitted():
    return FAMILY.fit(KEY, runs())


def test_between_runs_it_is_right_and_says_so(fitted):
    """Errors between runs are a tenth of the curves' spread at most, and two thirds of them or more within a deviation: the
    law of the error comes from fewer members, so it errs to the large side."""
    x = np.linspace(0.05, 1.95, 60)
    p = jax.vmap(fitted.predict)(jnp.asarray(x))
    error, sd = np.asarray(p.mean) - curves(x), np.sqrt(np.asarray(p.variance))
    assert np.sqrt(np.mean(error**2)) < 0.1 * curves(x).std()
    assert np.mean(np.abs(error) < sd) > 0.66
    assert np.median(sd) < 0.2  # so "says so" is not vacuous


def test_beyond_the_runs_it_spreads(fitted):
    near, far = (np.sqrt(fitted.predict(x).variance).max() for x in (1.0, 4.0))
    assert far > 5.0 * near
    assert bool(fitted.outside(4.0)) and not bool(fitted.outside(1.0))


def test_a_prediction_is_that_of_the_members(fitted):
    """Mean and covariance of the outputs, by hand."""
    said = np.asarray(fitted.members(0.7), np.float64)
    p = fitted.predict(0.7)
    np.testing.assert_allclose(p.mean, fitted.basis.decode(said.mean(0)), rtol=1e-5, atol=1e-6)
    a, b = np.asarray(fitted.spread), np.asarray(fitted.floor)
    inner = np.sqrt(np.outer(a, a)) * np.cov(said.T) + np.diag(b)
    vectors = np.asarray(fitted.basis.vectors)
    known = vectors.T @ inner @ vectors + np.diag(np.asarray(fitted.basis.residual))
    np.testing.assert_allclose(p.covariance, known, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(jax.jit(lambda e, x: e(x))(fitted, 0.7), p.mean, rtol=1e-5, atol=1e-6)


def test_its_slope_is_a_slope(fitted):
    by_hand = (fitted(0.705) - fitted(0.695)) / 0.01
    np.testing.assert_allclose(jax.jacfwd(fitted)(0.7), by_hand, atol=2e-3)


def test_a_run_is_hidden_from_one_member_in_four():
    here = np.array([0, 1, 2, 4, 5, 7, 8, 9, 10])
    shown = hidden(KEY, here, 12, 8)
    assert shown.shape == (8, 12) and not shown[:, [3, 6, 11]].any()
    assert (shown[:, here].sum(0) == 8 - 8 // FOLDS).all()
    assert (np.abs(shown.sum(1) - len(here) * (1 - 1 / FOLDS)) < 1).all()


def test_rows_without_a_run_have_no_influence(fitted):
    """Failed runs and empty room hold other numbers, and nothing changes, bit for bit."""
    some = runs(24, 32)
    garbage = some.y.at[24:].set(7.0)
    other = Runs(some.x.at[24:].set(0.3), garbage, some.here, some.names, some.shapes, some.tried)
    family = Ensemble(members=8, width=24, steps=3)
    one, two = (family.fit(KEY, r) for r in (some, other))
    assert jnp.array_equal(one(0.7), two(0.7)) and one.left_out.mean.shape == (32, 5)
    assert "24 runs, fitted" in one.report() and "8 members" in one.report() and "a Identity" in one.report()


def test_the_law_of_the_error_finds_what_made_the_errors():
    """Errors of variance 4 times that of three members, plus 0.01: found within 15% (2,000 rows; the deviation of either is
    about 4%, and of a ratio of variances with two degrees of freedom the law is not quite the likeliest)."""
    rng = np.random.default_rng(0)
    size = rng.gamma(2.0, 1.0, 4000)
    said = np.sqrt(size) * rng.standard_normal((12, 4000))
    apart = said.var(0, ddof=1)
    w = said.mean(0) + np.sqrt(4.0 * apart + 0.01) * rng.standard_normal(4000)
    law = Law.of(said[..., None], w[:, None], np.ones((12, 4000), bool))
    assert law.spread[0] == pytest.approx(4.0, rel=0.15)
    assert np.mean((law.w - law.mean) ** 2 / law.variance) == pytest.approx(1.0, abs=0.1)


def test_prior_functions_are_never_trained():
    """With no steps at all, a member is its own network and its prior function, whose scale counts."""
    still = {"members": 8, "width": 8, "steps": 1, "optimizer": optax.sgd(0.0)}
    plain, more = (Ensemble(scale=scale, **still).fit(KEY, runs()) for scale in (0.0, 2.0))
    z = jnp.array([2.0 * 0.7 / 2.0 - 1.0])
    prior = jnp.stack([jax.tree.map(lambda a, m=m: a[m], more.priors)(z) for m in range(8)])
    np.testing.assert_allclose(more.members(0.7) - plain.members(0.7), 2.0 * prior, atol=1e-5)


def test_charts_are_told():
    x = np.geomspace(0.1, 10.0, 16)
    family = Ensemble(members=8, width=8, steps=1, charts=Given(a=Log.of))
    assert "a Log" in family.fit(KEY, Runs.of(x[:, None], curves(x), names=("a",))).report()


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="members must be a multiple of 4 and at least 8"):
        Ensemble(members=6)
    with pytest.raises(ValueError, match="scale must be at least 0, got -1"):
        Ensemble(scale=-1)
    with pytest.raises(ValueError, match="needs at least 8 runs that did not fail, got 5"):
        FAMILY.fit(KEY, runs(5, 5))
    with pytest.raises(ValueError, match="charts are not searched for"):
        Ensemble(charts=Search()).fit(KEY, runs())
