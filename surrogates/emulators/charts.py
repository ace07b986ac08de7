"""Charts: the coordinates in which an input is written, chosen by what makes the runs predict each other best.

A voltage may be a straight line in one over a current, and hard to follow in the current itself: with the right chart a few
runs do what many cannot do without. A chart is increasing, carries the range [low, high] of an input onto [0, 1], and goes on
along its tangents beyond, so that it is finite and smooth everywhere.

```python
chart = Reciprocal(1.0, 10.0)
chart(2.0), chart.inverse(chart(2.0))            # 0.555..., 2.0
GaussianProcess(charts=Search())                 # one for each input, by leave-one-out nats
GaussianProcess(charts=Given(i0=Reciprocal.of))  # or as told; the others stay as they are
```
Laws: increasing; inverse(chart(x)) = x for every x; chart(low) = 0, chart(high) = 1.

Box and Cox, "An analysis of transformations", JRSS B 26, 1964; Snoek, Swersky, Zemel and Adams, "Input warping for Bayesian
optimization of non-stationary functions", ICML 2014; Gregory and Delbourgo, "Piecewise rational quadratic interpolation to
monotonic data", IMA Journal of Numerical Analysis 2, 1982.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from .kernels import namespace

Effect = Callable[[np.ndarray], np.ndarray]  # values of an input (k,) -> how much the outputs change between them (k - 1,)


class Chart(eqx.Module):
    """An increasing function of one input. A member says `form`, its `back` and its `slope` on [low, high]."""

    low: eqx.AbstractVar[Any]
    high: eqx.AbstractVar[Any]

    @abstractmethod
    def form(self, x: Any) -> Any:
        """An increasing function on [low, high], in any units."""

    @abstractmethod
    def back(self, u: Any) -> Any:
        """The inverse of `form`."""

    @abstractmethod
    def slope(self, x: Any) -> Any:
        """The derivative of `form`."""

    def __call__(self, x: Any) -> Any:
        """The coordinate of x."""
        at = namespace(x).clip(x, self.low, self.high)
        start, length = self._unit()
        return (self.form(at) - start + self.slope(at) * (x - at)) / length

    def inverse(self, u: Any) -> Any:
        """The x of a coordinate."""
        at = namespace(u).clip(u, 0.0, 1.0)
        start, length = self._unit()
        x = namespace(u).clip(self.back(start + length * at), self.low, self.high)
        return x + length * (u - at) / self.slope(x)

    def _unit(self) -> tuple[Any, Any]:
        start = self.form(self.low)
        return start, self.form(self.high) - start

    @classmethod
    @abstractmethod
    def of(cls, low: float, high: float, effect: Effect | None = None) -> "Chart | None":
        """The chart of this range, or None where it has none."""


class Identity(Chart):
    """x as it is."""

    low: Any
    high: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None) -> "Chart | None":
        return cls(low, high)

    def form(self, x: Any) -> Any:
        return x

    def back(self, u: Any) -> Any:
        return u

    def slope(self, x: Any) -> Any:
        return 0.0 * x + 1.0


class Log(Chart):
    """log x, of positive inputs."""

    low: Any
    high: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None) -> "Chart | None":
        return cls(low, high) if low > 0.0 else None

    def form(self, x: Any) -> Any:
        return namespace(x).log(x)

    def back(self, u: Any) -> Any:
        return namespace(u).exp(u)

    def slope(self, x: Any) -> Any:
        return 1.0 / x


class Reciprocal(Chart):
    """-1 / x, of positive inputs."""

    low: Any
    high: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None) -> "Chart | None":
        return cls(low, high) if low > 0.0 else None

    def form(self, x: Any) -> Any:
        return -1.0 / x

    def back(self, u: Any) -> Any:
        return -1.0 / u

    def slope(self, x: Any) -> Any:
        return 1.0 / x**2


class BoxCox(Chart):
    """(x^power - 1) / power, of positive inputs; the logarithm is its limit at power 0."""

    low: Any
    high: Any
    power: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None, *, power: float = 0.5) -> "Chart | None":
        return cls(low, high, power) if low > 0.0 else None

    def form(self, x: Any) -> Any:
        return (x**self.power - 1.0) / self.power

    def back(self, u: Any) -> Any:
        return (self.power * u + 1.0) ** (1.0 / self.power)

    def slope(self, x: Any) -> Any:
        return x ** (self.power - 1.0)


class Logit(Chart):
    """log (x - bottom) / (top - x): of shares 0 and 1; of other ranges, a twentieth beyond their ends."""

    low: Any
    high: Any
    bottom: Any
    top: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None) -> "Chart | None":
        if 0.0 < low and high < 1.0:
            return cls(low, high, 0.0, 1.0)
        more = 0.05 * (high - low)
        return cls(low, high, low - more, high + more)

    def form(self, x: Any) -> Any:
        return namespace(x).log((x - self.bottom) / (self.top - x))

    def back(self, u: Any) -> Any:
        return self.bottom + (self.top - self.bottom) / (1.0 + namespace(u).exp(-u))

    def slope(self, x: Any) -> Any:
        return 1.0 / (x - self.bottom) + 1.0 / (self.top - x)


class Monotone(Chart):
    """A smooth increasing curve through knots (rational quadratic between them).

    - `knots`, `heights`, `slopes`: (k,) each; the first two increasing, the slopes positive.

    `Monotone.of` lets it climb where the outputs change, so that in its coordinate they change evenly.
    """

    low: Any
    high: Any
    knots: Any
    heights: Any
    slopes: Any

    @classmethod
    def of(cls, low: float, high: float, effect: Effect | None = None, *, num: int = 8) -> "Chart | None":
        if effect is None:
            return None
        knots = np.linspace(low, high, num + 1)
        rises = np.maximum(np.asarray(effect(knots), np.float64), 0.0)
        if not rises.sum() > 0.0:
            return None
        rises = rises / rises.sum() + 0.1 / num  # nowhere flat
        steep = rises / np.diff(knots)
        inner = 2.0 * steep[1:] * steep[:-1] / (steep[1:] + steep[:-1])
        return cls(low, high, knots, np.concatenate([[0.0], np.cumsum(rises)]), np.concatenate([steep[:1], inner, steep[-1:]]))

    def _bin(self, where: Any, edges: Any) -> tuple[Any, ...]:
        """Of the pieces in which these numbers are: corners, width, mean slope, slopes at both ends."""
        xp = namespace(where)
        knots, heights, slopes = xp.asarray(self.knots), xp.asarray(self.heights), xp.asarray(self.slopes)
        i = xp.clip(xp.searchsorted(xp.asarray(edges), where, side="right") - 1, 0, len(knots) - 2)
        width, rise = knots[i + 1] - knots[i], heights[i + 1] - heights[i]
        return knots[i], heights[i], width, rise / width, slopes[i], slopes[i + 1]

    def form(self, x: Any) -> Any:
        x0, y0, width, mean, left, right = self._bin(x, self.knots)
        t = (x - x0) / width
        return y0 + width * mean * (mean * t**2 + left * t * (1.0 - t)) / (mean + (left + right - 2.0 * mean) * t * (1.0 - t))

    def back(self, u: Any) -> Any:
        x0, y0, width, mean, left, right = self._bin(u, self.heights)
        up, bend = (u - y0) / width, left + right - 2.0 * mean
        a, b, c = mean * (mean - left) + up * bend, mean * left - up * bend, -mean * up
        return x0 + width * 2.0 * c / (-b - namespace(u).sqrt(b**2 - 4.0 * a * c))

    def slope(self, x: Any) -> Any:
        x0, _, width, mean, left, right = self._bin(x, self.knots)
        t = (x - x0) / width
        s = 1.0 - t
        return mean**2 * (right * t**2 + 2.0 * mean * t * s + left * s**2) / (mean + (left + right - 2.0 * mean) * t * s) ** 2


class Charts(eqx.Module):
    """A chart for each input: x (..., d) -> u (..., d)."""

    charts: tuple[Chart, ...]

    def __call__(self, x: Any) -> Any:
        return namespace(x).stack([chart(x[..., i]) for i, chart in enumerate(self.charts)], -1)

    def inverse(self, u: Any) -> Any:
        """The inputs of coordinates (..., d)."""
        return namespace(u).stack([chart.inverse(u[..., i]) for i, chart in enumerate(self.charts)], -1)

    def put(self, i: int, chart: Chart) -> "Charts":
        """With another chart for input i."""
        return Charts((*self.charts[:i], chart, *self.charts[i + 1 :]))

    def __str__(self) -> str:
        return ", ".join(type(chart).__name__ for chart in self.charts)


def identities(low: np.ndarray, high: np.ndarray) -> Charts:
    """Every input as it is, from its range (d,) onto [0, 1]; what never varied keeps its unit."""
    return Charts(tuple(Identity(a, b if b > a else a + 1.0) for a, b in zip(low, high, strict=True)))


class Judged(NamedTuple):
    """What charts are worth: `nats`, over all runs together, and what the outputs do along an input, `effect(i)`."""

    nats: float
    effect: Callable[[int], Effect]


Judge = Callable[[Charts], Judged]
Maker = Callable[..., Chart | None]


class Charting(eqx.Module):
    """How charts are found."""

    @abstractmethod
    def choose(self, low: np.ndarray, high: np.ndarray, names: tuple[str, ...], judge: Judge) -> Charts:
        """A chart for each of the inputs, whose runs cover low to high, (d,) each."""


class Given(Charting):
    """Charts as told, by the name of the input; the others stay as they are.

    Example:
        `Given(i0=Reciprocal.of, D=Log.of)`
    """

    makers: dict[str, Maker]

    def __init__(self, **makers: Maker) -> None:
        self.makers = makers

    def choose(self, low: np.ndarray, high: np.ndarray, names: tuple[str, ...], judge: Judge) -> Charts:
        charts = identities(low, high)
        for name, make in self.makers.items():
            if name not in names:
                raise ValueError(f"Given: no input is called '{name}'; there are {', '.join(names)}.")
            i = names.index(name)
            chart = make(low[i], high[i])
            if chart is None:
                raise ValueError(
                    f"Given: the chart of '{name}' cannot be had on its range, {low[i]:.4g} to {high[i]:.4g}. Logarithms, "
                    "powers and reciprocals need positive inputs."
                )
            charts = charts.put(i, chart)
        return charts


class Search(Charting):
    """The chart of each input that lets runs predict each other best, one input after the other.

    - `candidates`: what is tried beside the input as it is, each a function (low, high, effect) -> chart or None.
    - `gain`: nats over all runs that another chart must bring.
    - `sweeps`: how often all inputs are gone through, at most.

    Example:
        `GaussianProcess(charts=Search(candidates=(Log.of, Reciprocal.of)))`
    """

    candidates: tuple[Maker, ...] = eqx.field(
        static=True,
        default=(Log.of, Reciprocal.of, partial(BoxCox.of, power=0.5), partial(BoxCox.of, power=2.0), Logit.of, Monotone.of),
    )
    gain: float = 2.0
    sweeps: int = 2

    def choose(self, low: np.ndarray, high: np.ndarray, names: tuple[str, ...], judge: Judge) -> Charts:
        charts = identities(low, high)
        best = judge(charts)
        for _ in range(self.sweeps):
            before = charts
            for i in map(int, np.flatnonzero(high > low)):
                effect = best.effect(i)
                tried = [make(low[i], high[i], effect) for make in (Identity.of, *self.candidates)]
                others = [charts.put(i, chart) for chart in tried if chart is not None and not _same(chart, charts.charts[i])]
                judged = [judge(other) for other in others]
                top = max(range(len(judged)), key=lambda j: judged[j].nats, default=None)
                if top is not None and judged[top].nats > best.nats + self.gain:
                    charts, best = others[top], judged[top]
            if charts is before:
                break
        return charts


def _same(one: Chart, other: Chart) -> bool:
    """Whether two charts of a range are the same; of curves through knots, whether both are such."""
    return type(one) is type(other) and getattr(one, "power", None) == getattr(other, "power", None)
