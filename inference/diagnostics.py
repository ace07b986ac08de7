"""Summaries: a thin layer over arviz-stats. What bad numbers mean is said in `findings.py`."""

import dataclasses
from typing import Any

import numpy as np

from ppl.choices import flatten


class SamplingWarning(UserWarning):
    """A posterior was returned, but its draws should not be trusted as they are."""


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """A table of posterior moments and diagnostics: `table` is a pandas DataFrame, one row per scalar."""

    table: Any
    note: str

    def __repr__(self) -> str:
        kinds = {"ess_bulk": "{:.0f}", "ess_tail": "{:.0f}", "r_hat": "{:.3f}"}
        formats = {name: kinds.get(name, "{:.3g}").format for name in self.table.columns}
        return f"{self.table.to_string(formatters=formats)}\n{self.note}"


def summary(posterior, names, interval: float) -> Summary:
    """The summary of a posterior's sites `names` (all, if empty)."""
    import arviz_base
    import arviz_stats

    stats: Any = arviz_stats
    flat = {name: np.asarray(posterior[name]) for name in names} or flatten(posterior.draws)
    tree = arviz_base.from_dict({"posterior": flat})
    table = stats.summary(tree, kind="all", ci_kind="eti", ci_prob=interval, round_to="none")
    table = table[[name for name in table.columns if not str(name).startswith("mcse")]]
    low, high = (1 - interval) / 2, (1 + interval) / 2
    table.columns = ["mean", "sd", f"{100 * low:.3g}%", f"{100 * high:.3g}%", *table.columns[4:]]
    return Summary(table, footer(posterior))


def footer(posterior) -> str:
    """Divergences, gradients and seconds in a line."""
    parts, made = [], posterior.provenance
    if posterior.log_evidence is not None:
        parts.append(f"log evidence {posterior.log_evidence:.6g} +- {posterior.log_evidence_error:.2g}")
    if "rung" in posterior.provenance:
        parts.append(f"corrected by {posterior.provenance['rung'] or 'no rung'}")
    if "diverging" in posterior.stats:
        parts.append(f"{int(np.sum(posterior.stats['diverging']))} divergences")
    if made.get("biased"):
        parts.append(f"biased by the step size of {' and '.join(dict.fromkeys(made['biased']))}")
    if made.get("gradients") is not None:
        parts.append(f"{made['gradients']:,} gradients")
    if "sampling_seconds" in made:
        compiling = f", {made['compile_seconds']:.2f} s compiling" if "compile_seconds" in made else ""
        parts.append(f"{made['sampling_seconds']:.2f} s sampling{compiling}")
    return ", ".join(parts)
