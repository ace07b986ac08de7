"""The picture of eight schools: what each school reported, what the model makes of it, and why it is hard to sample.

Plain arrays in, one matplotlib figure out; nothing here knows how the draws were made.
"""

import numpy as np

INK, MUTED, PALE = "#22303c", "#7b8794", "#d9e0e6"
BLUE, AMBER, RED = "#1f5f8b", "#d9822b", "#c23b3b"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 22,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def density(draws, grid):
    """A Gaussian kernel estimate of the draws' density on a grid, bandwidth by Silverman's rule."""
    low, high = np.quantile(draws, [0.25, 0.75])
    width = 1.06 * min(draws.std(), (high - low) / 1.34) * draws.size**-0.2
    counts, edges = np.histogram(draws, bins=400)
    centres = (edges[1:] + edges[:-1]) / 2
    bumps = np.exp(-0.5 * ((grid[:, None] - centres) / width) ** 2)
    return bumps @ counts / (draws.size * width * np.sqrt(2 * np.pi))


def ridges(ax, names, y, sigma, theta, mu):
    """One row a school, sorted by its report: the report as a bar, the posterior as a ridge, shrinkage as an arrow."""
    order = np.argsort(y)
    grid = np.linspace(-32, 52, 500)
    curves = [density(theta[:, i], grid) for i in order]
    scale = 0.74 / max(c.max() for c in curves)
    ax.axvline(mu.mean(), color=BLUE, lw=1, ls=(0, (4, 3)), zorder=0)
    ax.text(mu.mean() + 0.6, 8.42, f"mean of all schools {mu.mean():.1f}", color=BLUE, fontsize=9, va="bottom")
    for row, (i, curve) in enumerate(zip(order, curves, strict=True)):
        low, high = np.quantile(theta[:, i], [0.03, 0.97])
        inside = (grid >= low) & (grid <= high)
        ax.fill_between(grid, row, row + scale * curve, color=PALE, lw=0, zorder=2 * (8 - row))
        ax.fill_between(grid, row, row + scale * curve, where=inside, color=BLUE, alpha=0.42, lw=0, zorder=2 * (8 - row))
        ax.plot(grid, row + scale * curve, color=BLUE, lw=1.1, zorder=2 * (8 - row) + 1)
        centre, base = theta[:, i].mean(), row - 0.13
        ax.plot([y[i] - sigma[i], y[i] + sigma[i]], [base, base], color=AMBER, lw=2.2, alpha=0.45, zorder=40)
        ax.annotate(
            "",
            xy=(centre, base),
            xytext=(y[i], base),
            arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1, "shrinkA": 4, "shrinkB": 2, "mutation_scale": 9},
            zorder=41,
        )
        ax.plot(y[i], base, "o", color=AMBER, ms=6.5, mec="white", mew=0.9, zorder=42)
        ax.plot(centre, base, "o", color=BLUE, ms=6.5, mec="white", mew=0.9, zorder=42)
    ax.set_yticks(range(len(order)), [names[i] for i in order], color=INK)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(-30, 50), ylim=(-0.45, 8.9), xlabel="effect of coaching on the test score, points")
    ax.set_title("Each school's report is drawn towards the others")
    key = dict(transform=ax.transAxes, fontsize=9.5, va="bottom")
    ax.text(0.0, 1.012, "report, ± standard error", color=AMBER, weight="bold", **key)
    ax.text(0.318, 1.012, "→", color=INK, **key)
    ax.text(0.38, 1.012, "posterior, 94% shaded, and its mean", color=BLUE, weight="bold", **key)


def funnel(ax, mu, tau, plain_mu, plain_tau, divergent):
    """The joint of mean and spread on a log scale, with the places where the model as written could not be followed."""
    ax.hexbin(mu, np.log10(tau), gridsize=46, extent=(-12, 22, -1.6, 1.7), cmap=_blues(), mincnt=2, bins="log", lw=0)
    ax.scatter(plain_mu[divergent], np.log10(plain_tau[divergent]), s=15, color=RED, alpha=0.85, lw=0.4, ec="white", zorder=3)
    ax.set(xlim=(-12, 22), ylim=(-1.6, 1.7), xlabel="mean of all schools, points", ylabel="spread of the schools, points")
    floor = np.quantile(plain_tau, 0.01)
    ax.axhline(np.log10(floor), color=RED, lw=1, ls=(0, (4, 3)), zorder=2)
    ax.text(
        21.8,
        np.log10(floor) - 0.04,
        f"below this line:\n1% as written,\n{np.mean(tau < floor):.0%} non-centred",
        color=RED,
        fontsize=9,
        ha="right",
        va="top",
    )
    ax.set_yticks([-1, 0, 1], ["0.1", "1", "10"])
    ax.set_title("Why it is hard: the schools may not differ at all")
    key = dict(transform=ax.transAxes, fontsize=9.5, va="bottom", weight="bold")
    ax.text(0.0, 1.012, "draws, non-centred", color=BLUE, **key)
    ax.text(0.36, 1.012, f"divergences of the model as written: {divergent.sum()}", color=RED, **key)


def _blues():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blues", ["#e9f0f5", "#8fb7d3", BLUE, "#123a57"])


def picture(names, y, sigma, posterior, plain, path):
    """Write the picture; ``posterior`` and ``plain`` are dicts of flat arrays: mu, tau, theta (draws, 8), diverging."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(13, 6.6), width_ratios=[1.35, 1], layout="constrained", facecolor="white")
        ridges(axes[0], names, y, sigma, posterior["theta"], posterior["mu"])
        funnel(axes[1], posterior["mu"], posterior["tau"], plain["mu"], plain["tau"], plain["diverging"])
        figure.get_layout_engine().set(wspace=0.06, w_pad=0.12, h_pad=0.12)
        figure.savefig(path, dpi=130)
        plt.close(figure)
