"""Numbers everywhere: NaN among draws or densities, and truths that the posterior holds for impossible.

A posterior that gives a truth density zero is wrong about that data set, however rare it is; weights cannot mend it.
"""

import numpy as np

from inference.checks.verdict import Verdict

from .check import Check, Outcome


class Finite(Check):
    """No draw and no density is NaN, and no truth impossible. This fails at the first."""

    def __call__(self, study, simulated, key):
        bad = {
            "draws": sum(_nan(x) for x in simulated.draws.values()) > 0,
            "density of draws": sum(_nan(x) for x in simulated.at_draws) > 0,
            "density of the truth": ~np.isfinite(simulated.at_truth.posterior),
        }
        found = ", ".join(f"{name} in {int(x.sum())}" for name, x in bad.items() if x.any())
        return Outcome(
            "finite numbers",
            f"not so: {found} of {simulated.shape[0]} data sets" if found else f"in all of {simulated.shape[0]} data sets",
            "in all data sets",
            Verdict({name: 0.0 if x.any() else 1.0 for name, x in bad.items()}, bad),
            "Look at these data sets; a head with wider tails gives no truth density zero.",
        )


def _nan(x: np.ndarray) -> np.ndarray:
    """In which simulations there is one."""
    return np.any(np.isnan(x.astype(float)).reshape(len(x), -1), axis=1)
