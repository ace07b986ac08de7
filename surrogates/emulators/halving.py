"""Halving: which of several families of networks suits the runs, for little more than what training a few of them costs.

    of n families, each trained for steps 2^-r, r = log2 n rounded up: half go on, with twice the steps; one is trained in full

They are judged by nats of runs that they have not seen, which need no runs set aside. What learns slowest and is best in the
end may be lost on the way; that is the price. Every round costs about what one full training does.

```python
family = Halving.over(Ensemble(), width=(16, 64), depth=(1, 2, 3))      # six architectures
emulator = sur.emulate(program, "voltage", budget=60, key=key, family=family)
emulator.report()                                                       # the rounds, and the one that was chosen
```
Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016; Li, Jamieson,
DeSalvo, Rostamizadeh and Talwalkar, "Hyperband", JMLR 18, 2018.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array

from .accuracy import Report
from .emulator import Family, Known
from .runs import Runs


class Chosen(Known):
    """The emulator of the family that was chosen; `Halving.fit` makes it.

    - `family`: the one. `rounds`: of each, how many steps were made, and (name, nats) of every family that was in it.
    """

    family: Family = eqx.field(static=True)
    rounds: tuple[tuple[int, tuple[tuple[str, float], ...]], ...] = eqx.field(static=True)

    def report(self) -> Report:
        told = [f"{steps} steps: " + ", ".join(f"{name} {nats:.2f}" for name, nats in row) for steps, row in self.rounds]
        return Report("\n".join([str(self.emulator.report()), "nats of runs left out, by round:", *told]))


class Halving(Family):
    """The family; see the file's docstring.

    - `families`: two or more, each with `steps` of training, whose components and charts are the same: else their nats are
      of different things.

    Raises:
        ValueError: for fewer, for families that are not trained in steps, and for those that differ in their components.
    """

    families: tuple[Family, ...]

    def __check_init__(self):
        if not isinstance(self.families, tuple) or len(self.families) < 2:
            raise ValueError(
                "Halving: give a tuple of two families or more, such as Halving.over(Ensemble(), width=(16, 64))."
            )
        without = [type(family).__name__ for family in self.families if not isinstance(getattr(family, "steps", None), int)]
        if without:
            raise ValueError(f"Halving: {without[0]} is not trained in steps, so it cannot be tried for a few of them.")
        for name in ("components", "charts"):
            if any(
                repr(getattr(family, name, None)) != repr(getattr(self.families[0], name, None)) for family in self.families
            ):
                raise ValueError(f"Halving: the families must have the same {name}; their nats could not be compared.")

    @staticmethod
    def over(family: Family, **settings: Sequence[Any]) -> "Halving":
        """All combinations of settings of a family.

        Raises:
            ValueError: for a setting that the family does not have.

        Example:
            `Halving.over(Ensemble(), width=(16, 64), depth=(1, 2, 3))`
        """
        known = [field.name for field in dataclasses.fields(family)]
        for name in settings:
            if name not in known:
                raise ValueError(f"Halving: {type(family).__name__} has no setting '{name}'. It has {', '.join(known)}.")
        rows = itertools.product(*settings.values())
        return Halving(tuple(dataclasses.replace(family, **dict(zip(settings, row, strict=True))) for row in rows))

    def fit(self, key: Array, runs: Runs) -> Chosen:
        """The emulator of these runs, of the family that was left."""
        left, rounds = list(range(len(self.families))), []
        names = _names(self.families)
        for r in range(math.ceil(math.log2(len(left))), 0, -1):
            nats = {i: _nats(_shorter(self.families[i], 2.0**-r), jax.random.fold_in(key, i), runs) for i in left}
            steps = _shorter(self.families[left[0]], 2.0**-r).steps
            left = sorted(left, key=lambda i, nats=nats: -nats[i])
            rounds.append((steps, tuple((names[i], nats[i]) for i in left)))
            left = left[: (len(left) + 1) // 2]
        (best,) = left
        return Chosen(self.families[best].fit(jax.random.fold_in(key, best), runs), self.families[best], tuple(rounds))


def _shorter(family: Any, share: float) -> Any:
    """The family, trained for a share of its steps."""
    return dataclasses.replace(family, steps=max(1, round(share * family.steps)))


def _nats(family: Family, key: Array, runs: Runs) -> float:
    """Of runs left out; what diverged is the worst."""
    emulator: Any = family.fit(key, runs)
    nats = float(emulator.left_out.nats)
    return nats if np.isfinite(nats) else -math.inf


def _names(families: Sequence[Any]) -> list[str]:
    """Each by the settings in which they differ."""
    fields = {field.name for family in families for field in dataclasses.fields(family)}
    told = [{name: repr(getattr(family, name, None)) for name in sorted(fields)} for family in families]
    differ = [name for name in sorted(fields) if len({row[name] for row in told}) > 1]
    return [
        type(f).__name__ + "(" + ", ".join(f"{n}={row[n]}" for n in differ) + ")"
        for f, row in zip(families, told, strict=True)
    ]
