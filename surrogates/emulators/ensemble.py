"""Ensemble: networks that learn the same runs from different beginnings; where they disagree nobody knows the answer.

    member m says  net_m(x) + scale prior_m(x),    prior_m a random function that is never trained

Runs pull all members to one answer where there are runs. Elsewhere each keeps to its own prior function, so that they spread
even where trained networks alone would agree by habit. Outputs are written in components as a Gaussian process has them, whose
place it takes where runs are thousands, or the function is not alike everywhere.

```python
emulator = Ensemble().fit(key, runs)
emulator.predict(2.0, 3.0).variance          # from the members' spread
print(emulator.report())                     # errors of runs by the members that were not shown them
```
Each run is hidden from a quarter of the members. What these say of it, without having seen it, gives hold-out errors at no
extra cost, and fits the law of the error of each component: normal, of variance a times that of the members plus b. (It is a
little too large: fewer members, each of which saw less.)

Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS
2017; Osband, Aslanides and Cassirer, "Randomized prior functions for deep reinforcement learning", NeurIPS 2018; hidden runs:
Breiman, "Out-of-bag estimation", 1996.
"""

import time
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy.optimize import minimize

import inference as inf

from ..heads.head import count
from ..training import trained
from .accuracy import Accuracy, Report
from .charts import Charting, Charts, Given, Judged
from .components import Basis, Components, Principal
from .emulator import Emulator, Family, LeaveOneOut, Prediction
from .networks import Dense
from .runs import Runs, Shapes, beyond, columns, pack

FOLDS = 4  # a run is hidden from one in so many members
FLOOR = 1e-8  # of the variance of a component: what no member is thought to know better


class Told(eqx.Module):
    """What members learn from: runs at `z` (n, d) in [-1, 1], with components `w` (n, p), `shown` (members, n) to some; and
    the prior functions, of this scale."""

    z: Array
    w: Array
    shown: Array
    priors: Dense
    scale: float


def _said(nets: Dense, priors: Dense, scale: Any, z: Array) -> Array:
    """What the members say at z (d,): (members, p)."""
    return eqx.filter_vmap(lambda net, prior: net(z) + scale * prior(z))(nets, priors)


@inf.expectation
def likeness(told, net):
    """Minus the squares of the components' errors at the runs that are shown, by member and run."""
    said = jax.vmap(lambda z: _said(net, told.priors, told.scale, z), out_axes=1)(told.z)
    squares = jnp.mean((said - told.w) ** 2, -1)
    return -jnp.sum(jnp.where(told.shown, squares, 0.0)) / jnp.sum(told.shown)


class Committee(Emulator):
    """A fitted ensemble; `Ensemble.fit` makes it.

    - `spread`, `floor`: (p,) a and b of the law of the error, see the file's docstring.
    - `left_out`: what the members that were not shown a run say of it; rows as in the runs. `accuracy`: in few numbers.
    """

    charts: Charts
    basis: Basis
    nets: Dense  # arrays have a leading axis of members
    priors: Dense
    scale: float
    spread: Array
    floor: Array
    low: Array
    high: Array
    left_out: LeaveOneOut
    accuracy: Accuracy
    names: tuple[str, ...] = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)

    def members(self, *args: Any) -> Array:
        """What each member says, in components: (members, p)."""
        z = 2.0 * self.charts(pack(self.shapes, *args)) - 1.0
        return _said(self.nets, self.priors, self.scale, z)

    def __call__(self, *args: Any) -> Array:
        return self.basis.decode(jnp.mean(self.members(*args), 0))

    def predict(self, *args: Any) -> Prediction:
        said = self.members(*args)
        mean = jnp.mean(said, 0)
        apart = jnp.sqrt(self.spread / (len(said) - 1)) * (said - mean)
        rows = jnp.concatenate([apart, jnp.diag(jnp.sqrt(self.floor))])
        return Prediction(self.basis.decode(mean), jnp.tensordot(self.basis.vectors, rows, (0, 1)), self.basis.residual)

    def outside(self, *args: Any) -> Array:
        return beyond(self.shapes, self.low, self.high, args)

    def report(self) -> Report:
        kind = f"Ensemble: {len(self.nets.layers[0].weight)} members, {self.basis.num} components"
        return self.accuracy.report(kind, columns(self.names, self.shapes), self.charts.charts)


