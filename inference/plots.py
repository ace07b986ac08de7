"""Pictures of a posterior, each a matplotlib figure: `posterior.plot()`, `.plot_pairs()`, `.plot_energy()`.

They show what a person looks at before believing draws: do the chains agree, where do divergences lie, do energies mix.
Anything finer: `posterior.to_datatree()` and ArviZ. Matplotlib is needed here only.
"""

from typing import Any

import numpy as np

from .findings import Draws, array_stats

MOST = 12  # rows of an overview
INK, ALERT = "#37474f", "#d84315"
CHAINS = ("#1565c0", "#ef6c00", "#2e7d32", "#6a1b9a", "#00838f", "#ad1457", "#4e342e", "#546e7a")


def overview(posterior: Any, names: tuple[str, ...]) -> Any:
    """A row for each scalar (the first 12, or those of `names`): densities of each chain; its trace, with divergences."""
    draws = chosen(posterior, names, MOST)
    rows = len(draws.names)
    figure, axes = pyplot().subplots(
        rows, 2, figsize=(9.5, 1.5 * rows + 0.4), squeeze=False, width_ratios=(1, 2.2), layout="constrained"
    )
    diverging = draws.stats.get("diverging")
    for (left, right), name, values in zip(axes, draws.names, np.moveaxis(draws.table, 2, 0), strict=True):
        for chain, x in enumerate(values):
            grid, density, _ = array_stats().kde(x)
            color = CHAINS[chain % len(CHAINS)]
            left.plot(grid, density, color=color, linewidth=1.2)
            right.plot(x, color=color, linewidth=0.4, alpha=0.8)
        if diverging is not None and diverging.any():
            right.plot(np.nonzero(diverging)[1], np.full(diverging.sum(), values.min()), "|", color=ALERT, markersize=7)
        left.set_ylabel(name, rotation=0, ha="right", va="center")
        left.set_yticks([])
        plain(left, right)
    axes[-1, 1].set_xlabel("draw" + (", | diverged" if diverging is not None and diverging.any() else ""))
    return figure


def pairs(posterior: Any, names: tuple[str, ...]) -> Any:
    """Scatter plots of every two scalars (the first 5, or those of `names`), divergent draws on top in another colour."""
    draws = chosen(posterior, names, 5)
    num, values = len(draws.names), draws.pooled()
    diverging = np.asarray(draws.stats.get("diverging", np.zeros((draws.chains, draws.draws)))).reshape(-1).astype(bool)
    shown = np.random.default_rng(0).permutation(len(values))[:4000]
    figure, axes = pyplot().subplots(num, num, figsize=(1.9 * num + 0.6,) * 2, squeeze=False, layout="constrained")
    for i in range(num):
        for j in range(num):
            axis = axes[i, j]
            if j > i:
                axis.set_axis_off()
            elif j == i:
                axis.hist(values[:, i], bins=40, color=INK, alpha=0.75)
                axis.set_yticks([])
            else:
                axis.plot(values[shown, j], values[shown, i], ".", color=INK, markersize=1.5, alpha=0.35, rasterized=True)
                axis.plot(values[diverging, j], values[diverging, i], ".", color=ALERT, markersize=4)
                axis.sharex(axes[j, j])
            if i == num - 1:
                axis.set_xlabel(draws.names[j])
            if j == 0 and i > 0:
                axis.set_ylabel(draws.names[i])
            plain(axis)
    if diverging.any():
        figure.suptitle(f"{diverging.sum()} divergent draws", color=ALERT, fontsize=10)
    return figure


def energy(posterior: Any) -> Any:
    """Energies, and their changes from draw to draw: where changes are much narrower, chains reach the tails slowly."""
    energies = np.asarray(posterior.stats.get("energy", ()))
    if not energies.size:
        raise ValueError("plot_energy: this posterior has no energies; only Hamiltonian kernels such as NUTS record them.")
    bfmi = np.atleast_1d(array_stats().bfmi(energies, chain_axis=0, draw_axis=1))
    figure, axis = pyplot().subplots(figsize=(6.0, 3.2), layout="constrained")
    parts = (("energy", energies - energies.mean(), INK), ("change per draw", np.diff(energies, axis=1), CHAINS[1]))
    for label, values, color in parts:
        grid, density, _ = array_stats().kde(values.reshape(-1))
        axis.fill_between(grid, density, color=color, alpha=0.35, linewidth=0, label=label)
        axis.plot(grid, density, color=color, linewidth=1.2)
    axis.set_yticks([])
    axis.set_xlabel("nats, about the mean")
    axis.legend(frameon=False, title=f"E-BFMI {', '.join(f'{b:.2f}' for b in bfmi)}")
    plain(axis)
    return figure


def chosen(posterior: Any, names: tuple[str, ...], most: int) -> Draws:
    """The scalars of the sites `names`; of all sites, the first `most`."""
    if names:
        return Draws(type(posterior)({name: posterior[name] for name in names}, posterior.stats))
    draws = Draws(posterior)
    draws.names, draws.table = draws.names[:most], draws.table[..., :most]
    return draws


def plain(*axes) -> None:
    """No box around the data."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, color=INK)


def pyplot() -> Any:
    """Matplotlib's, or a sentence that says what to install."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError("plots need matplotlib, which is not installed: pip install matplotlib.") from None
    return pyplot
