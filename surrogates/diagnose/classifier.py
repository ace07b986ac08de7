"""Classifier: can a network tell (truth, data) from (draw, data)? Both have one law if, and only if, the posterior is right
for almost all data.

See `c2st`. Truth and draw of one data set are left out in training together. It is the only check that looks at how latents
depend on data in every way; but where data are many it needs many simulations, or a good `summary` of them.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np

from inference.checks.verdict import Verdict

from ..c2st import c2st
from ..columns import Columns
from .check import Check, Outcome


class Classifier(Check):
    """- `summary`: from the data of one simulation, by address, to an array; by default all numbers in them.
    - `steps`: of training.
    """

    summary: Callable | None = eqx.field(default=None, static=True)
    steps: int = eqx.field(default=300, static=True)

    def __call__(self, study, simulated, key):
        table = study.cases.program.sites()
        latents = Columns.of({name: table[name] for name in simulated.truth}, simulated.truth)
        if self.summary is None:
            reader = Columns.of({name: table[name] for name in simulated.data}, simulated.data)
        else:
            reader = self.summary
        seen = _each(reader, simulated.data)
        first = {name: x[:, 0] for name, x in simulated.draws.items()}
        truths, drawn = (np.concatenate([_each(latents, x), seen], axis=1) for x in (simulated.truth, first))
        told = c2st(truths, drawn, key, steps=self.steps)
        return Outcome(
            "classifier (C2ST)",
            f"accuracy {told.accuracy:.3f}",
            f"0.5 +- {told.error:.1g} (floor {told.floor:.3f})",
            Verdict({"all latents and data": told.p_value}, {"all latents and data": told.correct}),
            "Draws differ from truths, alone or in how they depend on the data.",
        )


def _each(reader: Callable, values: dict[str, np.ndarray]) -> np.ndarray:
    """What a function makes of every simulation, as a table (S, k)."""
    read = np.asarray(jax.jit(jax.vmap(lambda x: reader(x)))(values))
    return read.reshape(len(read), -1)