class Ensemble(Family):
    """The family; see the file's docstring.

    - `members`: how many, a multiple of 4. `width`, `depth`: of their hidden layers. `scale`: of the prior functions, to the
      standard deviation of a component.
    - `components`, `charts`: as of a Gaussian process; charts are told, not searched for.
    - `steps`, `rate`: of training, all runs in each step; `optimizer`: an Optax transformation at its full rate, by default
      Adam at `rate`.

    Raises:
        ValueError: for numbers of members that are no multiple of 4, and others that are not positive.

    Example:
        `Ensemble(members=8, charts=Given(D=Reciprocal.of)).fit(jax.random.key(0), runs)`
    """

    members: int = 16
    width: int = 64
    depth: int = 2
    scale: float = 1.0
    components: Components = Principal()
    charts: Charting = Given()
    steps: int = 2000
    rate: float = 1e-2
    optimizer: Any = None

    def __check_init__(self):
        for name in ("members", "width", "depth", "steps"):
            count("Ensemble", name, getattr(self, name))
        if self.members < 2 * FOLDS or self.members % FOLDS:
            raise ValueError(
                f"Ensemble: members must be a multiple of {FOLDS} and at least {2 * FOLDS}, since a run is hidden from one in "
                f"{FOLDS}; got {self.members}."
            )
        if not self.scale >= 0.0:
            raise ValueError(f"Ensemble: scale must be at least 0, got {self.scale!r}.")

    def fit(self, key: Array, runs: Runs) -> Committee:
        """The emulator of these runs.

        Raises:
            ValueError: for fewer than 8 runs that did not fail; for charts that are searched for.
        """
        began = time.perf_counter()
        here = np.flatnonzero(np.asarray(runs.here))
        if len(here) < 2 * FOLDS:
            raise ValueError(
                f"Ensemble: it needs at least {2 * FOLDS} runs that did not fail, got {len(here)}. Make more runs."
            )
        x, y = (np.asarray(a, np.float64)[here] for a in (runs.x, runs.y))
        low, high = x.min(0), x.max(0)
        charts, basis = self.charts.choose(low, high, runs.columns, _judge), self.components.fit(y)
        w = basis.encode(y)
        key_hide, key_net, key_prior, key_run = jax.random.split(key, 4)
        shown = hidden(key_hide, here, len(runs.x), self.members)
        priors = self._networks(key_prior, x.shape[1], basis.num)
        z, told_w = (jnp.asarray(_put(rows, here, len(runs.x)), float) for rows in (2.0 * charts(x) - 1.0, w))
        told = Told(z, told_w, jnp.asarray(shown), priors, float(self.scale))
        nets, _ = trained(
            likeness, told, self._networks(key_net, x.shape[1], basis.num), key=key_run, steps=self.steps, batch=1,
            optimizer=_adam(self.rate) if self.optimizer is None else self.optimizer, progress=False,
        )  # fmt: skip
        said = np.asarray(_at_runs(nets, told), np.float64)[:, here]
        law = Law.of(said, w, ~shown[:, here])
        left_out = law.left_out(basis)
        seconds = time.perf_counter() - began
        whole = left_out._replace(mean=_put(left_out.mean, here, len(runs.x)), sd=_put(left_out.sd, here, len(runs.x), 1.0))
        failed = int(np.sum(np.asarray(runs.tried))) - len(here)
        return Committee(
            nets=nets,
            priors=priors,
            scale=float(self.scale),
            accuracy=Accuracy.of(y, left_out, failed=failed, seconds=seconds),
            names=runs.names,
            shapes=runs.shapes,
            **{name: jax.tree.map(lambda a: jnp.asarray(a, float), part) for name, part in {
                "charts": charts, "basis": basis, "spread": law.spread, "floor": law.floor, "low": low, "high": high,
                "left_out": whole,
            }.items()},
        )  # fmt: skip

    def _networks(self, key: Array, num: int, out: int) -> Dense:
        """One for each member, arrays with a leading axis."""

        def one(key):
            return Dense.of(key, num, out, width=self.width, depth=self.depth)

        return eqx.filter_vmap(one)(jax.random.split(key, self.members))


