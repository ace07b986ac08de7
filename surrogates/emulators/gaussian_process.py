"""Gaussian process: an emulator with an error of its own for each input, exact, with a length scale for each input.

Outputs are written in components (`components.py`), inputs in charts (`charts.py`), and each component is a Gaussian process:
trend, kernel and nugget, fitted by maximal marginal likelihood on the host, in double precision (`kriging.py`).

```python
emulator = GaussianProcess().fit(key, runs)
emulator = GaussianProcess(charts=Given(i0=Reciprocal.of), components=Principal(8), trend=Linear()).fit(key, runs)
emulator.left_out.mean, emulator.left_out.sd         # of each run, without having seen it
print(emulator.report())
```
Law: what is left out is predicted as by a process refitted without it (scales, share, variance and components as they are, the
trend's coefficients estimated again).

Sacks, Welch, Mitchell and Wynn, "Design and analysis of computer experiments", Statistical Science 4, 1989; the components of
Higdon et al., JASA 103, 2008.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import kriging
from .accuracy import Accuracy, Report
from .charts import Charting, Charts, Judged, Search
from .components import Basis, Components, Principal
from .emulator import Emulator, Family, LeaveOneOut, Prediction
from .kernels import Kernel, SquaredExponential
from .kriging import Data, Solved
from .runs import Runs, Shapes, beyond, columns, pack
from .trend import Constant, Trend

LEAST = {"float64": 1e-10, "float32": 1e-6}  # shares of the nugget, by the precision in which predictions are made
JUDGED, JUDGED_RUNS, QUICK = 4, 150, 12  # charts are judged by so many components, of so many runs, after so many steps


class Process(Emulator):
    """A fitted Gaussian process; `GaussianProcess.fit` makes it.

    - `left_out`: what it says of each of its runs without having seen it; rows as in the runs.
    - `accuracy`: the same in few numbers.
    """

    charts: Charts
    kernel: Kernel
    trend: Trend
    basis: Basis
    points: Array  # (n, d), in charts; rows without a run have no weight
    solved: Solved  # each array with a leading axis of components
    low: Array  # (d,), of the inputs
    high: Array
    left_out: LeaveOneOut
    accuracy: Accuracy
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)
    below: Emulator | None = None  # a cheaper level, whose components are regressors too

    def __call__(self, *args: Any) -> Array:
        u, h, _ = self._regressors(args)
        return self.basis.decode(jax.vmap(lambda s, h: h @ s.beta + self._alike(s, u) @ s.alpha)(self.solved, h))

    def components(self, *args: Any) -> tuple[Array, Array]:
        """The means and variances (p,) of the components; their errors are independent."""
        u, h, variance = self._regressors(args)

        def one(solved: Solved, h: Array) -> tuple[Array, Array]:
            c = self._alike(solved, u)
            known, lack = solved.whiten @ c, solved.spread @ (h - c @ solved.lean)
            return h @ solved.beta + c @ solved.alpha, 1.0 - known @ known + lack @ lack

        mean, share = jax.vmap(one)(self.solved, h)
        return mean, self.solved.variance * jnp.maximum(share, self.solved.share) + variance

    def predict(self, *args: Any) -> Prediction:
        mean, variance = self.components(*args)
        factor = jnp.moveaxis(self.basis.vectors, 0, -1) * jnp.sqrt(variance)
        return Prediction(self.basis.decode(mean), factor, self.basis.residual)

    def outside(self, *args: Any) -> Array:
        return beyond(self.shapes, self.low, self.high, args)

    def report(self) -> Report:
        kinds = f"{type(self.kernel).__name__}, trend {type(self.trend).__name__}, {self.basis.num} components"
        return self.accuracy.report(f"Gaussian process: {kinds}", columns(self.names, self.shapes), self.charts.charts)

    def _alike(self, solved: Solved, u: Array) -> Array:
        return (1.0 - solved.share) * self.kernel(jnp.sum(((u - self.points) / solved.scales) ** 2, -1))

    def _regressors(self, args: tuple[Any, ...]) -> tuple[Array, Array, Any]:
        """The coordinates (d,), the regressors (p, q), and the variances (p,) that those of a level below bring."""
        u = self.charts(pack(self.shapes, *args))
        h = self.trend(u)
        h = jnp.broadcast_to(h, (self.basis.num, *h.shape))
        if self.below is None:
            return u, h, 0.0
        mean, variance = read(self.basis, self.below.predict(*args))
        return u, jnp.concatenate([h, mean[:, None]], -1), self.solved.beta[:, -1] ** 2 * variance


def read(basis: Basis, prediction: Prediction) -> tuple[Array, Array]:
    """A prediction's means and variances (p,) in the components of a basis."""
    reader = basis.reader.reshape(basis.num, -1)
    common = reader @ prediction.factor.reshape(reader.shape[1], -1)
    return basis.encode(prediction.mean), jnp.sum(common**2, -1) + reader**2 @ prediction.residual.ravel()


