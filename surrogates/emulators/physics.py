"""Informed: an emulator that was never shown a run. A network learns the equations that the costly function solves.

    minimise   sum over equations of  mean over points of (residual / its size at the start)^2

Points, in time and space and among the parameters at once, are drawn anew in every step, on the device. What must hold
exactly, initial and boundary conditions and what is conserved, is built into `field`. Derivatives are forward-mode: `slope`.

```python
class Decay(Equations):                                          # u' = -k u, u(0) = 1
    coordinates, parameters = {"t": dist.Uniform(0.0, 1.0)}, {"k": dist.Uniform(0.5, 2.0)}
    def field(self, raw, t, k): return 1.0 + t * raw["u"]
    def residuals(self, field, t, k): return {"decay": slope(field)(t, k) + k * field(t, k)}
    def observed(self, field, k): return jax.vmap(lambda t: field(t, k))(TIMES)

emulator = Informed(Decay(), (Level(), Level())).fit(key)        # emulator(1.3): (100,), as the solver's
print(emulator.report())                                         # residuals at points that it has not seen, by level
```
Levels: each adds to the frozen sum of those before it a network that begins at zero, in units of the residuals that are left.
So the second learns what the first could not resolve, at its own scale.

Raissi, Perdikaris and Karniadakis, Journal of Computational Physics 378, 2019; hierarchies: Hassanaly et al., Journal of
Energy Storage 98, 2024, 113103; scales by residuals: Wang and Lai, Journal of Computational Physics 504, 2024, 112865.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import inference as inf
import ppl
from ppl import dist

from ..heads.head import count
from ..training import trained
from .emulator import Emulator, Family, Prediction
from .networks import Dense
from .runs import Runs

POINTS = 2048  # at which residuals are looked at
LEAST = 1e-3  # of an equation's first residual: below it counts as solved when levels are scaled


def slope(fn: Callable[..., Any], argnum: int = 0) -> Callable[..., Any]:
    """The derivative of a function of scalars by one of them, forward-mode: `slope(slope(u, 1), 1)` is u_xx of u(t, x).

    Example:
        `slope(jnp.sin)(0.0)` is 1.
    """

    def along(*args):
        def one(x):
            return fn(*args[:argnum], x, *args[argnum + 1 :])

        x = jnp.asarray(args[argnum], float)
        return jax.jvp(one, (x,), (jnp.ones_like(x),))[1]

    return along


class Equations(eqx.Module):
    """The contract: what a field obeys. Every argument is a scalar; coordinates come first, then parameters.

    - `coordinates`, `parameters`: for each a distribution, from which the points are drawn where equations are to hold.
      Arguments of the emulator are the parameters, in this order.
    """

    coordinates: eqx.AbstractVar[Mapping[str, dist.Distribution]]
    parameters: eqx.AbstractVar[Mapping[str, dist.Distribution]]

    def features(self, *point: Any) -> dict[str, Array]:
        """What the networks read at a point, by their names: a network with one output for each entry, (f,). By default one,
        `u`, which reads the point, each number centred and in units of its deviation."""
        laws = _laws(self).values()
        return {"u": jnp.stack([(x - law.mean) / jnp.sqrt(law.variance) for x, law in zip(point, laws, strict=True)])}

    @abstractmethod
    def field(self, raw: dict[str, Array], *point: Any) -> Any:
        """The field at a point, from what the networks say there, scalars by name; zeros from all is where training begins."""

    @abstractmethod
    def residuals(self, field: Callable[..., Any], *point: Any) -> dict[str, Array]:
        """By equation, what is left of it at a point: scalars, zero where it holds. `field` is a function of a point."""

    @abstractmethod
    def observed(self, field: Callable[..., Any], *parameters: Any) -> Array:
        """What the costly function returns (*out), of a field."""


class Level(eqx.Module):
    """A network of a hierarchy: `width` and `depth` of its hidden layers, tanh between; `steps` of training, `batch` points in
    each, `rate` of Adam, which falls to zero."""

    width: int = 32
    depth: int = 2
    steps: int = 2000
    batch: int = 256
    rate: float = 5e-3

    def __check_init__(self):
        for name in ("width", "depth", "steps"):
            count("Level", name, getattr(self, name))
        count("Level", "batch", self.batch, 2)


Nets = dict[str, Dense]
Levels = tuple[tuple[Array, Nets], ...]  # (scale, networks)


def _raw(levels: Levels, features: dict[str, Array]) -> dict[str, Array]:
    """What the levels say together."""
    said = {name: jnp.zeros((), x.dtype) for name, x in features.items()}
    for scale, nets in levels:
        said = {name: said[name] + scale * nets[name](features[name])[0] for name in said}
    return said


def _field(equations: Equations, levels: Levels) -> Callable[..., Any]:
    """The field that the levels say, as a function of a point."""
    return lambda *point: equations.field(_raw(levels, equations.features(*point)), *point)


def _laws(equations: Equations) -> dict[str, dist.Distribution]:
    return {**equations.coordinates, **equations.parameters}


class Stage(eqx.Module):
    """What a level is trained against: the equations, the frozen levels, its own scale, the residuals' sizes at its start."""

    equations: Equations
    below: Levels
    scale: Array
    sizes: dict[str, Array]