class Law:
    """What is known of the error, from members that were not shown a run: `mean`, `variance` (n, p) of the components by the
    members that did not see them, after `spread` and `floor` (p,) were fitted to their errors."""

    def __init__(self, w: np.ndarray, mean: np.ndarray, apart: np.ndarray, spread: np.ndarray, floor: np.ndarray) -> None:
        self.w, self.mean, self.spread, self.floor = w, mean, spread, floor
        self.variance = spread * apart + floor

    @staticmethod
    def of(said: np.ndarray, w: np.ndarray, unseen: np.ndarray) -> "Law":
        """Of what members said (members, n, p) of components w (n, p), and where they were not shown them (members, n)."""
        weight = unseen[..., None] / unseen.sum(0)[:, None]
        mean = np.sum(weight * said, 0)
        num = unseen.sum(0)[:, None]
        apart = np.sum(weight * (said - mean) ** 2, 0) * num / (num - 1)
        fitted = [_fitted((mean - w)[:, c] ** 2, apart[:, c]) for c in range(w.shape[1])]
        return Law(w, mean, apart, *np.transpose(fitted))

    def left_out(self, basis: Basis) -> LeaveOneOut:
        """Of the runs: means and deviations of the outputs, nats in components."""
        nats = -0.5 * ((self.w - self.mean) ** 2 / self.variance + np.log(2.0 * np.pi * self.variance))
        sd = np.sqrt(np.tensordot(self.variance, basis.vectors**2, 1) + basis.residual)
        return LeaveOneOut(basis.decode(self.mean), sd, np.mean(np.sum(nats, -1)))


def _fitted(squares: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The a and b that make these squared errors (n,) likeliest, of normal laws with variances a `apart` + b."""
    size = max(float(np.mean(squares)), FLOOR)

    def cost(logs):
        variance = np.exp(logs[0]) * apart + np.exp(logs[1]) + FLOOR
        return np.mean(np.log(variance) + squares / variance)

    begin = np.log([size / max(float(np.mean(apart)), FLOOR), 0.1 * size])
    found = minimize(cost, begin, method="Nelder-Mead", bounds=[(-12.0, 12.0), (np.log(FLOOR), np.log(10.0 * size + FLOOR))])
    return np.exp(found.x) + np.array([0.0, FLOOR])


def hidden(key: Array, here: np.ndarray, rows: int, members: int) -> np.ndarray:
    """Which runs are shown, (members, rows): each of those `here` to three in four members, by chance which."""
    fold = np.full(rows, -1)
    fold[here] = np.asarray(jax.random.permutation(key, len(here))) % FOLDS
    return (fold >= 0) & (fold != np.arange(members)[:, None] % FOLDS)


@eqx.filter_jit
def _at_runs(nets: Dense, told: Told) -> Array:
    """(members, n, p)."""
    return jax.vmap(lambda z: _said(nets, told.priors, told.scale, z), out_axes=1)(told.z)


def _put(rows: Any, here: np.ndarray, num: int, fill: float = 0.0) -> Any:
    """Rows of runs among all rows."""
    out = np.full((num, *rows.shape[1:]), fill)
    out[here] = rows
    return out


def _judge(charts: Charts) -> Judged:
    raise ValueError(
        "Ensemble: charts are not searched for, since each would train all members. Give those that a GaussianProcess found, "
        "or Given(...)."
    )


@cache  # one for a rate, so that what was compiled for it is found again
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)
