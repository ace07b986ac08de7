"""Report: what the checks found, as a table, and what to make of it, as sentences.

```python
print(report); report.passed()
for finding in report.findings: finding.what, finding.advice, finding.sites
```
"""

import dataclasses
from typing import Any

from inference.checks.verdict import FALSE_ALARM
from inference.findings import Finding

from .check import Outcome

WORST = 5  # quantities that are named


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """See the file's docstring; what `diagnose` returns. `outcomes`: one for each check; `shape`: simulations and draws."""

    outcomes: tuple[Outcome, ...]
    shape: tuple[int, int]

    def passed(self, false_alarm: float = FALSE_ALARM) -> bool:
        """Whether every check passed. An exact posterior fails with probability at most `false_alarm` (Bonferroni)."""
        return all(self._good(outcome, false_alarm) for outcome in self.outcomes)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of every check that failed: what was found, the advice, and the worst quantities."""
        return tuple(
            Finding(f"{bad.check}: {bad.found}, where {bad.wanted} was wanted.", bad.advice, tuple(_worst(bad)))
            for bad in self.outcomes
            if not self._good(bad)
        )

    def __getitem__(self, check: str) -> Outcome:
        """The outcome of a check by its name, as the table has it."""
        found = {outcome.check: outcome for outcome in self.outcomes}
        if check not in found:
            raise ValueError(f"no check is called {check!r}; there are: {', '.join(found)}.")
        return found[check]

    def _good(self, outcome: Outcome, false_alarm: float = FALSE_ALARM) -> bool:
        return outcome.verdict.passed(false_alarm / len(self.outcomes))

    def __repr__(self) -> str:
        lines: list[tuple[Any, ...]] = [("check", "found", "wanted", "p", "verdict")]
        for outcome in self.outcomes:
            p = min(1.0, min(outcome.verdict.p_values.values()) * len(outcome.verdict.p_values))
            verdict = "passed" if self._good(outcome) else "FAILED"
            lines.append((outcome.check, outcome.found, outcome.wanted, f"{p:.2g}", verdict))
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        table = ["  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in lines]
        pairs = [(p, f"{o.check}: {name}") for o in self.outcomes for name, p in o.verdict.p_values.items()]
        worst = [f"  {name}, p = {p:.2g}" for p, name in sorted(pairs)[:WORST]]
        details = [f"{o.check}: {o.details}" for o in self.outcomes if o.details]
        least = FALSE_ALARM / len(self.outcomes)
        head = f"{self.shape[0]} simulations, {self.shape[1]} draws each; a check fails at p < {least:.2g}"
        advice = [f"- {finding}" for finding in self.findings]
        return "\n".join([head, *table, *details, "worst:", *worst, *advice])


def _worst(outcome: Outcome) -> list[str]:
    p_values = outcome.verdict.p_values
    names = sorted(p_values, key=lambda name: p_values[name])[:WORST]
    return [name for name in names if p_values[name] < FALSE_ALARM] or names[:1]