class GaussianProcess(Family):
    """The family; see the file's docstring.

    - `components`: how outputs become few numbers. `charts`: how inputs are written. `trend`, `kernel`: of each process.
    - `most`: scales are fitted to at most so many runs; predictions use all.
    - `steps`: of L-BFGS, at most, from each of two beginnings.
    - `folds`: fitted scales are too sure of themselves. So in each of so many folds they are fitted again to the other runs,
      and all variances are raised, by one factor, to what the errors there are; 0 leaves them.

    Example:
        `GaussianProcess(kernel=Matern52()).fit(jax.random.key(0), Runs.of(x, y))`
    """

    components: Components = Principal()
    charts: Charting = Search()
    trend: Trend = Constant()
    kernel: Kernel = SquaredExponential()
    most: int = 400
    steps: int = 60
    folds: int = 4

    def fit(self, key: Array, runs: Runs) -> Process:
        """The emulator of these runs.

        Raises:
            ValueError: where runs are fewer than the coefficients of the trend and two more.
        """
        return Fit(self, key, runs).process()

    def refit(self, emulator: Process, runs: Runs, *, key: Array, steps: int = 8) -> Process:
        """To other runs, such as more of them: in the charts of an emulator, and from its scales a few steps on."""
        return Fit(self, key, runs, below=emulator.below, like=emulator, steps=steps).process()


