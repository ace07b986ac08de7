"""Batch conformal: bounds on what m test scores come to together: their mean, their median, the largest, all but two.

```python
bound = batch_bounds(scores, BatchStatistic.mean(5), miss=(0.0, 0.1))   # of n calibration scores
bound.high                                                              # the mean of 5 fresh ones, at most, at 90 %
batch_counts(scores, 5, level=0.9).above(2.0)                           # so many of 5 lie above 2, at most
```
No law of the scores is asked for, only that those of calibration and test are exchangeable. Three steps:

1. *Ranks are uniform.* Sort the n calibration scores, S_(1) <= ... <= S_(n), and the m test scores, T_(1) <= ... <= T_(m); R_j
   is how many calibration scores lie below T_(j). Which m of the n + m are the test's is a uniform choice, and each choice is
   one sequence 0 <= R_1 <= ... <= R_m <= n: all C(n + m, m) sequences are equally likely. (Ties are broken at random; what
   follows has weak inequalities and stays true.)
2. *A set of sequences that is fixed beforehand holds R with a known probability.* We take those of the smallest totals:

       h(R) = sum_j a_j(R_j) <= q,             a_j(r) = weight_j x the score expected at rank r,

   one term a place, so that sequences are counted by total in one sweep over places, last ranks and totals so far. (With
   a_j(r) = r, h is the statistic of Mann and Whitney.) A wrong expectation costs width, never coverage.
3. *A sequence bounds the statistic,* as T_(j) <= S_(R_j + 1); with the probability of the set:

       sum_j weight_j T_(j)  <=  max over the set of  sum_j weight_j S_(r_j + 1),

   and the best sequence is found by the same sweep, in which sums become maxima and products sums. Bounds from below are
   bounds from above on negative scores.

For a single place - median of an odd number, largest, all but so many - the set is R_j < k and nothing is lost: the bound is
S_(k), as for split conformal prediction, which is m = 1. For the mean, step 3 loses: the maximum looks for where the scores
lie farthest above what was expected. `Observed()` takes the calibration scores themselves for what is expected, so that the
maximum is the (1 - miss) quantile of the statistic over all sequences. Its set is not fixed beforehand, so step 2 does not
cover it. No violation was found (the tests enumerate small cases), but none is excluded: for m to infinity, and scores with a
known bound, it is the bound of Gaffke, and of Learned-Miller and Thomas, on the mean of a law, whose validity is a conjecture.
Take `Expected()`, the default, where a guarantee is needed.

Beyond S_(n) nothing is known, unless a bound on scores is. A largest test score lies there with probability m / (n + m): where
that is more than may be missed, the answer is infinite; where it is less, it uses up that much of what may be missed, and
light tails are covered more often than asked for. (Lee, Tchetgen Tchetgen and Dobriban, "Batch predictive inference",
arXiv:2409.13990. Wilks, Annals of Mathematical Statistics 13, 1942; Mann and Whitney, 18, 1947. Gaffke, Mathematical Methods
of Statistics 14, 2005; Learned-Miller and Thomas, arXiv:1905.06208.)
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import numpy as np
from scipy.special import ndtri
from scipy.stats import betabinom

ROUNDING = 1e-9  # what a sum of probabilities may lack
RESOLUTION, FINE = 1000, 4  # totals are whole numbers up to the first, or up to so many a calibration score


def half_normal(p: np.ndarray) -> np.ndarray:
    """The quantiles of |Z|, Z standard normal: what absolute errors are like."""
    return ndtri(0.5 + 0.5 * p)


def normal(p: np.ndarray) -> np.ndarray:
    """The quantiles of a standard normal: what signed errors are like."""
    return ndtri(p)


class BatchStatistic(NamedTuple):
    """sum_j weights[j] T_(j), of m test scores T_(1) <= ... <= T_(m), from small to large.

    - `weights` (m,): at least 0, not all 0.

    Example:
        `BatchStatistic((0.0, 0.0, 0.5, 0.5))` is the mean of the two larger of four.
    """

    weights: tuple[float, ...]

    @staticmethod
    def mean(m: int) -> "BatchStatistic":
        """The mean of m scores."""
        return BatchStatistic((1.0 / _whole("BatchStatistic.mean: m", m, 1),) * m)

    @staticmethod
    def median(m: int) -> "BatchStatistic":
        """The median of m scores; of an even number, the mean of the two in the middle."""
        weights = np.zeros(_whole("BatchStatistic.median: m", m, 1))
        weights[[(m - 1) // 2, m // 2]] = 0.5 if m % 2 == 0 else 1.0
        return BatchStatistic(tuple(weights.tolist()))

    @staticmethod
    def largest(m: int) -> "BatchStatistic":
        """The largest of m scores: a bound on it is one on all of them at once."""
        return BatchStatistic.all_but(0, m)

    @staticmethod
    def all_but(num: int, m: int) -> "BatchStatistic":
        """The largest of m scores without the `num` largest: a bound on it holds for all but `num` of them, at least."""
        m = _whole("BatchStatistic.all_but: m", m, 1)
        if _whole("BatchStatistic.all_but: num", num, 0) >= m:
            raise ValueError(f"BatchStatistic.all_but: fewer than m = {m} scores can be left out, got {num}.")
        return BatchStatistic((0.0,) * (m - num - 1) + (1.0,) + (0.0,) * num)

    def __call__(self, scores) -> np.ndarray:
        """The statistic of scores (..., m), in any order; (...)."""
        scores = np.sort(np.asarray(scores, float), axis=-1)
        if scores.shape[-1:] != (len(self.weights),):
            raise ValueError(f"BatchStatistic: expected {len(self.weights)} scores in the last axis, got {scores.shape}.")
        used = np.asarray(self.weights) > 0  # 0 x inf is 0 here
        return scores[..., used] @ np.asarray(self.weights)[used]


class Order(eqx.Module):
    """Abstract: which sequences of ranks come first, by the score that is expected at each rank."""

    @abstractmethod
    def expected(self, values: np.ndarray) -> np.ndarray:
        """Rising numbers (n + 1,), up to location and scale, for the upper ends `values` of the ranks 0 to n."""

    @abstractmethod
    def mirrored(self) -> "Order":
        """The same for negative scores."""


class Expected(Order):
    """A law guessed beforehand: `shape` takes probabilities to quantiles, up to location and scale, such as those of the
    errors in training. The bounds hold whatever the law is."""

    shape: Callable[[np.ndarray], np.ndarray] = half_normal

    def expected(self, values):
        return np.asarray(self.shape((np.arange(len(values)) + 1.0) / (len(values) + 1.0)), float)

    def mirrored(self):
        return Expected(lambda p: -np.asarray(self.shape(1.0 - p)))


class Observed(Order):
    """The calibration scores themselves: narrower; that the bounds hold is a conjecture, see the file's docstring."""

    def expected(self, values):
        return values

    def mirrored(self):
        return self


