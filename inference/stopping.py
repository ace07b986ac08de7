"""When to stop: rules that end a run as soon as its draws are good enough.

```python
inf.mcmc(program, inf.NUTS(), key=key, draws=100_000, until=inf.TargetESS(1000))
```

A rule has one method, `reached(posterior)`: why to stop now, in a few words, or None. It is shown the draws made so far
when every chain has 100 of them, and then each time their number has grown by a third: looking often would cost more than
it saves. Where a run stops follows from its draws alone, not from the machine or from interruptions.

Law: what a rule stops at is an estimate, and the run ends at the first look at which the estimate is high enough; so the
true value is, on average, a little below it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .findings import array_stats, spaced
from .scalars import names, tables

FIRST, GROWTH = 100, 4 / 3  # draws per chain at the first look, and from look to look


class Rule(Protocol):
    """What `mcmc(..., until=)` takes."""

    def reached(self, posterior: Any) -> str | None:
        """Why a run may stop with these draws; None: go on."""
        ...


@dataclass(frozen=True)
class TargetESS:
    """Stop when the worst scalar has an effective sample size of `target`, in bulk and in tails, and its R-hat is at most
    `rhat`: `mcmc(..., until=TargetESS(1000))`.

    All three are ArviZ's (Vehtari et al., Bayesian Analysis 16, 2021). Of more than 500 scalars, evenly spaced ones are
    looked at; those that never change are left out. A run that stops at an estimate stops a little early on average: ask
    for some 10% more than you need.

    Raises:
        ValueError: for a target that is not positive, or an R-hat below 1.
    """

    target: float
    rhat: float = 1.01

    def __post_init__(self):
        if not self.target > 0:
            raise ValueError(f"TargetESS: target must be a positive number of draws, got {self.target!r}.")
        if not self.rhat > 1:
            raise ValueError(f"TargetESS: rhat must be above 1, for example 1.01, got {self.rhat!r}.")

    def reached(self, posterior: Any) -> str | None:
        """The values reached, in words; None at the first scalar that has not reached them."""
        bulks, tails, rhats = [], [], []
        for _, table in tables(posterior.draws, spaced(len(names(posterior.draws)))):
            for x in np.moveaxis(table, 2, 0):
                if np.ptp(x) == 0:
                    continue
                rhats.append(self._stat("rhat", x))
                bulks.append(self._stat("ess", x, method="bulk"))
                tails.append(self._stat("ess", x, method="tail", prob=(0.05, 0.95)))
                if not (rhats[-1] <= self.rhat and bulks[-1] >= self.target and tails[-1] >= self.target):
                    return None  # NaN is not reached
        if not rhats:
            return None
        return (
            f"the smallest effective sizes are {min(bulks):.0f} (bulk) and {min(tails):.0f} (tail), the largest R-hat is "
            f"{max(rhats):.3f}"
        )

    @staticmethod
    def _stat(name: str, x: np.ndarray, **settings) -> float:
        return float(getattr(array_stats(), name)(x, chain_axis=0, draw_axis=1, **settings))


def looks(draws: int) -> Iterator[int]:
    """The numbers of draws, below `draws`, at which a rule looks: the same ones whatever `draws` is."""
    num = FIRST
    while num < draws:
        yield num
        num = int(np.ceil(num * GROWTH))
