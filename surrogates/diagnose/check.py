"""What a check of an amortised posterior is: an object that looks at simulations and says p-values, and a sentence.

A new check is one file:

```python
class Finite(Check):
    def __call__(self, study, simulated, key):
        return Outcome("finite numbers", found, wanted, verdict, advice)
```
and `diagnose(..., checks=(*CHECKS, Finite()))`. P-values are of the hypothesis that the posterior is good enough in this
respect; for most checks: that it is exact.
"""

import abc
import dataclasses
import math

import equinox as eqx
import jax
import numpy as np

from inference.checks.verdict import Verdict

from .study import Simulated, Study


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a check found.

    - `check`: what it looks at; `found`, `wanted`: in words.
    - `verdict`: p-values by quantity, and the numbers (S,) they are of.
    - `advice`: what a failure means, and what to try. `details`: a line more.
    """

    check: str
    found: str
    wanted: str
    verdict: Verdict
    advice: str
    details: str = ""


class Check(eqx.Module):
    """See the file's docstring. Its fields are settings."""

    @abc.abstractmethod
    def __call__(self, study: Study, simulated: Simulated, key: jax.Array) -> Outcome:
        """Look at `simulated`; or ask the `study` for more simulations."""


def above(values: np.ndarray, limit: float) -> float:
    """A p-value that the mean of `values` (n,) is `limit` at most. Zero where some of them are not numbers, or infinite."""
    from scipy.stats import norm

    mean, error = mean_and_error(values)
    if not np.isfinite(mean):
        return 0.0
    return float(norm.sf((mean - limit) / error)) if error > 0.0 else float(mean <= limit)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of values (n,), and its standard error; NaN for both where not all are finite."""
    if not np.isfinite(values).all():
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def more_often(bad: np.ndarray, share: float) -> float:
    """A p-value that what happened in `bad` (n,) happens with probability `share` at most."""
    from scipy.stats import binom

    return float(binom.sf(int(bad.sum()) - 1, len(bad), share))


def said(mean: float, error: float) -> str:
    """A number with its standard error."""
    digits = max(0, 1 - math.floor(math.log10(error))) if 0.0 < error < math.inf else 3
    return f"{mean:.{digits}f} +- {error:.{digits}f}"


def smallest(p_values: dict[str, float]) -> str:
    """The worst of several quantities, in words."""
    name = min(p_values, key=lambda name: p_values[name])
    return f"{name} worst of {len(p_values)}" if len(p_values) > 1 else name