class Fit:
    """A fit in the making, on the host and in double precision."""

    def __init__(self, family: GaussianProcess, key: Array, runs: Runs, *, below=None, like=None, steps=None) -> None:
        self.began, self.family, self.runs, self.below = time.perf_counter(), family, runs, below
        self.like, self.steps = like, family.steps if steps is None else steps
        self.here = np.flatnonzero(np.asarray(runs.here))
        self.x, self.y = (np.asarray(a, np.float64)[self.here] for a in (runs.x, runs.y))
        n, need = len(self.x), family.trend(np.zeros(runs.x.shape[1])).shape[-1] + (below is not None) + 2
        if n < need:
            raise ValueError(
                f"GaussianProcess: its trend {type(family.trend).__name__} needs at least {need} runs that did not fail, got "
                f"{n}. Make more runs, or take a simpler trend."
            )
        self.basis = family.components.fit(self.y)
        self.w = self.basis.encode(self.y)
        self.some = np.asarray(jax.random.permutation(key, n))
        self.least = LEAST[str(jnp.result_type(float))]
        self.hint: list[np.ndarray] = []  # scales that the last charts had, as a beginning for the next

    def process(self) -> Process:
        """The emulator."""
        low, high = self.x.min(0), self.x.max(0)
        charts = self._charts(low, high)
        u, h = charts(self.x), self._regressors(charts, self.x)
        few = self.some[: self.family.most]
        solved, means, variances, ats = [], [], [], []
        for c in range(self.basis.num):
            data = Data(u, h[c], self.w[:, c])
            ats.append(self._climb(Data(*(a[few] for a in data)), self._begin(c), self.steps))
            found = kriging.solve(self.family.kernel, data, ats[-1])
            for row, part in zip((solved, means, variances), found, strict=True):
                row.append(part)
        wider = self._wider(u, h, ats)
        solved = [s._replace(variance=wider * s.variance) for s in solved]
        left_out = self._left_out(np.stack(means, -1), wider * np.stack(variances, -1))
        seconds = time.perf_counter() - self.began
        rows = LeaveOneOut(left_out.mean[self.here], left_out.sd[self.here], left_out.nats)
        tried = int(np.sum(np.asarray(self.runs.tried)))
        return Process(
            charts=_settled(charts),
            kernel=self.family.kernel,
            trend=self.family.trend,
            basis=_settled(self.basis),
            points=_settled(self._spread(u)),
            solved=_settled(self._roomy(solved)),
            low=_settled(low),
            high=_settled(high),
            left_out=_settled(left_out),
            accuracy=Accuracy.of(self.y, rows, failed=tried - len(self.x), seconds=seconds),
            names=self.runs.names,
            shapes=self.runs.shapes,
            below=self.below,
        )

    def _climb(self, data: Data, begin: list[np.ndarray], steps: int) -> np.ndarray:
        return kriging.climb(self.family.kernel, data, begin, least=self.least, steps=steps)

    def _wider(self, u: np.ndarray, h: np.ndarray, ats: list[np.ndarray]) -> float:
        """By how much variances are too small: mean squares of standardised errors, of folds that the scales have not seen."""
        few, num = self.some[: self.family.most], self.family.folds
        if num < 2 or len(few) < 2 * num or len(few) * (num - 1) < num * (h.shape[-1] + 2):
            return 1.0
        kernel, squares = self.family.kernel, []
        for fold in np.array_split(few, num):
            rest = np.setdiff1d(few, fold)
            for c, at in enumerate(ats):
                data = Data(u[rest], h[c][rest], self.w[rest, c])
                solved, _, _ = kriging.solve(kernel, data, self._climb(data, [at], QUICK))
                place = kernel, solved, u[rest], u[fold], h[c][fold]
                off = self.w[fold, c] - kriging.predicted(*place)
                squares.append(off**2 / kriging.uncertainty(*place))
        return max(1.0, float(np.mean(np.concatenate(squares))))

    def _begin(self, c: int) -> list[np.ndarray]:
        """Where component c's scales begin."""
        if self.like is None or c >= self.like.basis.num:
            return kriging.starts(self.x.shape[1])
        scales, share = (np.asarray(a, np.float64)[c] for a in (self.like.solved.scales, self.like.solved.share))
        return [np.append(np.log(scales), np.log(share) - np.log1p(-share))]

    def _regressors(self, charts: Charts, x: np.ndarray) -> np.ndarray:
        """(p, n, q)."""
        h = self.family.trend(charts(x))
        h = np.broadcast_to(h, (self.basis.num, *h.shape))
        if self.below is None:
            return h
        below, basis = self.below, _settled(self.basis)
        rows = jax.vmap(lambda row: read(basis, below.predict(*self.runs.unpack(row)))[0])(jnp.asarray(x, float))
        return np.concatenate([h, np.asarray(rows, np.float64).T[..., None]], -1)

    def _charts(self, low: np.ndarray, high: np.ndarray) -> Charts:
        if self.like is not None:
            return jax.tree.map(lambda a: np.asarray(a, np.float64), self.like.charts)
        return self.family.charts.choose(low, high, self.runs.columns, self._judge)

    def _judge(self, charts: Charts) -> Judged:
        """Charts by what the leading components of some runs say of runs left out."""
        few = self.some[: min(JUDGED_RUNS, self.family.most)]
        x = self.x[few]
        u, h = charts(x), self._regressors(charts, x)
        num, kernel = min(JUDGED, self.basis.num), self.family.kernel
        nats, ats, solved = 0.0, [], []
        for c in range(num):
            data = Data(u, h[c], self.w[few, c])
            begin = [self.hint[c]] if self.hint else kriging.starts(u.shape[1])
            ats.append(self._climb(data, begin, QUICK if self.hint else self.steps))
            found, mean, variance = kriging.solve(kernel, data, ats[-1])
            solved.append(found)
            nats += np.sum(_log_normal(data.w, mean, variance))
        self.hint = self.hint or ats
        sizes = np.sqrt(np.sum((self.basis.vectors / self.basis.unit) ** 2, tuple(range(1, self.basis.vectors.ndim))))

        def effect(i: int):
            def along(values: np.ndarray) -> np.ndarray:
                moved = np.repeat(x[None], len(values), 0)
                moved[..., i] = values[:, None]
                flat = moved.reshape(-1, x.shape[1])
                v, h = charts(flat), self._regressors(charts, flat)
                means = [kriging.predicted(kernel, s, u, v, h[c]).reshape(len(values), -1) for c, s in enumerate(solved)]
                steps = [sizes[c] ** 2 * np.mean(np.diff(mean, axis=0) ** 2, -1) for c, mean in enumerate(means)]
                return np.sqrt(np.sum(steps, 0))

            return along

        return Judged(float(nats), effect)

    def _left_out(self, mean: np.ndarray, variance: np.ndarray) -> LeaveOneOut:
        """Of the components' means and variances (n, p) the outputs'."""
        nats: Any = np.mean(np.sum(_log_normal(self.w, mean, variance), -1))
        spread = np.sqrt(np.tensordot(variance, self.basis.vectors**2, 1) + self.basis.residual)
        return LeaveOneOut(self._spread(self.basis.decode(mean)), self._spread(spread, 1.0), nats)

    def _spread(self, rows: np.ndarray, fill: float = 0.0) -> Any:
        """Rows of runs where the runs are."""
        out = np.full((len(self.runs.x), *rows.shape[1:]), fill)
        out[self.here] = rows
        return out

    def _roomy(self, solved: list[Solved]) -> Solved:
        """All components, with zeros where there is no run."""
        every = Solved(*(np.stack(arrays) for arrays in zip(*solved, strict=True)))
        alpha, lean = (np.stack([self._spread(a) for a in arrays]) for arrays in (every.alpha, every.lean))
        whiten = np.stack([self._spread(self._spread(a).T).T for a in every.whiten])
        return every._replace(alpha=alpha, lean=lean, whiten=whiten)


def _log_normal(w: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return -0.5 * ((w - mean) ** 2 / variance + np.log(2.0 * np.pi * variance))


def _settled(tree: Any) -> Any:
    """On the device, in the precision of the day."""
    return jax.tree.map(lambda a: jnp.asarray(a, float), tree)
