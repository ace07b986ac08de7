"""Alarms: does the gate refuse as many of the program's own data sets as it says, and no more?

```python
gate = Gate.fit(jax.vmap(features)(training_data))
diagnose(net.given, program | data, key=key, checks=(*CHECKS, Alarms(gate, features)))
```
"""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np

from inference.checks.verdict import Verdict

from ..gate import Gate
from .check import Check, Outcome, more_often


class Alarms(Check):
    """- `gate`, and `features`: from the data of one simulation, by address, to what the gate looks at, (f,).
    - `level`: of the gate, the share of alarms it stands for; `within`: by how much they may differ.
    """

    gate: Gate
    features: Callable
    level: float = eqx.field(default=0.05, static=True)
    within: float = eqx.field(default=0.01, static=True)

    def __call__(self, study, simulated, key):
        p_values = np.asarray(jax.jit(jax.vmap(lambda data: self.gate(self.features(data))))(simulated.data))
        alarm = p_values <= self.level
        many, few = more_often(alarm, self.level + self.within), more_often(~alarm, 1.0 - self.level + self.within)
        return Outcome(
            "alarms of the gate",
            f"in {alarm.mean():.1%} of {len(alarm)} data sets",
            f"{self.level:.0%} +- {self.within:.0%}",
            Verdict({"false alarms": min(1.0, 2.0 * min(many, few))}, {"false alarms": p_values}),
            "Fit the gate to more simulations, of this very program.",
        )
