"""Ledger: what a posterior cost in densities of the true program, what it would have cost without a surrogate, and what holds.

```python
posterior = inf.mcmc(program, inf.delayed_acceptance(inf.NUTS(), cheap, num=5), key=key)
print(posterior.ledger)
posterior.ledger.total, posterior.ledger.saved, posterior.ledger.guarantee
```
A *true call* is one evaluation of the density (or of its gradient) of the program that is asked about: where the program has a
costly `ppl.call`, one run of that. Whoever composes an answer of several parts writes its ledger into the provenance, as plain
values, and so into files; of other posteriors it follows from what they have measured. What nobody has counted is not guessed.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ppl.choices import flatten

from .findings import Draws

CONSISTENT = "Consistent: weights make up for the proposal, up to Monte Carlo error"


@dataclasses.dataclass(frozen=True, repr=False)
class Ledger:
    """What an answer cost, and what holds of it. Printing it shows a table.

    - `calls`: true calls by purpose: design, pilot, weights, moves, chains, start, ...
    - `plain`: true calls that the same method without a surrogate would have used, and `plain_known`, how that is known.
    - `ess`: the effective sample size of the draws; of several numbers the least.
    - `pareto_k`, `acceptance`: of weights, and of proposals by the truth, where there are such.
    - `guarantee`: which one holds, a sentence.

    Example:
        `Ledger({"chains": 4_000}, plain=81_000, guarantee="Exact").saved`
    """

    calls: dict[str, int]
    plain: int | None = None
    plain_known: str = ""
    ess: float | None = None
    pareto_k: float | None = None
    acceptance: float | None = None
    guarantee: str = "Not known"

    @property
    def total(self) -> int:
        """True calls of all purposes."""
        return sum(self.calls.values())

    @property
    def saved(self) -> float | None:
        """The share of the plain method's calls that was not needed; negative where a surrogate has cost more."""
        return None if not self.plain else 1.0 - self.total / self.plain

    @property
    def ess_per_call(self) -> float | None:
        """Effective draws for each true call."""
        return None if self.ess is None or not self.total else self.ess / self.total

    def plainly(self) -> dict[str, Any]:
        """As plain values, for `posterior.provenance["ledger"]`; `Ledger(**values)` has it back."""
        return dataclasses.asdict(self)

    def __repr__(self) -> str:
        rows = [("true calls", _sum(self.calls))]
        if self.plain is not None:
            saved = "" if self.saved is None else f", {self.saved:.1%} saved"
            rows.append(("plain method", f"{self.plain:,}{saved} ({self.plain_known or 'not said how known'})"))
        if self.ess is not None:
            each = "" if self.ess_per_call is None else f", {self.ess_per_call:.3g} a true call"
            rows.append(("effective draws", f"{self.ess:,.0f}{each}"))
        rows += [("Pareto k", f"{self.pareto_k:.2f}")] if self.pareto_k is not None else []
        rows += [("acceptance", f"{self.acceptance:.2f}")] if self.acceptance is not None else []
        rows.append(("guarantee", self.guarantee))
        return "\n".join(f"{name:<16} {text}" for name, text in rows)


def _sum(calls: dict[str, int]) -> str:
    if not calls:
        return "not counted"
    parts = " + ".join(f"{num:,} {purpose}" for purpose, num in calls.items())
    return parts if len(calls) == 1 else f"{sum(calls.values()):,} = {parts}"


def ledger_of(posterior: Any) -> Ledger:
    """The ledger of a posterior: what its maker wrote down, or what follows from its statistics."""
    made = posterior.provenance
    if "ledger" in made:
        return Ledger(**made["ledger"])
    return _OF.get(made.get("algorithm", ""), _unknown)(posterior)


def spent_on(program: Any) -> int:
    """True calls that the functions put in place of costly ones have cost; each may say it, by an attribute `true_calls`."""
    rules = getattr(program, "rules", None)
    return 0 if rules is None else sum(int(getattr(fn, "true_calls", 0)) for fn in flatten(rules.calls).values())


