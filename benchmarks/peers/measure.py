"""What is measured of one run, alike for all samplers.

Run(whole=3.1, run=0.4, gradients=130_000, draws={"mu": ...}, chains of the constrained parameters)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from arviz_stats.base import array_stats  # here, before any clock starts: to import it is no compilation

CHAINS, WARMUP, DRAWS = 4, 1000, 1000


class Run(NamedTuple):
    """One run of a sampler.

    Attributes:
        whole: seconds from the model to the draws, with tracing and compilation.
        run: seconds of warm-up and sampling with nothing to compile; None where the sampler's density is a callback from
            Python, whose speed is not the sampler's.
        gradients: gradients of the log density in warm-up and sampling.
        draws: (chain, draw, ...) by the names of the published parameters.
    """

    whole: float
    run: float | None
    gradients: int
    draws: Mapping[str, Any]


def numbers(name: str, run: Run) -> dict[str, float | None]:
    """The run in numbers: effective samples and R-hat of the worst published parameter, and the largest distance from the
    published means and standard deviations in standard errors."""
    from tests.reference.agreement import agreement
    from tests.reference.models import REFERENCES, published, scalars

    known = published(name)
    x = scalars(run.draws, known.names).astype(float)
    if not np.isfinite(x).all():
        raise ArithmeticError("draws that are not finite")

    def each(measure, **how) -> list[float]:
        # a chain that never moves has no effective draws, and no R-hat
        values = [float(measure(x[..., i], chain_axis=0, draw_axis=1, **how)) for i in range(x.shape[-1])]
        return [value if np.isfinite(value) else 0.0 for value in values]

    rhat = [value or np.inf for value in each(array_stats.rhat)]
    return {
        "whole": run.whole,
        "run": run.run,
        "gradients": int(run.gradients),
        "ess_bulk": min(each(array_stats.ess, method="bulk")),
        "ess_tail": min(each(array_stats.ess, method="tail", prob=(0.05, 0.95))),
        "rhat": min(max(rhat), 99.0),
        "z": agreement(x, known, REFERENCES[name].in_logs).worst_z(),
    }
