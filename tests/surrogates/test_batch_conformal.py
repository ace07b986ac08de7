"""Batch conformal: the sweep against enumeration, coverage over all splits of small pools, and over many repetitions."""

import itertools
from math import ceil, comb

import numpy as np
import pytest

from surrogates import batch_conformal
from surrogates.batch_conformal import BatchStatistic, Expected, Observed, batch_bounds, batch_counts, half_normal, normal

MEAN5, MEDIAN5, LARGEST5 = BatchStatistic.mean(5), BatchStatistic.median(5), BatchStatistic.largest(5)
SMALL = [(6, 2), (5, 3), (4, 4)]
STATISTICS = {
    "mean": BatchStatistic.mean,
    "median": BatchStatistic.median,
    "largest": BatchStatistic.largest,
    "all but one": lambda m: BatchStatistic.all_but(1, m),
    "uneven": lambda m: BatchStatistic(tuple(float(w) for w in range(1, m + 1))),
}


def sequences(num, m):
    return np.array(list(itertools.combinations_with_replacement(range(num + 1), m)))


def pool(law, size, rng):
    draw = {"normal": rng.normal(size=size), "heavy": rng.standard_cauchy(size=size), "steps": np.arange(size) ** 3.0}[law]
    return draw + 1e-9 * rng.random(size)


# -- by enumeration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "m"), SMALL)
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("order", [Expected(), Expected(normal), Observed()], ids=["half-normal", "normal", "observed"])
@pytest.mark.parametrize("bound", [np.inf, 50.0])
def test_the_sweep_finds_what_enumeration_finds(num, m, name, order, bound):
    """Set, its probability, and the best sequence in it: every sequence looked at."""
    statistic, scores = STATISTICS[name](m), np.sort(np.random.default_rng(num).normal(size=num))
    weights, values = np.asarray(statistic.weights), np.append(scores, bound)
    terms = batch_conformal._terms(order, np.append(scores, bound if np.isfinite(bound) else scores[-1]), weights)
    every = sequences(num, m)
    totals = terms[np.arange(m), every].sum(axis=1).astype(float)
    reached = np.where(weights > 0, values[every], 0.0) @ weights
    totals[~np.isfinite(reached)] = np.inf
    for miss in (0.1, 0.3, 0.6):
        found = batch_bounds(scores, statistic, miss=(0.0, miss), order=order, bounds=(-np.inf, bound))
        most = np.sort(totals)[ceil(len(every) * (1.0 - miss) - 1e-9) - 1]
        if np.isinf(most):
            assert found.high == np.inf
        else:
            chosen = totals <= most
            assert found.high == pytest.approx(reached[chosen].max(), abs=1e-12)
            assert found.coverage == pytest.approx(chosen.mean(), abs=1e-12)


@pytest.mark.parametrize(("num", "m"), SMALL)
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("law", ["normal", "heavy", "steps"])
def test_coverage_over_all_splits(num, m, name, law):
    """Of n + m exchangeable scores, any m are the test's: all C(n + m, m) splits, counted. With an expected order, at least as
    often as its set of ranks: proved. With the observed, at least as often as asked for: conjectured, and so it is here."""
    statistic, rng = STATISTICS[name](m), np.random.default_rng(7)
    everyone = pool(law, num + m, rng)
    for order in (Expected(), Observed()):
        for miss in (0.2, 0.5):
            covered, least = [], []
            for test in itertools.combinations(range(num + m), m):
                found = batch_bounds(np.delete(everyone, test), statistic, miss=(0.0, miss), order=order)
                covered.append(bool(statistic(everyone[list(test)]) <= found.high + 1e-9))
                least.append(found.coverage)
            promised = least[0] if isinstance(order, Expected) else 1.0 - miss
            assert np.mean(covered) >= promised - 1e-12, (order, miss)


def test_a_bound_that_takes_no_step_up_fails_that():
    """A planted bug: S_(R_j), or S_(n) where R_j = 0, in place of S_(R_j + 1)."""
    everyone, num, m = np.arange(8.0), 5, 3
    order = sequences(num, m)
    covered = []
    for test in itertools.combinations(range(8), m):
        scores = np.delete(everyone, test)
        reached = np.sort(np.append(scores[0], scores)[order].mean(axis=1))
        covered.append(everyone[list(test)].mean() <= reached[ceil(0.8 * len(order)) - 1])
    assert np.mean(covered) < 0.8