def least_ess(posterior: Any) -> float | None:
    """The least bulk effective sample size of all scalars; None where there are too few draws, or nothing varies."""
    draws = Draws(posterior)
    if draws.draws < 4 or not draws.names:
        return None
    found = draws.ess("bulk")
    return float(np.nanmin(found)) if np.isfinite(found).any() else None


# -- by algorithm --------------------------------------------------------------------------------------------------------


def _of_chains(posterior: Any) -> Ledger:
    made = posterior.provenance
    count = _counts(posterior)
    if made.get("kernel") == "DelayedAcceptance":
        return _of_delayed(posterior, count)
    asked = [count(name) for name in ("n_steps", "num_evaluations")]
    known = [num for num in asked if num is not None]
    transitions = made["chains"] * (made["warmup"] + made["draws"])
    calls = {"chains": sum(known) if known else transitions}
    calls |= {"start": int(made["gradients_to_start"])} if made.get("gradients_to_start") else {}
    biased = made.get("biased")
    guarantee = (
        f"None: the draws of {' and '.join(dict.fromkeys(biased))} are biased by the step size"
        if biased
        else "Exact in the limit: the chains leave the posterior invariant; what is left is Monte Carlo error"
    )
    return Ledger(calls, ess=least_ess(posterior), guarantee=guarantee)


def _of_delayed(posterior: Any, count: Callable[[str], int | None]) -> Ledger:
    """One true density a step, warm-up included; the cheapest surrogate was asked what the plain kernel asks of the truth."""
    made = posterior.provenance
    steps = count("num_evaluations")
    begun = made.get("positions_to_start")
    calls = {"design": made["design_calls"]} if made.get("design_calls") else {}
    calls |= {"chains": int(steps or 0)}
    calls |= {"start": 2 * int(begun)} if begun else {}  # each is evaluated, and so is the first proposal
    deepest = max((name.count("_surrogate") for name in posterior.stats), default=1)
    asked = [count(name + "_surrogate" * deepest) for name in ("n_steps", "num_evaluations")]
    known = [num for num in asked if num is not None]
    return Ledger(
        calls,
        plain=sum(known) + int(made.get("gradients_to_start") or 0) if known else None,
        plain_known="what the same kernel asked of the surrogate",
        ess=least_ess(posterior),
        acceptance=float(np.mean(posterior.stats["acceptance_rate"])),
        guarantee="Exact in the limit: delayed acceptance leaves the true posterior invariant, whatever the surrogate; what "
        "is left is Monte Carlo error",
    )


def _of_weights(posterior: Any) -> Ledger:
    k, ess = float(posterior.stages["pareto_k"][-1]), posterior.stages["ess"]
    number = posterior.provenance["particles"]
    return Ledger({"weights": int(number)}, ess=float(ess[-1]), pareto_k=k, guarantee=of_weights(k))


def of_weights(k: float) -> str:
    """The guarantee of importance weights with this Pareto k."""
    if not k <= 0.7:
        return f"None: Pareto k {k:.2f} is not at most 0.7, so weights not seen yet may change everything"
    return f"{CONSISTENT}; Pareto k {k:.2f} is at most 0.7"


def _of_particles(posterior: Any) -> Ledger:
    return Ledger({}, guarantee="Consistent: sequential Monte Carlo, with an evidence that is unbiased where levels are fixed")


def _unknown(posterior: Any) -> Ledger:
    name = posterior.provenance.get("algorithm")
    if name is None:
        return Ledger({})
    return Ledger({}, guarantee=f"None: {name} is an approximation; weigh it against the program (inf.importance)")


_OF: dict[str, Callable[[Any], Ledger]] = {
    "mcmc": _of_chains,
    "importance": _of_weights,
    "smc": _of_particles,
}


def _counts(posterior: Any) -> Callable[[str], int | None]:
    """Sums of a statistic over draws and warm-up; None where there is no such statistic."""
    groups = (posterior.stats, posterior.warmup_stats)

    def count(name: str) -> int | None:
        found = [group[name] for group in groups if name in group]
        return sum(int(np.sum(np.asarray(x, np.int64))) for x in found) if found else None

    return count
