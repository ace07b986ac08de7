"""Diagnostics: a thin layer over arviz-stats, and the words that say what a bad number means."""

import dataclasses
from typing import Any

import numpy as np

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

    flat = {name: np.asarray(posterior[name]) for name in names} or flatten(posterior.draws)
    tree = arviz_base.from_dict({"posterior": flat})
    table = arviz_stats.summary(tree, kind="all", ci_kind="eti", ci_prob=interval, round_to="none")
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


def worst(draws) -> tuple[float, float]:
    """The largest R-hat and the smallest bulk effective sample size over all scalars; constants are left out."""
    from arviz_stats.base import array_stats

    rhats, sizes = [1.0], [np.inf]
    for x in flatten(draws).values():
        x = np.asarray(x, np.float64)
        columns = x.reshape(*x.shape[:2], -1)
        for i in range(columns.shape[-1]):
            if np.ptp(columns[..., i]) > 0:
                rhats.append(float(array_stats.rhat(columns[..., i], chain_axis=0, draw_axis=1)))
                sizes.append(float(array_stats.ess(columns[..., i], chain_axis=0, draw_axis=1)))
    return float(np.nanmax(rhats)), float(np.nanmin(sizes))


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
        rhat, _ = worst(posterior.draws)
        if rhat > RHAT_LIMIT:
            found.append(
                f"R-hat is {rhat:.3f}, above {RHAT_LIMIT}: the chains disagree. Run longer (warmup=, draws=); if it stays, "
                "look for several modes or a parameter that the data do not determine."
            )
    return found


def flatten(tree, prefix: str = "") -> dict[str, Any]:
    """Nested dict to dotted names."""
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            out.update(flatten(value, f"{prefix}{name}."))
        else:
            out[f"{prefix}{name}"] = value
    return out
