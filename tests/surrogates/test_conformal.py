"""Split conformal: exact places among scores, for any law, with ties and where there are too few; what each score is."""

import itertools

import numpy as np
import pytest

from surrogates.conformal import Absolute, Conformal, Normalised, Quantiles, conformal_quantile


@pytest.mark.parametrize("num", [4, 9, 10, 19, 60])
@pytest.mark.parametrize("level", [0.5, 0.55, 0.9, 0.95])
def test_coverage_is_exactly_a_whole_number_of_places(num, level):
    """Of n + 1 exchangeable scores each is the fresh one equally often: all n + 1 cases, counted."""
    pool = np.random.default_rng(0).exponential(size=num + 1)
    covered = sum(pool[i] <= conformal_quantile(np.delete(pool, i), level) for i in range(num + 1))
    least = int(np.ceil((num + 1) * level - 1e-9))
    assert covered == least  # num + 1 where the quantile is infinite
    assert covered / (num + 1) >= level - 1e-12 and (covered - 1) / (num + 1) < level  # no other place would do


def test_one_place_less_is_too_few():
    """A planted bug, the empirical quantile: of 10 scores the 9th covers 9 / 11."""
    pool = np.random.default_rng(1).normal(size=11)
    covered = [pool[i] <= np.sort(np.delete(pool, i))[int(np.ceil(10 * 0.9)) - 1] for i in range(11)]
    assert np.mean(covered) < 0.9 <= np.mean([pool[i] <= conformal_quantile(np.delete(pool, i), 0.9) for i in range(11)])


@pytest.mark.parametrize("pool", list(itertools.combinations_with_replacement([0.0, 1.0, 2.0], 5))[::3])
def test_ties_cover_at_least_as_often(pool):
    pool = np.array(pool)
    for level in (0.3, 0.5, 0.8):
        assert np.mean([pool[i] <= conformal_quantile(np.delete(pool, i), level) for i in range(5)]) >= level


def test_what_failed_is_infinitely_far():
    assert conformal_quantile([0.1, np.nan, 0.3], 0.5) == 0.3 and conformal_quantile([0.1, np.nan, 0.3], 0.75) == np.inf
    assert conformal_quantile([0.1, 0.3], 0.9) == np.inf


SCORES = ["absolute", "normalised", "quantiles"]


def case(name, rng, num, outputs=()):
    """A skewed truth whose spread changes, and a prediction of it that is wrong by a factor."""
    x = rng.uniform(0.5, 2.0, size=(num, *outputs))
    truth = x + 0.3 * x * (rng.exponential(size=x.shape) - 1.0)
    if name == "absolute":
        return Absolute(), x, truth
    if name == "normalised":
        return Normalised(), (x, 0.1 * x), truth
    return Quantiles(0.8), x + 0.2 * x * (rng.exponential(size=(99, *x.shape)) - 1.0), truth


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("outputs", [(), (2, 3)])
def test_coverage(name, outputs):
    """400 fits of 60 points with 20 fresh each: 55 of 61 places. The coverage of a fit is Beta(55, 6), so that its share of 20
    has variance 0.0014 + 0.0044, and the mean a standard deviation of 0.0038. All outputs at once."""
    rng, covered = np.random.default_rng(2), []
    for _ in range(400):
        score, prediction, truth = case(name, rng, 60, outputs)
        _, new, fresh = case(name, rng, 20, outputs)
        low, high = Conformal.fit(score, prediction, truth).interval(new, level=0.9)
        covered.append(((low <= fresh) & (fresh <= high)).reshape(20, -1).all(axis=1).mean())
    assert abs(np.mean(covered) - 55 / 61) < 4 * 0.0038


@pytest.mark.parametrize("name", SCORES)
def test_an_interval_is_where_the_p_value_is_large(name):
    rng = np.random.default_rng(3)
    checked = Conformal.fit(*case(name, rng, 40))
    _, new, fresh = case(name, rng, 50)
    low, high = checked.interval(new, level=0.9)
    np.testing.assert_array_equal((low <= fresh) & (fresh <= high), checked.p_value(new, fresh) > 0.1)


def test_p_values_are_uniform():
    """All cases of 12 exchangeable scores: each of the 12 values once."""
    pool = np.random.default_rng(4).normal(size=12)
    values = [
        Conformal.fit(Absolute(), np.zeros(11), np.delete(pool, i)).p_value(np.zeros(1), pool[i : i + 1]) for i in range(12)
    ]
    np.testing.assert_allclose(np.sort(np.concatenate(values)), np.arange(1, 13) / 12)


def test_normalised_intervals_follow_the_spread():
    rng = np.random.default_rng(5)
    score, prediction, truth = case("normalised", rng, 200)
    low, high = Conformal.fit(score, prediction, truth).interval(prediction)
    np.testing.assert_allclose((high - low) / prediction[1], (high - low)[0] / prediction[1][0])
    draws = case("quantiles", rng, 200)
    low, high = Conformal.fit(*draws).interval(draws[1])
    middle = np.median(draws[1], axis=0)
    assert np.mean(high - middle) > 1.5 * np.mean(middle - low)  # the skew of the draws is kept


@pytest.mark.parametrize(
    ("score", "prediction", "truth", "words"),
    [
        (Absolute, np.zeros(3), np.zeros(3), "got the class Absolute"),
        (Absolute(), np.zeros(3), np.zeros(4), r"truths \(4,\) and predictions \(3,\)"),
        (Absolute(), 1.0, np.zeros(4), r"arrays of one shape \(n, \*out\), got \(\)"),
        (Normalised(), np.zeros(3), np.zeros(3), r"a prediction is \(mean, sd\), got ndarray"),
        (Normalised(), (np.zeros(3), np.zeros(3)), np.zeros(3), "every sd must be above 0"),
        (Normalised(), (np.zeros(3), np.ones(2)), np.zeros(3), r"got \(3,\) and \(2,\)"),
        (Quantiles(), np.zeros(3), np.zeros(3), r"expected draws \(num, n, \*out\), got shape \(3,\)"),
    ],
)
def test_sentences(score, prediction, truth, words):
    with pytest.raises(ValueError, match=words):
        Conformal.fit(score, prediction, truth)


def test_other_sentences():
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1.0"):
        conformal_quantile([1.0], 1.0)
    with pytest.raises(ValueError, match=r"expected scores \(n,\), got shape \(0,\)"):
        conformal_quantile([])
    fitted = Conformal.fit(Absolute(), np.zeros(3), np.ones(3))
    assert repr(fitted) == "Conformal Absolute scores of 3 points"