@pytest.mark.parametrize("place", [1, 3, 5])
@pytest.mark.parametrize("num", [30, 100])
def test_one_place_is_negative_hypergeometric(num, place):
    """P(R_j <= r) by a sum of binomials; the bound is the score at the least rank that will do."""
    scores, statistic = np.random.default_rng(0).normal(size=num), BatchStatistic.all_but(5 - place, 5)
    chances = [comb(r + place - 1, r) * comb(num - r + 5 - place, num - r) / comb(num + 5, 5) for r in range(num + 1)]
    below = np.cumsum(chances)
    for miss in (0.02, 0.1, 0.5):
        found, rank = batch_bounds(scores, statistic, miss=(0.0, miss)), int(np.argmax(below >= 1 - miss - 1e-12))
        assert found.high == np.append(np.sort(scores), np.inf)[rank]
        assert found.coverage == pytest.approx(below[rank] if rank < num else 1.0, abs=1e-12)


@pytest.mark.parametrize(("num", "m"), SMALL)
@pytest.mark.parametrize("level", [0.5, 0.8])
def test_counts_hold_at_once_and_no_sharper_ones_would(num, m, level):
    """Over all splits the thresholds hold together exactly as often as they say."""
    everyone = np.random.default_rng(3).normal(size=num + m)
    held, found = [], None
    for test in itertools.combinations(range(num + m), m):
        found = batch_counts(np.delete(everyone, test), m, level=level)
        held.append((np.sort(everyone[list(test)]) <= found.thresholds).all())
        for value in everyone:
            assert not held[-1] or (everyone[list(test)] > value).sum() <= found.above(value)
    assert found is not None and found.coverage >= level
    assert np.mean(held) == pytest.approx(found.coverage, abs=1e-12)


def test_below_is_above_upside_down():
    scores = np.random.default_rng(1).normal(size=40)
    for order in (Expected(normal), Observed()):
        one = batch_bounds(scores, MEDIAN5, miss=(0.1, 0.1), order=order)
        other = batch_bounds(-scores, MEDIAN5, miss=(0.1, 0.1), order=order)
        assert one.low == -other.high and one.high == -other.low and one.coverage == other.coverage
        assert one.low < np.median(scores) < one.high
    assert batch_bounds(scores, MEDIAN5).low == -np.inf
    known = batch_bounds(np.abs(scores), MEAN5, miss=(0.5, 0.0), bounds=(0.0, 9.0), order=Observed())
    assert known.high == 9.0 and 0.0 < known.low < np.abs(scores).mean()


def test_statistics():
    scores = np.array([3.0, 1.0, 2.0, 10.0])
    assert BatchStatistic.mean(4)(scores) == 4.0 and BatchStatistic.median(4)(scores) == 2.5
    assert BatchStatistic.largest(4)(scores) == 10.0 and BatchStatistic.all_but(1, 4)(scores) == 3.0
    assert BatchStatistic.all_but(1, 4)(np.array([[1.0, 2.0, 3.0, np.inf]])) == [3.0]


def test_where_bounds_are_finite():
    """The largest of five lies beyond n scores with probability 5 / (n + 5): 45 are the fewest for 90 %."""
    scores = np.random.default_rng(2).exponential(size=45)
    assert batch_bounds(scores, LARGEST5).high == scores.max() and batch_bounds(scores, LARGEST5).coverage == pytest.approx(
        0.9
    )
    assert batch_bounds(scores[:44], LARGEST5).high == np.inf and batch_bounds(scores[:44], MEAN5).high == np.inf
    assert batch_bounds(scores[:44], MEDIAN5).high < np.inf
    assert batch_bounds(scores[:44], MEAN5, bounds=(0.0, 50.0)).high < 50.0


# -- by repetition ---------------------------------------------------------------------------------------------------------


def bonferroni(scores, bound=np.inf):
    """On each of five scores at a fifth of the miss: the largest, and so the median and the mean, are below it."""
    place = ceil((len(scores) + 1) * (1 - 0.1 / 5) - 1e-9)
    return np.sort(scores)[place - 1] if place <= len(scores) else bound