class BatchBound(NamedTuple):
    """Bounds `low` and `high` on the statistic, and the probability `coverage` of their sets of ranks: with the order
    `Expected`, or a statistic of one place, the bounds hold with at least that."""

    low: float
    high: float
    coverage: float


def batch_bounds(
    scores,
    statistic: BatchStatistic,
    *,
    miss: tuple[float, float] = (0.0, 0.1),
    order: Order = Expected(),  # noqa: B008
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> BatchBound:
    """Bounds on a statistic of m test scores, from n calibration scores (n,) that are exchangeable with them.

    - `miss`: the probability that the statistic may lie below them, and above; 0 where no bound is asked for.
    - `order`: which ranks are expected together; see the file's docstring.
    - `bounds`: between which every score must lie, where that is known.

    Without bounds on scores, n must be at least m (1 - miss) / miss for a finite bound on a mean or the largest.

    Raises:
        ValueError: for scores that are not finite or out of bounds, a statistic or a miss that is none.

    Example:
        `batch_bounds([0.3, 1.2, 0.7, 0.1], BatchStatistic.median(3), miss=(0.0, 0.2)).high`
    """
    scores = np.sort(_scores("batch_bounds", scores))
    weights, below_above = _weights(statistic), _missed(miss)
    if not (bounds[0] <= scores[0] and scores[-1] <= bounds[1]):
        raise ValueError(f"batch_bounds: scores reach from {scores[0]:g} to {scores[-1]:g}, out of bounds={bounds!r}.")
    low, missed_below = _upper(-scores[::-1], -bounds[0], weights[::-1], below_above[0], order.mirrored())
    high, missed_above = _upper(scores, bounds[1], weights, below_above[1], order)
    return BatchBound(-low, high, 1.0 - missed_below - missed_above)


def _upper(scores: np.ndarray, bound: float, weights: np.ndarray, miss: float, order: Order) -> tuple[float, float]:
    """A bound from above, and the probability that ranks lie outside its set."""
    num, m = len(scores), len(weights)
    if miss == 0.0:
        return float(bound * weights.sum()), 0.0
    # The last rank ends at the bound; without one, no score that weighs something may have it.
    values = np.append(scores, bound if np.isfinite(bound) else scores[-1])
    barred = (weights[:, None] > 0) & (np.arange(num + 1) == num) & ~np.isfinite(bound)
    terms = _terms(order, values, weights)
    inside = np.cumsum(_sweep(terms, np.where(barred, 0.0, _shares(num, m)), np.add, np.multiply, 0.0))
    if inside[-1] < 1.0 - miss - ROUNDING:
        return np.inf, 0.0
    most = int(np.argmax(inside >= 1.0 - miss - ROUNDING))
    best = _sweep(terms, np.where(barred, -np.inf, weights[:, None] * values), np.maximum, np.add, -np.inf)
    return float(best[: most + 1].max()), float(1.0 - inside[most])


class BatchCounts(NamedTuple):
    """`thresholds` (m,), from small to large: with probability `coverage`, at least j of the m test scores are at most
    `thresholds[j - 1]`, for all j at once."""

    thresholds: np.ndarray
    coverage: float

    def above(self, value: float) -> int:
        """The most of the m test scores that lie above `value`; for all values at once, so they may be chosen afterwards."""
        return int((self.thresholds > value).sum())


def batch_counts(scores, m: int, *, level: float = 0.9) -> BatchCounts:
    """How many of m test scores lie above a value, for all values at once, from n calibration scores (n,).

    T_(j) gets the threshold S_(k_j), infinite for k_j = n + 1, where k_j is the least for which R_j < k_j has a probability of
    b, the same for all places; and b is the least for which all hold at once with probability `level`, counted by the sweep of
    this file. Where the number of exceptions is fixed beforehand, `BatchStatistic.all_but` is sharper.

    Raises:
        ValueError: for a level that is none, scores that are not finite.

    Example:
        `batch_counts([0.3, 1.2, 0.7, 0.1], 2, level=0.6).above(1.0)`
    """
    scores, m = np.sort(_scores("batch_counts", scores)), _whole("batch_counts: m", m, 1)
    if isinstance(level, bool) or not isinstance(level, float) or not 0.0 < level < 1.0:
        raise ValueError(f"batch_counts: level must lie between 0 and 1, got {level!r}.")
    num, places = len(scores), np.arange(1, m + 1)[:, None]
    below = betabinom.cdf(np.arange(num + 1), num, places, m + 1 - places)  # P(R_j <= r), (m, n + 1)

    def joint(b: float) -> tuple[np.ndarray, float]:
        last = np.minimum((below < b - ROUNDING).sum(axis=1), num)
        gains = np.where(np.arange(num + 1) <= last[:, None], _shares(num, m), 0.0)
        return last, float(_sweep(np.zeros((m, num + 1), int), gains, np.add, np.multiply, 0.0).sum())

    candidates = np.unique(below)
    least, enough = 0, len(candidates) - 1  # by the last of them, all sequences are allowed
    while least < enough:
        middle = (least + enough) // 2
        least, enough = (least, middle) if joint(candidates[middle])[1] >= level - ROUNDING else (middle + 1, enough)
    last, coverage = joint(candidates[enough])
    return BatchCounts(np.append(scores, np.inf)[last], coverage)


def _sweep(terms: np.ndarray, gains: np.ndarray, join: np.ufunc, through: np.ufunc, nothing: float) -> np.ndarray:
    """Over all sequences r_1 <= ... <= r_m, by their total sum_j terms[j, r_j]: the join of what goes through gains[j, r_j].

    With (add, multiply, 0) a probability; with (maximum, add, -inf) the best sequence. (totals,)
    """
    size = int(terms.max(axis=1).sum()) + 1
    table = np.full((terms.shape[1], size), nothing)  # by the last rank and the total so far
    table[np.arange(len(table)), terms[0]] = gains[0]
    for term, gain in zip(terms[1:], gains[1:], strict=True):
        reached = join.accumulate(table, axis=0)  # by any last rank up to this one
        table = np.full_like(reached, nothing)
        for rank, step in enumerate(term):
            table[rank, step:] = reached[rank, : size - step]
        table = through(table, gain[:, None])
    return join.reduce(table, axis=0)


def _terms(order: Order, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """a_j(r), whole numbers from 0, (m, n + 1)."""
    if (weights > 0).sum() == 1:  # any rising numbers give the same sets
        return (weights > 0)[:, None] * np.arange(len(values))
    expected = order.expected(values)
    if expected.shape != values.shape or not np.isfinite(expected).all() or (np.diff(expected) < 0).any():
        raise ValueError("batch_bounds: the shape must take probabilities (k,) to finite quantiles (k,) that rise with them.")
    share = (expected - expected[0]) / max(np.ptp(expected), np.finfo(float).tiny)
    return np.rint(weights[:, None] / weights.sum() * share * max(RESOLUTION, FINE * len(values))).astype(int)


def _shares(num: int, m: int) -> np.ndarray:
    """One factor a place, (m, 1), whose product is the probability 1 / C(n + m, m) of a sequence."""
    places = np.arange(1.0, m + 1.0)[:, None]
    return places / (num + places)


def _weights(statistic) -> np.ndarray:
    if not isinstance(statistic, BatchStatistic):
        raise ValueError(f"batch_bounds: expected a statistic such as BatchStatistic.mean(5), got {type(statistic).__name__}.")
    weights = np.asarray(statistic.weights, float)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(f"batch_bounds: weights must be numbers of at least 0, not all 0, got {statistic.weights!r}.")
    return weights


def _missed(miss) -> tuple[float, float]:
    below, above = (float(x) for x in miss) if isinstance(miss, tuple) and len(miss) == 2 else (-1.0, -1.0)
    if not (below >= 0.0 and above >= 0.0 and 0.0 < below + above < 1.0):
        raise ValueError(
            "batch_bounds: miss must be the probabilities to miss below and above, together between 0 and 1, such as "
            f"(0.0, 0.1), got {miss!r}."
        )
    return below, above


def _whole(what: str, value, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def _scores(who: str, scores) -> np.ndarray:
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or len(scores) == 0 or not np.isfinite(scores).all():
        what = f"shape {scores.shape}" if scores.ndim != 1 or len(scores) == 0 else "some that are not finite"
        raise ValueError(f"{who}: expected calibration scores (n,), all finite, got {what}.")
    return scores
