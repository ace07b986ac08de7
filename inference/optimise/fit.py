"""Fit: what an optimisation found.

```python
fit["guide"]                  # an argument of the objective, with what was learned
fit.values                    # the objective at every step
print(fit)                    # its value, and which arguments were learned, of how many numbers
fit.plot()
fit.posterior                 # of an objective with a model and a guide: draws of the guide
```
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import numpy as np

import ppl
from ppl._errors import nearest
from ppl._keys import check_key, fold_name

from ..posterior import Posterior
from ..vi.approximation import posterior_of
from ..vi.expectation import Expectation

DRAWS = 1000


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Fit:
    """See the file's docstring.

    - `objective`: what was maximised.
    - `args`: its arguments by name, with the numbers that were learned.
    - `values`: (steps,), an estimate of the objective at every step; not finite where the step was left out.
    - `skipped`: how many steps were left out, because the objective or its gradient was not finite.
    - `provenance`: plain values: key, settings, versions, seconds, why it stopped.
    """

    objective: Expectation
    args: dict[str, Any]
    values: np.ndarray
    skipped: int
    key: jax.Array
    provenance: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.args:
            raise KeyError(f"the objective has no argument '{name}'.{nearest(name, self.args)}")
        return self.args[name]

    @property
    def value(self) -> float:
        """The objective at the end: the mean over the last tenth of the steps."""
        values = self.values[-max(1, len(self.values) // 10) :]
        return float(np.mean(values[np.isfinite(values)]))

    @cached_property
    def posterior(self) -> Posterior:
        """1000 draws of the argument `guide`, as a posterior of the argument `model`; see `draw` for more.

        Warns:
            SamplingWarning: where Pareto's k of its weights is above 0.7.
        """
        return self.draw(DRAWS)

    def draw(self, draws: int, *, key: jax.Array | None = None) -> Posterior:
        """So many draws of the guide, (1, draws), with Pareto's k, and the log evidence by importance.

        Raises:
            ValueError: for an objective without arguments called `model` and `guide`.
        """
        model, guide = self.args.get("model"), self.args.get("guide")
        if not (isinstance(model, ppl.Program) and isinstance(guide, ppl.Program | ppl.Generative)):
            raise ValueError(
                f"{self.objective.__name__} takes {', '.join(self.args)}: a posterior needs a program called model and one "
                "called guide. Draw from what was learned yourself: fit['...'].simulate(key)."
            )
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise ValueError(f"draw: draws must be a whole number of at least 1, got {draws!r}.")
        key = fold_name(self.key, "draws") if key is None else check_key(key, "draw")  # steps have numbers, not names
        assert key is not None
        return posterior_of(model, guide, key=key, draws=draws, made=self.provenance)

    def plot(self):
        """A matplotlib figure of the objective by step, and of its moving average."""
        import matplotlib.pyplot as plt

        values = np.where(np.isfinite(self.values), self.values, np.nan)
        window = max(1, len(values) // 50)
        figure, axes = plt.subplots(figsize=(7.0, 3.5), layout="constrained")
        axes.plot(values, color="0.8", linewidth=0.5)
        means = np.array([np.nanmean(values[i : i + window]) for i in range(0, len(values), window)])
        axes.plot(np.arange(len(means)) * window + window / 2, means, color="C0")
        low, high = np.nanquantile(values[len(values) // 10 :], [0.005, 0.999])
        axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
        axes.set_xlabel("step")
        axes.set_ylabel(self.objective.__name__)
        return figure

    def __repr__(self) -> str:
        stopped = self.provenance["stopped"]
        why = f"; stopped: {stopped}" if stopped else ""
        skipped = f", {self.skipped} of them left out" if self.skipped else ""
        learned = ", ".join(f"{name} ({num})" for name, num in self.provenance["learned"].items())
        return (
            f"Fit: {self.objective.__name__} {self.value:.4g} after {len(self.values)} steps{skipped}{why}; learned: {learned}"
        )
