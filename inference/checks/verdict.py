"""What a check of calibration found: a p-value for every quantity, and whether they can stand together."""

import dataclasses

import numpy as np

FALSE_ALARM = 1e-3


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
    """P-values by name of the hypothesis that all is right, and the `values` (replications,) that they were computed from."""

    p_values: dict[str, float]
    values: dict[str, np.ndarray]

    def passed(self, false_alarm: float = FALSE_ALARM) -> bool:
        """Whether no p-value is too small. What is right fails with probability at most `false_alarm` (Bonferroni)."""
        return min(self.p_values.values()) >= false_alarm / len(self.p_values)

    def __repr__(self) -> str:
        rows = [f"  {name}: p = {p:.3g}" for name, p in sorted(self.p_values.items(), key=lambda item: item[1])]
        return f"Verdict over {len(next(iter(self.values.values())))} simulations\n" + "\n".join(rows)