@inf.expectation
def agreement(stage, net):
    """Minus the squared residuals, in units of their sizes, at a point that is drawn now."""
    equations, levels = stage.equations, (*stage.below, (stage.scale, net))
    point = tuple(ppl.sample(name, law) for name, law in _laws(equations).items())
    left = equations.residuals(_field(equations, levels), *point)
    return -sum(jnp.square(x / stage.sizes[name]) for name, x in left.items())


class Sizes(NamedTuple):
    """Of residuals, by equation: root mean squares, and the largest."""

    rms: dict[str, Array]
    largest: dict[str, Array]


class Norms(NamedTuple):
    """What `report` of an informed emulator returns.

    - `equations`: their names. `residuals`: for each, its root mean square before training and after each level, at points
      that were not trained on; `largest`: for each, the largest at these points, at the end.
    - `scales`: of the levels' networks; `numbers`: how many each of them learned.
    - `error`: the root mean square over runs and outputs, where there were runs; else None.
    """

    equations: tuple[str, ...]
    residuals: tuple[tuple[float, ...], ...]
    largest: tuple[float, ...]
    scales: tuple[float, ...]
    numbers: tuple[int, ...]
    error: float | None

    def __str__(self) -> str:
        width = max(len("residual"), *map(len, self.equations))
        heads = ["before", *(f"level {i + 1}" for i in range(len(self.scales))), "largest"]
        lines = ["  ".join([f"{'residual':<{width}}", *(f"{head:>7}" for head in heads)])]
        for name, rms, most in zip(self.equations, self.residuals, self.largest, strict=True):
            lines.append("  ".join([f"{name:<{width}}", *(f"{x:7.1e}" for x in (*rms, most))]))
        learned = ", ".join(f"{num} at scale {scale:.1e}" for num, scale in zip(self.numbers, self.scales, strict=True))
        known = (
            "no runs, so its error is not known" if self.error is None else f"root mean square error at runs {self.error:.2e}"
        )
        return "\n".join([*lines, f"numbers learned: {learned}; {known}"])


class InformedEmulator(Emulator):
    """What `Informed` fits: the equations, and the levels that solve them.

    - `squared`: the mean square error at runs, (*out); None where there were none.
    """

    equations: Equations
    levels: Levels
    squared: Array | None
    norms: Norms = eqx.field(static=True)

    @staticmethod
    def untrained(equations: Equations) -> "InformedEmulator":
        """With no level: the field's form alone, which is where training begins."""
        return InformedEmulator(equations, (), None, Norms((), (), (), (), (), None))

    def field(self, *point: Any) -> Any:
        """The field at a point: coordinates, then parameters, scalars."""
        return _field(self.equations, self.levels)(*point)

    def residuals(self, *point: Any) -> dict[str, Array]:
        """By equation, what is left of it at a point."""
        return self.equations.residuals(self.field, *point)

    def __call__(self, *args: Any) -> Array:
        return self.equations.observed(self.field, *args)

    def predict(self, *args: Any) -> Prediction:
        """The mean, and the mean square error at the runs in `residual`: one for all arguments.

        Raises:
            ValueError: where it was fitted without runs, so that nothing is known of its error.
        """
        if self.squared is None:
            raise ValueError(
                "Informed: it was fitted without runs, so its error is not known. Give fit some runs, or take the mean, "
                "emulator(...), and correct."
            )
        mean = self(*args)
        return Prediction(mean, jnp.zeros((*mean.shape, 0), mean.dtype), self.squared)

    def outside(self, *args: Any) -> Array:
        laws = self.equations.parameters.values()
        return ~jnp.all(jnp.stack([_within(law, x) for law, x in zip(laws, args, strict=True)]))

    def report(self) -> Norms:
        return self.norms


