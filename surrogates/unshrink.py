"""Unshrink: predictions that may stand in for truths in what is computed from them.

```python
fix = LinearCalibration.fit(predictions, truths)                    # of a hold-out
fix = Tweedie.fit(predictions, fix.residual_variance)               # of many predictions; no truths needed
difference_of_means(fix, treated, control).estimate                 # of predictions, in two groups
```
A good predictor shrinks: E[y | x] varies less than y. Differences between groups, slopes and effects that are computed from
predictions shrink with it, by R^2 for a straight line; and no amount of data mends that. What is needed is a function phi of
the prediction with E[phi(prediction) | y] = y: then means of phi over any group are means of y, so long as the group changes
the prediction only through y.

*Linear calibration.* Where E[prediction | y] = a + slope y: phi = (prediction - a) / slope, both read off a hold-out. Where
that mean is curved, as for skewed laws, the line is right on the whole and not for every group: some of the shrinkage is left.

*Tweedie.* Where y = prediction + error, the error normal with variance s^2 and independent of the prediction, whose density is
p:

    phi(f) = f - s^2 (log p)'(f)

The sign is a minus: predictions are moved away from where they are dense. Proof: with the density q = p * N(0, s^2) of y,
Tweedie's formula for y as a noisy sight of f says E[f | y] q(y) = y q(y) + s^2 q'(y); and E[(log p)'(f) | y] q(y) = (p' *
N)(y) = q'(y). So E[phi(f) | y] = y, exactly, whatever p is. The scale s^2 is that of truths about predictions, E (y - f)^2 on
a hold-out, not that of predictions about truths. Where p is normal both ways are the same line.

Both are of the population that they were fitted in, and hold for groups out of it that were then changed, as by a treatment.
(Pettersson et al., "One map, many trials", arXiv:2508.01341; Efron, JASA 106, 2011, for Tweedie's formula.)
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np

GRID = 129  # points at which the score is kept
CENTRAL = 0.005  # of the predictions on either side are too few for a score: there it goes on as that of a normal law
LEAST = 20


class Unshrink(eqx.Module):
    """Abstract: a function of predictions (...) that is right on average given the truth, and how sure it is of itself."""

    @abstractmethod
    def __call__(self, predictions) -> np.ndarray:
        """Corrected predictions (...)."""

    @abstractmethod
    def own_variance(self, treated, control) -> float:
        """The variance of a difference of means that comes from the fit of this function."""


class LinearCalibration(Unshrink):
    """(prediction - intercept) / slope; see the file's docstring. Made by `LinearCalibration.fit`.

    - `intercept`, `slope`: of the line of predictions over truths; `slope_variance`: of its estimate.
    - `residual_variance`: E (truth - prediction)^2, which `Tweedie.fit` asks for.
    """

    intercept: float
    slope: float
    slope_variance: float
    residual_variance: float

    @staticmethod
    def fit(predictions, truths) -> "LinearCalibration":
        """From predictions and truths (n,) of a hold-out, by least squares of predictions on truths.

        Raises:
            ValueError: for other shapes, fewer than 20 points, and where predictions do not rise with truths.

        Example:
            `LinearCalibration.fit(predictions, truths)(new_predictions)`
        """
        f, y = _points("LinearCalibration.fit: predictions", predictions), _points("LinearCalibration.fit: truths", truths)
        if len(f) != len(y):
            raise ValueError(f"LinearCalibration.fit: one truth a prediction was expected, got {len(y)} for {len(f)}.")
        spread = ((y - y.mean()) ** 2).sum()
        slope = float(((y - y.mean()) * (f - f.mean())).sum() / spread) if spread > 0 else 0.0
        left = f - f.mean() - slope * (y - y.mean())
        variance = float((left**2).sum() / (len(f) - 2) / spread) if spread > 0 else 0.0
        if not slope > 3.0 * variance**0.5:
            raise ValueError(
                f"LinearCalibration.fit: predictions do not rise with truths (slope {slope:.3g}, standard error "
                f"{variance**0.5:.3g}), so they say nothing of them that could be calibrated."
            )
        return LinearCalibration(float(f.mean() - slope * y.mean()), slope, variance, float(np.mean((y - f) ** 2)))

    def __call__(self, predictions):
        return (np.asarray(predictions, float) - self.intercept) / self.slope

    def own_variance(self, treated, control):
        effect = np.mean(self(treated)) - np.mean(self(control))
        return float(effect**2 * self.slope_variance / self.slope**2)


class Tweedie(Unshrink):
    """prediction - variance x (log p)'(prediction); see the file's docstring. Made by `Tweedie.fit`.

    - `grid`, `score` (129,): predictions, and the slope of the log of their density there; `beyond`: its slope outside.
    - `variance`: s^2; `held_out`: the number of truths that it came from.
    """

    grid: np.ndarray
    score: np.ndarray
    beyond: float
    variance: float
    held_out: float

    @staticmethod
    def fit(predictions, variance: float, *, held_out: float = np.inf, bandwidth: float | None = None) -> "Tweedie":
        """From predictions (n,) of the population, and the variance of truths about them.

        - `variance`: E (truth - prediction)^2 on a hold-out, or what the predictor says of itself, where that is right.
        - `held_out`: the number of truths it came from, for `own_variance`; infinite where it is known.
        - `bandwidth`: of the kernels of which the density is made; by default Silverman's. Predictions are first drawn towards
          their mean, so that the density has their variance in spite of the kernels' own, without which the correction falls
          short by a share bandwidth^2 / variance of predictions.

        Raises:
            ValueError: for other shapes, fewer than 20 predictions, predictions that are all the same, a variance below 0.

        Example:
            `Tweedie.fit(predictions, np.mean((truths - held_out_predictions) ** 2))(new_predictions)`
        """
        f = _points("Tweedie.fit: predictions", predictions)
        if not (np.isfinite(variance) and variance >= 0.0):
            raise ValueError(f"Tweedie.fit: the variance of truths about predictions must be at least 0, got {variance!r}.")
        mean, sd = f.mean(), f.std()
        if sd == 0.0:
            raise ValueError("Tweedie.fit: all predictions are the same, so there is nothing to unshrink.")
        width = 1.06 * sd * len(f) ** -0.2 if bandwidth is None else float(bandwidth)
        if not 0.0 < width < sd:
            raise ValueError(
                f"Tweedie.fit: bandwidth must lie between 0 and the predictions' spread, {sd:.3g}, got {width!r}."
            )
        middles = mean + (f - mean) * np.sqrt(1.0 - (width / sd) ** 2)
        grid = np.linspace(np.quantile(f, CENTRAL), np.quantile(f, 1.0 - CENTRAL), GRID)
        away = (middles - grid[:, None]) / width
        kernels = np.exp(-0.5 * away**2)
        score = (kernels * away).sum(axis=1) / kernels.sum(axis=1) / width
        return Tweedie(grid, score, float(-1.0 / sd**2), float(variance), float(held_out))

    def __call__(self, predictions):
        f = np.asarray(predictions, float)
        return f - self.variance * self._score(f)

    def own_variance(self, treated, control):
        slope = np.mean(self._score(np.asarray(treated, float))) - np.mean(self._score(np.asarray(control, float)))
        return float(slope**2 * 2.0 * self.variance**2 / self.held_out)  # that of a mean of squares of normal errors

    def _score(self, f: np.ndarray) -> np.ndarray:
        inside = np.clip(f, self.grid[0], self.grid[-1])
        return np.interp(inside, self.grid, self.score) + self.beyond * (f - inside)


class Effect(NamedTuple):
    """An estimate, and its standard error: of the groups and of the correction together."""

    estimate: float
    standard_error: float

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """The estimate minus and plus z standard errors: by default, 95 %."""
        return self.estimate - z * self.standard_error, self.estimate + z * self.standard_error


def difference_of_means(fix: Unshrink, treated, control) -> Effect:
    """The mean truth of one group minus that of another, from predictions (n,) and (k,), both corrected by `fix`.

    Raises:
        ValueError: for other shapes, groups of fewer than 20.

    Example:
        `difference_of_means(LinearCalibration.fit(f, y), treated, control).interval()`
    """
    if not isinstance(fix, Unshrink):
        got = f"the class {fix.__name__}" if isinstance(fix, type) else type(fix).__name__
        raise ValueError(f"difference_of_means: expected a LinearCalibration or a Tweedie that was fitted, got {got}.")
    groups = _points("difference_of_means: treated", treated), _points("difference_of_means: control", control)
    one, other = (fix(group) for group in groups)
    variance = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other) + fix.own_variance(*groups)
    return Effect(float(one.mean() - other.mean()), float(np.sqrt(variance)))


def _points(what: str, values) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < LEAST or not np.isfinite(values).all():
        raise ValueError(f"{what} must be at least {LEAST} finite numbers (n,), got shape {values.shape}.")
    return values