REPEATED = [
    (50, MEDIAN5, Expected(), "half-normal", 2000),
    (100, MEDIAN5, Expected(), "half-normal", 2000),
    (50, LARGEST5, Expected(), "half-normal", 2000),
    (98, LARGEST5, Expected(), "half-normal", 2000),
    (60, BatchStatistic.all_but(1, 5), Expected(), "half-normal", 2000),
    (100, BatchStatistic.all_but(1, 5), Expected(), "half-normal", 2000),
    (50, MEAN5, Observed(), "uniform", 500),
    (100, MEAN5, Observed(), "uniform", 500),
]


@pytest.mark.slow
@pytest.mark.parametrize(("num", "statistic", "order", "law", "repetitions"), REPEATED)
def test_coverage_over_repetitions(num, statistic, order, law, repetitions):
    """In [0.90, 0.93] at 90 %, and narrower than Bonferroni. With 20 test batches a repetition, standard errors are below
    0.002 at 2,000 repetitions, and of one place the coverage is known; below 0.004 at 500, where 0.914 is expected
    (`benchmarks/calibration.py` has 2,000 there)."""
    rng, covered, widths, found = np.random.default_rng(0), [], [], None
    bound = 1.0 if law == "uniform" else np.inf
    for _ in range(repetitions):
        draws = rng.uniform(size=num + 100) if law == "uniform" else np.abs(rng.normal(size=num + 100))
        found = batch_bounds(draws[:num], statistic, order=order, bounds=(0.0, bound))
        covered.append((statistic(draws[num:].reshape(20, 5)) <= found.high).mean())
        widths.append((found.high, bonferroni(draws[:num], bound)))
    one_place = sum(w > 0 for w in statistic.weights) == 1
    exact = found.coverage if one_place and found is not None else np.mean(covered)
    assert 0.90 - 1e-9 <= exact <= 0.93 and abs(np.mean(covered) - exact) < 4 * 0.002
    ours, theirs = np.transpose(widths)
    assert (ours <= theirs).all()
    assert statistic == LARGEST5 and num == 50 or np.mean(ours) < 0.97 * np.mean(theirs)


@pytest.mark.slow
def test_an_expected_order_covers_a_mean_more_often():
    """It holds for all laws, at a price: here 96 to 98 %, by a bound that is still a third narrower than Bonferroni's."""
    rng, covered, widths = np.random.default_rng(1), [], []
    for _ in range(300):
        draws = np.abs(rng.normal(size=100 + 500))
        found = batch_bounds(draws[:100], MEAN5)
        covered.append((MEAN5(draws[100:].reshape(100, 5)) <= found.high).mean())
        widths.append((found.high, bonferroni(draws[:100])))
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.mean(widths, axis=0)[0] < 0.67 * np.mean(widths, axis=0)[1]


# -- sentences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scores": [1.0, np.inf]}, "some that are not finite"),
        ({"scores": [[1.0]]}, r"got shape \(1, 1\)"),
        ({"statistic": 5}, "expected a statistic such as BatchStatistic.mean\\(5\\), got int"),
        ({"statistic": BatchStatistic((0.0, 0.0))}, "weights must be numbers of at least 0, not all 0"),
        ({"miss": (0.0, 0.0)}, "together between 0 and 1"),
        ({"miss": 0.1}, "together between 0 and 1, such as \\(0.0, 0.1\\), got 0.1"),
        ({"bounds": (0.0, 0.5)}, "scores reach from 0.1 to 1.2, out of bounds"),
        ({"order": Expected(lambda p: -half_normal(p))}, "quantiles \\(k,\\) that rise with them"),
        ({"order": Expected(lambda p: np.where(p > 0.9, np.inf, p))}, "finite quantiles"),
    ],
)
def test_what_bounds_refuse(given, words):
    with pytest.raises(ValueError, match=words):
        batch_bounds(**({"scores": np.linspace(0.1, 1.2, 30), "statistic": BatchStatistic.mean(2)} | given))


def test_what_the_others_refuse():
    with pytest.raises(ValueError, match="fewer than m = 3 scores can be left out, got 3"):
        BatchStatistic.all_but(3, 3)
    with pytest.raises(ValueError, match="mean: m must be a whole number of at least 1, got 0"):
        BatchStatistic.mean(0)
    with pytest.raises(ValueError, match=r"expected 5 scores in the last axis, got \(4,\)"):
        MEAN5(np.zeros(4))
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 1.0"):
        batch_counts([0.1, 0.2], 2, level=1.0)
