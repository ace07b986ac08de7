"""Diagnostics: a thin layer over arviz-stats, and the words that say what a bad number means."""

import dataclasses
from typing import Any

import numpy as np

from ppl.choices import flatten

RHAT_LIMIT = 1.01


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
    if "diverging" in posterior.stats:
        parts.append(f"{int(np.sum(posterior.stats['diverging']))} divergences")
    if "gradients" in made:
        parts.append(f"{made['gradients']:,} gradients")
    if "sampling_seconds" in made:
        parts.append(f"{made['sampling_seconds']:.2f} s sampling, {made['compile_seconds']:.2f} s compiling")
    return ", ".join(parts)


def worst_rhat(posterior) -> float:
    """The largest R-hat over the log density and the scalars of the posterior (if there are more than 500, over 500 of
    them, evenly spaced); constants are left out."""
    import arviz_stats.base

    stats: Any = arviz_stats.base
    columns = [np.asarray(x, np.float64).reshape(*posterior.shape, -1) for x in flatten(posterior.draws).values()]
    table = np.concatenate(columns, axis=-1)
    table = table[..., np.linspace(0, table.shape[-1] - 1, min(500, table.shape[-1])).astype(int)]
    if "lp" in posterior.stats:
        table = np.concatenate([table, np.asarray(posterior.stats["lp"], np.float64)[..., None]], axis=-1)
    rhats = [stats.array_stats.rhat(x, chain_axis=0, draw_axis=1) for x in np.moveaxis(table, -1, 0) if np.ptp(x) > 0]
    return float(np.nanmax(np.asarray([1.0, *rhats])))


def complaints(posterior) -> list[str]:
    """Sentences about what is wrong with the draws and what to do; empty when nothing is."""
    found = []
    diverging = np.asarray(posterior.stats.get("diverging", False))
    chains, draws = posterior.shape
    if diverging.ndim and diverging.all():
        found.append(
            "Every draw diverged: the chains did not move. The density may be wrong or badly scaled; check it at a point "
            "you know, standardise the data, or start with init=At({...})."
        )
    elif (count := int(diverging.sum())) > 0.001 * chains * draws:
        found.append(
            f"{count} of {chains * draws} draws ended in a divergence: part of the posterior was not explored. Try "
            "program.reparam() (non-centred sites), or inf.adapted(kernel, target_acceptance=0.95)."
        )
    if draws >= 4 and not (diverging.ndim and diverging.all()):
        rhat = worst_rhat(posterior)
        if rhat > RHAT_LIMIT:
            found.append(
                f"R-hat is {rhat:.3f}, above {RHAT_LIMIT}: the chains disagree. Run longer (warmup=, draws=); if it stays, "
                "look for several modes or a parameter that the data do not determine."
            )
    return found
