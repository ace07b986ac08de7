"""Conformal: intervals around any prediction that hold as often as they say, from points that had no part in training.

```python
checked = Conformal.fit(Normalised(), (mean, sd), truth)           # of n points held out
low, high = checked.interval((new_mean, new_sd), level=0.9)
```
A *score* says how far a truth lies from its prediction. Scores of n points held out and of a fresh one are exchangeable, so
the fresh one is equally likely to have any of n + 1 places among them (split conformal prediction; Vovk, Gammerman and Shafer,
2005; Lei et al., JASA 113, 2018):

    P(score <= S_(k)) >= k / (n + 1),         with equality where no two scores are the same,

and k = ceil((n + 1) level) is the least that will do. That holds for every n and any law of errors, on average over points;
not at every single point. The points held out must be like those to come: draws of the posterior for an emulator that is used
there, not a design over the prior. For several points at once see `batch_conformal.py`.
"""

import math
from abc import abstractmethod

import equinox as eqx
import numpy as np

ROUNDING = 1e-9  # of (n + 1) x level, which may be a whole number but for rounding


def conformal_quantile(scores, level: float = 0.9) -> float:
    """The least of n scores (n,) that a fresh one does not exceed with probability `level`; infinite where n is too small.

    Ties are harmless: a fresh score that equals the quantile is within. What is NaN counts as infinite.

    Raises:
        ValueError: for scores that are not (n,), a level that is none.

    Example:
        `conformal_quantile([0.3, 1.2, 0.7, 0.1], level=0.6)` is 0.7: the third of four.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"conformal_quantile: expected scores (n,), got shape {scores.shape}.")
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise ValueError(f"conformal_quantile: level must lie between 0 and 1, got {level!r}.")
    place = math.ceil((len(scores) + 1) * level - ROUNDING)
    scores = np.sort(np.where(np.isnan(scores), np.inf, scores))
    return float(scores[place - 1]) if place <= len(scores) else math.inf


class Score(eqx.Module):
    """Abstract: how far truths lie from predictions, the larger the farther; and what lies no farther than a threshold.

    A truth is (n, *out). With several outputs the farthest counts, so that intervals hold for all outputs at once.
    """

    @abstractmethod
    def of(self, prediction, truth) -> np.ndarray:
        """The scores (n,) of truths (n, *out)."""

    @abstractmethod
    def within(self, prediction, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest truth, (n, *out), whose score is at most `threshold`."""


class Absolute(Score):
    """|truth - mean|, of a prediction `mean` (n, *out): intervals as wide everywhere."""

    def of(self, prediction, truth):
        (mean,) = _arrays("Absolute", "mean", (prediction,))
        return _farthest(np.abs(_like(truth, mean) - mean))

    def within(self, prediction, threshold):
        (mean,) = _arrays("Absolute", "mean", (prediction,))
        return mean - threshold, mean + threshold


class Normalised(Score):
    """|truth - mean| / sd, of a prediction `(mean, sd)`, each (n, *out): intervals as wide as the prediction says, times one
    factor."""

    def of(self, prediction, truth):
        mean, sd = self._positive(prediction)
        return _farthest(np.abs(_like(truth, mean) - mean) / sd)

    def within(self, prediction, threshold):
        mean, sd = self._positive(prediction)
        return mean - threshold * sd, mean + threshold * sd

    @staticmethod
    def _positive(prediction):
        mean, sd = _arrays("Normalised", "(mean, sd)", prediction)
        if not (sd > 0).all():
            raise ValueError("Normalised: every sd must be above 0; where a prediction is exact, add a nugget to it.")
        return mean, sd


class Quantiles(Score):
    """How far truths lie outside the central interval of draws (num, n, *out), below 0 inside: skewed and changing errors keep
    their shape. (Conformalised quantile regression; Romano, Patterson and Candes, NeurIPS 2019.)

    - `level`: of the draws' interval, best that which will be asked for.
    """

    level: float = 0.9

    def of(self, prediction, truth):
        low, high = self._ends(prediction)
        truth = _like(truth, low)
        return _farthest(np.maximum(low - truth, truth - high))

    def within(self, prediction, threshold):
        low, high = self._ends(prediction)
        return low - threshold, high + threshold

    def _ends(self, prediction):
        (draws,) = _arrays("Quantiles", "draws", (prediction,))
        if draws.ndim < 2:
            raise ValueError(f"Quantiles: expected draws (num, n, *out), got shape {draws.shape}.")
        low, high = np.quantile(draws, [0.5 - 0.5 * self.level, 0.5 + 0.5 * self.level], axis=0)
        return low, high


class Conformal(eqx.Module):
    """See the file's docstring; made by `Conformal.fit`.

    - `score`: what says how far; `scores` (n,): of the points held out, from small to large.
    """

    score: Score
    scores: np.ndarray

    @staticmethod
    def fit(score: Score, prediction, truth) -> "Conformal":
        """From predictions and truths (n, *out) of points held out; what a prediction is, the score says.

        Raises:
            ValueError: for a score that is none, truths of another shape than the predictions.

        Example:
            `Conformal.fit(Absolute(), mean, truth).interval(new_mean, level=0.9)`
        """
        if not isinstance(score, Score):
            got = f"the class {score.__name__}" if isinstance(score, type) else type(score).__name__
            raise ValueError(f"Conformal.fit: expected a score such as Absolute() or Normalised(), got {got}.")
        scores = np.asarray(score.of(prediction, truth))
        return Conformal(score, np.sort(np.where(np.isnan(scores), np.inf, scores)))

    def interval(self, prediction, *, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Where the truths of new predictions lie, each with probability `level`, (n, *out) and (n, *out); infinite where
        fewer than level / (1 - level) points were held out."""
        return self.score.within(prediction, conformal_quantile(self.scores, level))

    def p_value(self, prediction, truth) -> np.ndarray:
        """The share of scores, its own among them, that reach that of a truth, (n,): at most a with probability a."""
        beyond = len(self.scores) - np.searchsorted(self.scores, self.score.of(prediction, truth), side="left")
        return (beyond + 1) / (len(self.scores) + 1)

    def __repr__(self) -> str:
        return f"Conformal {type(self.score).__name__} scores of {len(self.scores)} points"


def _arrays(who: str, form: str, parts) -> tuple[np.ndarray, ...]:
    num = form.count(",") + 1
    if not isinstance(parts, tuple) or len(parts) != num:
        raise ValueError(f"{who}: a prediction is {form}, got {type(parts).__name__}.")
    arrays = tuple(np.asarray(part, float) for part in parts)
    if arrays[0].ndim == 0 or any(a.shape != arrays[0].shape for a in arrays):
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise ValueError(f"{who}: a prediction {form} needs arrays of one shape (n, *out), got {shapes}.")
    return arrays


def _like(truth, mean: np.ndarray) -> np.ndarray:
    truth = np.asarray(truth, float)
    if truth.shape != mean.shape:
        raise ValueError(f"Score.of: truths {truth.shape} and predictions {mean.shape} must have one shape (n, *out).")
    return truth


def _farthest(scores: np.ndarray) -> np.ndarray:
    return scores.reshape(len(scores), -1).max(axis=1)
