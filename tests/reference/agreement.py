"""How far draws are from published moments, in standard errors of both sides.

Mean. The variance of ours minus theirs is the mcse^2 of our chains plus their published mcse^2.

Standard deviation. For n independent draws of kurtosis k the variance of the sample standard deviation s is about
s^2 (k - 1) / (4 n): that of the sample variance is s^4 (k - 1) / n, and s = sqrt(variance) halves the relative error.
Our n is the effective number of squared deviations (Vehtari et al. 2021), which for NUTS is often a third of that of the
draws themselves; arviz-stats before 1.0 takes the latter in `mcse(method="sd")`, so the formula is written out here.
Theirs is n = (sd / mcse)^2. Both use the larger kurtosis of the two sets of draws, as an estimate that is too small
gives a false alarm.
"""

from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from scipy.stats import kurtosis

from .reference import Published


@dataclass(frozen=True)
class Agreement:
    """Per scalar: z-scores of mean and standard deviation, and R-hat (rank-normalised, split)."""

    names: tuple[str, ...]
    z_mean: np.ndarray
    z_sd: np.ndarray
    r_hat: np.ndarray

    def worst_z(self) -> float:
        """The largest absolute z-score."""
        return float(max(np.abs(self.z_mean).max(), np.abs(self.z_sd).max()))

    def __str__(self) -> str:
        rows = zip(self.names, self.z_mean, self.z_sd, self.r_hat, strict=True)
        return "\n".join(f"{name}: mean {m:+.2f}, sd {s:+.2f} standard errors, R-hat {r:.4f}" for name, m, s, r in rows)


def agreement(draws: np.ndarray, known: Published, in_logs: tuple[str, ...] = ()) -> Agreement:
    """Compare draws (chains, draws, scalars) with published moments.

    in_logs: names of positive scalars whose logarithms are compared, with the thinned reference draws as the reference.
    """
    rows = []
    for i, name in enumerate(known.names):
        x, mean, sd, mcse = draws[..., i], known.mean[i], known.sd[i], known.mcse[i]
        theirs = None if known.draws is None else known.draws[:, i]
        if name in in_logs:
            x, theirs = np.log(x), np.log(theirs)
            mean, sd = theirs.mean(), theirs.std(ddof=1)
            mcse = sd / np.sqrt(len(theirs))
        tails = max(kurtosis(y, axis=None, fisher=False) for y in (x, theirs) if y is not None)
        error_of_mean = np.hypot(x.std() / np.sqrt(array_stats.ess(x, method="mean")), mcse)
        halved = np.sqrt((tails - 1) / 4)
        error_of_sd = halved * np.hypot(x.std() / np.sqrt(array_stats.ess(x, method="sd")), mcse)
        z_mean, z_sd = (x.mean() - mean) / error_of_mean, (x.std(ddof=1) - sd) / error_of_sd
        rows.append((z_mean, z_sd, array_stats.rhat(x)))
    return Agreement(known.names, *(np.array(column) for column in zip(*rows, strict=True)))
