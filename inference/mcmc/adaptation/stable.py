"""`UntilStable`: the warm-up ends when all chains have found the same place.

```python
inf.mcmc(program, inf.NUTS(), key=key)                                # at most 1000 steps, and as few as will do
inf.mcmc(program, inf.NUTS(), key=key, warmup=inf.UntilStable(5000))  # at most 5000
inf.mcmc(program, inf.NUTS(), key=key, warmup=1000)                   # 1000
```

The chains begin in different places, so where the second halves of their warm-ups agree, in the log density and in every
coordinate, they have forgotten where they began; and where these hold enough effective draws, the metric is learned. Where few
of the draws are effective, whatever their number, learning goes on. (Zhang, Gillespie, Bales and Vehtari, "Speed up population
Bayesian inference by combining cross-chain warmup and within-chain parallelization", 2020, whose rule looks at the log density
alone.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from ...findings import array_stats, spaced

FIRST, GROWTH = 200, 1.25  # steps before the first look, and from look to look
FINAL = 0.15  # the share of a warm-up that is left when it was found stable: there the step size is polished
DIVERGING = 0.01  # at most so many of the transitions looked at
MOST = 50  # coordinates looked at; of more, evenly spaced ones
CHAINS = 64  # chains looked at; of more, the first


@dataclass(frozen=True)
class UntilStable:
    """Warm up until the chains agree, for `most` steps at most: `mcmc(..., warmup=UntilStable(2000))`.

    - `rhat`: they agree where R-hat of the second half of the warm-up so far is at most this.
    - `ess`: and it holds at least so many effective draws, of all chains together,
    - `share`: and they are at least so large a share of its draws.

    All chains end their warm-up at the same step. One chain alone has none to agree with, and takes `most` steps. Placements
    differ by rounding, which after some hundred steps can show: the step may be another one there.

    Raises:
        ValueError: for `most` that is no positive whole number, an R-hat of at most 1, a negative `ess`, or a `share` that is
            not between 0 and 1.
    """

    most: int = 1000
    rhat: float = 1.03
    ess: float = 200.0
    share: float = 1 / 3

    def __post_init__(self):
        if isinstance(self.most, bool) or not isinstance(self.most, int | np.integer) or self.most < 1:
            raise ValueError(f"UntilStable: most must be a whole number of at least 1, got {self.most!r}.")
        if not self.rhat > 1:
            raise ValueError(f"UntilStable: rhat must be above 1, for example 1.03, got {self.rhat!r}.")
        if not self.ess >= 0:
            raise ValueError(f"UntilStable: ess must be a number of draws, 0 or more, got {self.ess!r}.")
        if not 0 <= self.share <= 1:
            raise ValueError(f"UntilStable: share must lie between 0 and 1, got {self.share!r}.")

    def looks(self) -> Iterator[tuple[int, int]]:
        """The steps at which to look, each with the length of a warm-up that is found stable there."""
        num = FIRST
        while (length := int(np.ceil((num + 1) / (1 - FINAL)))) < self.most:
            yield num, length
            num = int(np.ceil(num * GROWTH))

    def reached(self, positions, info) -> bool:
        """Whether chains with these positions (chain, step, dim) and statistics (chain, step) are stable."""
        positions, info = positions[:CHAINS], jax.tree.map(lambda x: x[:CHAINS], info)
        chains, steps, dim = positions.shape
        diverging = getattr(info, "diverging", np.zeros(steps))[..., steps // 2 :]
        if chains == 1 or np.mean(diverging) > DIVERGING:
            return False
        table = np.concatenate([info.lp[..., None], positions[..., spaced(dim, MOST)]], axis=2)[:, steps // 2 :]
        moved = [x for x in np.moveaxis(table, 2, 0) if np.ptp(x) > 0]
        return bool(moved) and all(map(self._agrees, moved))

    def _agrees(self, x) -> bool:
        stats = array_stats()
        effective = stats.ess(x, chain_axis=0, draw_axis=1, method="bulk")
        agree = stats.rhat(x, chain_axis=0, draw_axis=1) <= self.rhat
        return bool(agree and effective >= max(self.ess, self.share * x.size))
