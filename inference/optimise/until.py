"""When an optimisation is done: rules that look at the values of the objective so far.

```python
inf.maximize(elbo, program | data, guide(phi), steps=100_000, until=inf.optimise.Stalled(), key=key)
```
A rule has one method, `reached(values)`: why to stop now, in a few words, or None. It is shown all values (steps,) when there
are 500, and then each time their number has grown by a tenth. So where a run stops follows from its values alone, not from the
machine or from interruptions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

FIRST, GROWTH = 500, 1.1  # steps at the first look, and from look to look


class Until(Protocol):
    """What `maximize(..., until=)` takes."""

    def reached(self, values: np.ndarray) -> str | None:
        """Why to stop after these values of the objective, (steps,); None: go on."""
        ...


@dataclass(frozen=True)
class Stalled:
    """Stop when the objective no longer rises: its mean over the last `share` of all steps is above that of as many before by
    less than `tolerance`, the standard error counted against it.

    `tolerance` is in the objective's own unit, nats for an ELBO. Errors are those of means of batches, so that neighbouring
    steps may be alike. Where the objective is noisy many steps are needed to know; the more were taken, the longer the means.
    """

    tolerance: float = 0.05
    share: float = 0.25
    batches: int = 10

    def __post_init__(self):
        if not self.tolerance > 0.0:
            raise ValueError(f"Stalled: tolerance must be positive, got {self.tolerance!r}.")
        if not 0.0 < self.share <= 0.5:
            raise ValueError(f"Stalled: share must lie in (0, 0.5], got {self.share!r}.")
        if self.batches < 2:
            raise ValueError(f"Stalled: batches must be at least 2, got {self.batches!r}.")

    def reached(self, values):
        values = values[np.isfinite(values)]
        length = int(len(values) * self.share) // self.batches * self.batches
        if length < self.batches:
            return None
        late, early = values[-length:], values[-2 * length : -length]
        errors = [np.std(np.mean(x.reshape(self.batches, -1), axis=1), ddof=1) / np.sqrt(self.batches) for x in (late, early)]
        rise, error = np.mean(late) - np.mean(early), float(np.hypot(*errors))
        if max(rise, 0.0) + error > self.tolerance:  # a fall is no sign that all is done
            return None
        return f"the objective rose by {rise:.2g} (standard error {error:.1g}) in the last {length} steps"


@dataclass(frozen=True)
class RelativeChange:
    """Stop when the mean of the last `window` values differs from that of as many before by less than `tolerance` of itself.

    (The rule of Kucukelbir, Tran, Ranganath, Gelman and Blei, JMLR 18, 2017, with means in place of medians of changes.)
    """

    tolerance: float = 0.001
    window: int = 500

    def __post_init__(self):
        if not self.tolerance > 0.0:
            raise ValueError(f"RelativeChange: tolerance must be positive, got {self.tolerance!r}.")
        if self.window < 1:
            raise ValueError(f"RelativeChange: window must be at least 1, got {self.window!r}.")

    def reached(self, values):
        values = values[np.isfinite(values)]
        if len(values) < 2 * self.window:
            return None
        late, early = np.mean(values[-self.window :]), np.mean(values[-2 * self.window : -self.window])
        change = abs(late - early) / max(abs(late), np.finfo(float).tiny)
        return None if change > self.tolerance else f"the objective changed by {change:.2g} of itself in {self.window} steps"


def looks(steps: int) -> Iterator[int]:
    """The numbers of steps, below `steps`, at which a rule looks: the same ones whatever `steps` is."""
    num = FIRST
    while num < steps:
        yield num
        num = int(np.ceil(num * GROWTH))
