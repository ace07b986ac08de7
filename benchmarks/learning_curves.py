"""A prior-fitted network for learning curves, against the exact predictive and what its paper published.

    python -m benchmarks.learning_curves [--steps 4000] [--write]

A network is trained from the program of the prior for so many steps on fresh draws, and then predicts the rest of new curves
after n of 100 steps. Scores are means of log densities over all that follows, in nats a point. The gap is the mean of
log p_exact(y*) - log q(y*) on the same points; its error is that of the mean over curves. (Adriaensen et al., "Efficient
Bayesian learning curve extrapolation using prior-data fitted networks", NeurIPS 2023, arXiv:2310.20447, table 3.)
"""

import argparse
import time
import warnings
from functools import partial

import jax
import numpy as np

import surrogates as sur
from benchmarks.learning_curves_tasks import STEPS, curves, exact
from benchmarks.pfn_tasks import drawn
from benchmarks.report import machine, table, write

SEEN = (10, 20, 40, 80)
SETS, JUDGED, DRAWS = 2000, 48, 30_000  # curves; those with an exact predictive; draws for one
BATCH, RATE, WIDTH, DEPTH, HEADS = 32, 0.02, 48, 3, 2
PUBLISHED = {
    "Markov chains, the best of three at each": (1.642, 1.958, 2.285, 2.486),
    "P1: 3 layers of 128": (1.58, 1.99, 2.28, 2.43),
    "P2: 3 layers of 256": (1.65, 2.04, 2.35, 2.49),
    "P3: 12 layers of 512, 10 million curves": (1.76, 2.13, 2.40, 2.52),
}


def trained(steps: int, key: jax.Array):
    """The network, and seconds of processor time, compilation included."""
    begun = time.process_time()
    net = sur.pfn(
        curves(), context=("t", "y"), query="y", asked=STEPS - max(SEEN), width=WIDTH, depth=DEPTH, heads=HEADS,
        steps=steps, batch=BATCH, optimizer=sur.muon(RATE), key=key, progress=False,
    )  # fmt: skip
    return net, time.process_time() - begun


@partial(jax.jit, static_argnums=3)
def said(net, t, y, num: int):
    """Log densities (S, STEPS - num) that the network gives what follows the first `num`."""

    def one(y):
        return net.given({"t": t[:num], "y": y[:num]}).at({"t": t[num:]}).log_prob(y[num:])

    return jax.lax.map(one, y, batch_size=50)


def reference(y: np.ndarray, num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of curves y (S, STEPS): mean exact log density of what follows (S,), how far that of one half of the draws is from the
    other's (S,), and Pareto's k (S,)."""
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        found = [exact(one, num, rng, DRAWS) for one in np.asarray(y, np.float64)]
    halves = np.array([np.ptp(rest.halves.mean(1)) for rest in found])
    return np.array([rest.log_p.mean() for rest in found]), halves, np.array([rest.k for rest in found])


def score(values: np.ndarray) -> str:
    return f"{values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="write results/learning_curves.md")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", message="Explicitly requested dtype float64")  # of Pareto's k alone
    net, spent = trained(asked.steps, jax.random.key(0))
    print(net, net.fit, f"{spent:.0f} s", flush=True)
    sets = drawn(curves(), SETS, jax.random.key(100))
    t = np.asarray(curves().values(curves().simulate(jax.random.key(0)).choices)["t"])
    scores, gaps, sure, checks, times = [], [], [], [], []
    for num in SEEN:
        begun = time.process_time()
        ours = np.asarray(said(net, t, sets["y"], num)).mean(1)
        middle = time.process_time()
        best, halves, k = reference(sets["y"][:JUDGED], num, num)
        gap, good = best - ours[:JUDGED], k <= 0.7
        scores.append(score(ours))
        gaps.append(score(gap))
        sure.append(score(gap[good]))
        checks.append(f"{np.median(halves):.3f}; {good.mean():.0%}")
        times.append(f"{(middle - begun) / SETS * 1e3:.1f}; {(time.process_time() - middle) / JUDGED * 1e3:.0f}")
        print(num, scores[-1], gaps[-1], sure[-1], checks[-1], times[-1], sep=" | ", flush=True)
    rows = [[f"published, {name}", *(f"{value:g}" for value in row)] for name, row in PUBLISHED.items()]
    rows += [["**network, score**", *scores], ["gap to the exact predictive", *gaps], ["gap, where k <= 0.7", *sure]]
    rows += [["exact: distance of halves, median; share with k <= 0.7", *checks], ["ms a curve: network; exact", *times]]
    tabled = table(["nats a point", *(f"n = {num}" for num in SEEN)], rows)
    if asked.write:
        what = (
            f"The prior of LC-PFN as a program; the rest of a curve of {STEPS} steps after the first n. Score: mean log "
            f"density over {SETS} new curves. Gap: mean of log exact - log network over the first {JUDGED} of them; exact is "
            f"by importance sampling with {DRAWS} draws, written apart from the program, and its own error is the "
            f"distance between its halves. One network for all n, of width {WIDTH} and depth {DEPTH}: {asked.steps} steps of "
            f"{BATCH} curves, Muon at {RATE}, in {spent:.0f} CPU seconds of both cores together, compilation included. "
            "Published scores are of other draws from the same prior; a score's error is mostly that of how noisy curves are."
        )
        write("learning_curves", "Learning curves: LC-PFN", f"{what} {machine(('jax', 'optax'))}", tabled)
    print(tabled)


if __name__ == "__main__":
    main()
