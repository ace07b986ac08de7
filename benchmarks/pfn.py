"""Prior-fitted networks for Gaussian processes, against the exact predictive.

    python -m benchmarks.pfn [--steps 12000] [--noise 1e-2] [--write]

A network is trained from the program for so many steps on fresh draws, and then predicts eight new points of 1500 data sets
after n others. The gap is the mean of log p_exact(y*) - log q(y*) on the same points, in nats a point: the mean KL from the
exact predictive. Its error is that of the mean over data sets. (Mueller et al., "Transformers can do Bayesian inference",
ICLR 2022, arXiv:2112.10510, figure 3.)
"""

import argparse
import time
from functools import partial

import jax
import numpy as np

import surrogates as sur
from benchmarks.pfn_tasks import drawn, exact, process
from benchmarks.report import machine, table, write
from surrogates import muon

SHOWN, ASKED, SETS = 20, 8, 1500
SIZES = (0, 1, 2, 5, 10, 20)
BATCH, RATE, WIDTH, DEPTH, HEADS = 32, 0.02, 32, 4, 2


def trained(noise: float, steps: int, key: jax.Array):
    """The network, and seconds of processor time, compilation included."""
    begun = time.process_time()
    net = sur.pfn(
        process(SHOWN + ASKED, noise), context=("x", "y"), query="y", asked=ASKED, width=WIDTH, depth=DEPTH, heads=HEADS,
        steps=steps, batch=BATCH, optimizer=muon(RATE), key=key, progress=False,
    )  # fmt: skip
    return net, time.process_time() - begun


@partial(jax.jit, static_argnums=3)
def said(net, x, y, num: int):
    """Log densities (S, ASKED) that the network gives the points after the first `num`."""

    def one(x, y):
        return net.given({"x": x[:num], "y": y[:num]}).at({"x": x[num:]}).log_prob(y[num:])

    return jax.vmap(one)(x, y)


def gap(net, noise: float, num: int, key: jax.Array) -> tuple[float, float, float]:
    """Of predictions after `num` points: the gap, its error, and the exact negative log density."""
    sets = drawn(process(num + ASKED, noise), SETS, key)
    known = exact(sets["x"], sets["y"], num, noise)
    gaps = (known - np.asarray(said(net, sets["x"], sets["y"], num))).mean(1)
    return float(gaps.mean()), float(gaps.std() / SETS**0.5), float(-known.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--noise", type=float, nargs="+", default=[1e-2, 1e-4])
    parser.add_argument("--write", action="store_true", help="write results/pfn.md")
    asked = parser.parse_args()
    rows = []
    for noise in asked.noise:
        net, spent = trained(noise, asked.steps, jax.random.key(0))
        found = [gap(net, noise, num, jax.random.key(100 + num)) for num in SIZES]
        rows.append([f"gap, noise {noise:g}", f"{spent:.0f}", *(f"{mean:.4f} +- {error:.4f}" for mean, error, _ in found)])
        rows.append([f"exact, noise {noise:g}", "", *(f"{value:.3f}" for *_, value in found)])
        print(*rows[-2], *rows[-1], sep=" | ", flush=True)
    tabled = table(["nats a point", "CPU s", *(f"n = {num}" for num in SIZES)], rows)
    if asked.write:
        what = (
            f"Gaussian process on [0, 1], length scale 0.6. Gap: mean of log exact - log network over {SETS} data sets of "
            f"{ASKED} new points each, after n points. Exact: its mean negative log density. One network for all n, of width "
            f"{WIDTH} and depth {DEPTH}: {asked.steps} steps of {BATCH} data sets, Muon at {RATE}; CPU seconds are of both "
            "cores together, compilation included."
        )
        write("pfn", "Prior-fitted networks against the exact predictive", f"{what} {machine(('jax', 'optax'))}", tabled)
    print(tabled)


if __name__ == "__main__":
    main()
