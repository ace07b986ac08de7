"""Components: exact where they are many enough, and honest about what they leave out."""

import numpy as np
import pytest

from surrogates.emulators.components import Principal, left_out


def outputs(n=12, m=20, seed=0):
    rng = np.random.default_rng(seed)
    return 3.0 + rng.normal(size=(n, 6)) @ (0.3 ** np.arange(6)[:, None] * rng.normal(size=(6, m)))


def test_encode_and_decode():
    y = outputs().reshape(12, 4, 5)
    basis = Principal(num=6).fit(y)
    w = basis.encode(y)
    np.testing.assert_allclose(basis.decode(w), y, atol=1e-12)
    np.testing.assert_allclose(w.T @ w / len(y), np.eye(6), atol=1e-9)  # uncorrelated, mean square 1
    np.testing.assert_allclose(basis.encode(y[3]), w[3], atol=1e-12)
    assert basis.residual.shape == (4, 5) and basis.num == 6


def test_the_residual_is_that_of_runs_left_out():
    """Against singular values of the other runs, run by run."""
    y = outputs()
    for p in (2, 4):
        miss = np.zeros_like(y)
        for i in range(len(y)):
            rest = np.delete(y, i, 0)
            vectors = np.linalg.svd(rest - rest.mean(0), full_matrices=False)[2][:p]
            off = y[i] - rest.mean(0)
            miss[i] = off - vectors.T @ (vectors @ off)
        np.testing.assert_allclose(Principal(num=p).fit(y).residual, np.mean(miss**2, 0), rtol=1e-8)


def test_a_few_curves_do_not_span_the_next():
    """Four curves lie in the span of three components, so within the runs nothing is left out; of the fifth something is."""
    y = np.random.default_rng(1).normal(size=(4, 2000))
    basis = Principal(num=3).fit(y)
    assert np.abs(basis.decode(basis.encode(y)) - y).max() < 1e-12
    # a random curve is as far from the span of others as its own variance, and the error of their mean: 1 + 1/3
    assert abs(basis.residual.mean() - 4 / 3) < 0.1  # 8000 squares: 0.03


def test_many_runs_are_left_out_by_folds():
    y = outputs(n=100)
    full, folds = (left_out(y[:n], 3) for n in (32, 100))
    assert full.shape == folds.shape == (20,) and 0.5 < folds.sum() / full.sum() < 2.0


def test_how_many():
    y = outputs()
    powers = np.linalg.svd(y - y.mean(0), compute_uv=False) ** 2
    for loss in (0.1, 1e-2, 1e-4):
        lost = 1.0 - np.cumsum(powers) / powers.sum()
        assert Principal(loss=loss).fit(y).num == np.argmax(lost <= loss) + 1
    assert Principal(most=2).fit(y).num == 2
    assert Principal().fit(np.ones((5, 3))).num == 1 and not Principal().fit(np.ones((5, 3))).residual.any()
    assert Principal().fit(y[:, 0]).num == 1  # one output: nothing is left out
    assert Principal().fit(y[:, 0]).residual == 0.0


def test_units_say_which_errors_count():
    """An output in thousands drowns the other, unless its unit is a thousand."""
    rng = np.random.default_rng(0)
    y = np.stack([1e3 * rng.normal(size=30), rng.normal(size=30)], -1)
    plain, unit = Principal(num=1).fit(y), Principal(num=1, unit=np.array([1e4, 1.0])).fit(y)
    assert abs(plain.vectors[0, 0]) > 500 and abs(unit.vectors[0, 1]) > 0.5
    np.testing.assert_allclose(unit.encode(unit.decode(np.array([[0.7]]))), [[0.7]])
    with pytest.raises(ValueError, match="unit must be positive"):
        Principal(unit=0.0)