class Informed(Family):
    """A physics-informed network, or a hierarchy of them. See the file's docstring.

    - `equations`: what it is to solve. `levels`: the networks, coarse to fine.
    - `optimizer`: an Optax transformation at its full rate, by default Adam at each level's `rate`.

    Raises:
        ValueError: where there is no level.
    """

    equations: Equations
    levels: tuple[Level, ...] = (Level(),)
    optimizer: Any = None

    def __check_init__(self):
        if not (isinstance(self.levels, tuple) and self.levels and all(isinstance(x, Level) for x in self.levels)):
            raise ValueError(f"Informed: levels must be a tuple such as (Level(), Level(width=64)), got {self.levels!r}.")
        if not isinstance(self.equations, Equations):
            raise ValueError(f"Informed: expected equations, an Equations, got {type(self.equations).__name__}.")

    def fit(self, key: Array, runs: Runs | None = None) -> "InformedEmulator":
        """Train. Runs, if there are any, teach it nothing: they tell how large its error is.

        Raises:
            ValueError: where runs have other arguments than the equations' parameters.
        """
        names = tuple(self.equations.parameters)
        if runs is not None and runs.shapes != ((),) * len(names):
            raise ValueError(
                f"Informed: the equations have the parameters {list(names)}, all scalars, and the runs the arguments "
                f"{dict(zip(runs.names, runs.shapes, strict=True))}. Give the equations those of the function, in its order."
            )
        key_points, key_run = jax.random.split(key)
        points = _points(self.equations, key_points)
        levels: Levels = ()
        seen = [_sizes(self.equations, levels, points)]
        for i, level in enumerate(self.levels):
            levels = (*levels, self._trained(jax.random.fold_in(key_run, i), level, levels, seen))
            seen.append(_sizes(self.equations, levels, points))
        squared = None if runs is None or not runs.num else _squared(self.equations, levels, runs)
        return InformedEmulator(self.equations, levels, squared, _norms(seen, levels, squared))

    def _trained(self, key, level: Level, below: Levels, seen: list[Sizes]) -> tuple[Array, Nets]:
        """One more level: its scale and its networks."""
        start, last = seen[0].rms, seen[-1].rms
        scale = jnp.sqrt(jnp.mean(jnp.stack([(last[name] / start[name]) ** 2 for name in start])))
        sizes = {name: jnp.maximum(last[name], LEAST * scale * start[name]) for name in start}
        key_net, key_run = jax.random.split(key)
        stage = Stage(self.equations, below, scale, sizes)
        optimizer = _adam(level.rate) if self.optimizer is None else self.optimizer
        nets, _ = trained(
            agreement, stage, _networks(self.equations, level, key_net), key=key_run, steps=level.steps, batch=level.batch,
            optimizer=optimizer, progress=False,
        )  # fmt: skip
        return scale, nets


def _points(equations: Equations, key: Array) -> tuple[Array, ...]:
    """`POINTS` points, an array for each coordinate and parameter."""
    laws = _laws(equations)
    return tuple(jnp.asarray(law.sample(jax.random.fold_in(key, i), (POINTS,))) for i, law in enumerate(laws.values()))


def _within(law: dist.Distribution, x: Any) -> Array:
    support: Any = law.support
    return jnp.asarray(support(x))


@eqx.filter_jit
def _sizes(equations: Equations, levels: Levels, points: tuple[Array, ...]) -> Sizes:
    left = jax.vmap(lambda *point: equations.residuals(_field(equations, levels), *point))(*points)
    rms = {name: jnp.sqrt(jnp.mean(x**2)) for name, x in left.items()}
    return Sizes(rms, {name: jnp.max(jnp.abs(x)) for name, x in left.items()})


@eqx.filter_jit
def _squared(equations: Equations, levels: Levels, runs: Runs) -> Array:
    """The mean square error at the runs, (*out)."""
    said = jax.vmap(lambda x: equations.observed(_field(equations, levels), *runs.unpack(x)))(runs.x)
    there = runs.here.reshape(-1, *[1] * (runs.y.ndim - 1))
    return jnp.sum(jnp.where(there, (said - runs.y) ** 2, 0.0), 0) / jnp.sum(runs.here)


def _norms(seen: list[Sizes], levels: Levels, squared: Array | None) -> Norms:
    names = tuple(seen[0].rms)
    return Norms(
        names,
        tuple(tuple(float(sizes.rms[name]) for sizes in seen) for name in names),
        tuple(float(seen[-1].largest[name]) for name in names),
        tuple(float(scale) for scale, _ in levels),
        tuple(sum(x.size for x in jax.tree.leaves(eqx.filter(nets, eqx.is_array))) for _, nets in levels),
        None if squared is None else float(np.sqrt(np.mean(squared))),
    )


def _networks(equations: Equations, level: Level, key: Array) -> Nets:
    """A network for each entry of the features; the last layers begin as zero, so a level begins as the levels below it."""
    shapes = jax.eval_shape(lambda *points: equations.features(*(x[0] for x in points)), *_points(equations, key))
    keys = jax.random.split(key, len(shapes))
    return {
        name: Dense.of(k, shape.shape[0], 1, width=level.width, depth=level.depth, zero=True)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


@cache  # one for a rate, so that what was compiled for it is found again
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)
