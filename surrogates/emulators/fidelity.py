"""Fidelity: an emulator of a costly level, from few of its runs and an emulator of a cheaper level.

Component by component, costly = rho cheap + discrepancy: the cheap level's prediction is one more regressor of the Gaussian
process, rho its coefficient, told by generalised least squares, and the process is the discrepancy.

```python
coarse = GaussianProcess().fit(key, many_cheap_runs)
fine = Autoregressive(coarse).fit(key, few_costly_runs)       # is a Process; fine.rho says how the levels go together
```
Law: where the costly runs are among the cheap ones, and the cheap level has no nugget, the predictions are those of the joint
Gaussian process of both levels (Kennedy and O'Hagan, "Predicting the output from a complex computer code when fast
approximations are available", Biometrika 87, 2000; level by level: Le Gratiet and Garnier, International Journal for
Uncertainty Quantification 4, 2014). The cheap level may be any emulator, and one of these.
"""

import jax
from jax import Array

from .emulator import Emulator, Family
from .gaussian_process import Fit, GaussianProcess, Process
from .runs import Runs


class Autoregressive(Family):
    """The family of emulators on top of `below`, an emulator of a cheaper level with the same arguments and outputs.

    Raises (of `fit`):
        ValueError: where the levels have other arguments or outputs; as `GaussianProcess.fit`.

    Example:
        `Autoregressive(coarse, GaussianProcess(trend=Constant())).fit(key, runs)`
    """

    below: Emulator
    family: GaussianProcess = GaussianProcess()

    def fit(self, key: Array, runs: Runs) -> Process:
        """The emulator of these runs of the costly level."""
        args = runs.unpack(runs.x[0])
        out = jax.eval_shape(lambda args: self.below(*args), args).shape
        if out != runs.y.shape[1:]:
            raise ValueError(
                f"Autoregressive: the cheap level returns the shape {out}, the costly one {runs.y.shape[1:]}. Bring one to "
                "the grid of the other."
            )
        return Fit(self.family, key, runs, below=self.below).process()


def rho(process: Process) -> Array:
    """How much of the cheap level is in the costly one, for each component (p,)."""
    return process.solved.beta[:, -1]
