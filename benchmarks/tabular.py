"""A prior-fitted network that classifies the rows of small tables, against scikit-learn's classifiers.

    python -m benchmarks.tabular [--steps 1800] [--write]

A network is trained from a program that draws tables, and never sees a real one. Then it is shown some rows of one, and says
the classes of up to 100 others: the mean of what it says with features and classes in 8 random orders, as they have none. Its
peers have their defaults, features standardised by the same rows. (Mueller et al., "Transformers can do Bayesian inference",
ICLR 2022, arXiv:2112.10510, table 2; Hollmann et al., "TabPFN", ICLR 2023, arXiv:2207.01848.)
"""

import argparse
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

import surrogates as sur
from benchmarks.report import machine, table, write
from benchmarks.tabular_tasks import ASKED, CLASSES, FEATURES, Split, sets, splits, tables

SIZES, SPLITS, ORDERS, BINS = (30, 100), 10, 8, 10
REST, LEAST = 20, 20  # rows asked for in training, and the fewest shown
BATCH, RATE, WIDTH, DEPTH, HEADS = 32, 0.02, 48, 3, 2
NAMES = ("network", "logistic regression", "random forest", "Gaussian process")
SCORES = ("Area under the curve", "Calibration error", "Log loss, nats a row")


def trained(steps: int, key: jax.Array):
    """The network, and seconds of processor time, compilation included."""
    begun = time.process_time()
    net = sur.pfn(
        tables(max(SIZES) + REST), context=("x", "y"), query="y", least=LEAST, asked=REST, width=WIDTH,
        depth=DEPTH, heads=HEADS, steps=steps, batch=BATCH, optimizer=sur.muon(RATE), key=key, progress=False,
    )  # fmt: skip
    return net, time.process_time() - begun


@jax.jit
def read(net, x, y, new, features, classes):
    """Probabilities (rows, CLASSES), the mean over orders of features (ORDERS, FEATURES) and of classes (ORDERS, CLASSES)."""

    def one(features, classes):
        law = net.given({"x": x[:, features], "y": classes[y]}).at({"x": new[:, features]})
        return law.probs[:, classes]

    return jnp.mean(jax.vmap(one)(features, classes), 0)


def said(net, split: Split, classes: int, rng: np.random.Generator) -> np.ndarray:
    """What the network says (rows, classes): absent features are zeros, and absent classes none of them."""
    orders = [np.stack([rng.permutation(num) for _ in range(ORDERS)]) for num in (FEATURES, CLASSES)]
    absent = FEATURES - split.x.shape[1]
    x, new = (np.pad(part, ((0, 0), (0, absent))).astype(np.float32) for part in (split.x, split.new))
    new = np.pad(new, ((0, ASKED - len(new)), (0, 0)))  # one program for all
    p = np.asarray(read(net, x, split.y, new, *orders), np.float64)[: len(split.truth), :classes]
    return p / p.sum(1, keepdims=True)


def peers(split: Split) -> list[np.ndarray]:
    """What the others say (rows, classes), in the order of NAMES."""
    kinds = (LogisticRegression(max_iter=1000), RandomForestClassifier(random_state=0),
             GaussianProcessClassifier(1.0 * RBF(1.0), random_state=0))  # fmt: skip
    return [kind.fit(split.x, split.y).predict_proba(split.new) for kind in kinds]


def scores(p: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """See SCORES. The area is the mean over classes against the rest; calibration is of the likeliest class, in BINS bins."""
    binary = p.shape[1] == 2
    area = roc_auc_score(truth, p[:, 1]) if binary else roc_auc_score(truth, p, multi_class="ovr")
    sure, right = p.max(1), p.argmax(1) == truth
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    off = np.abs(np.bincount(bins, right, BINS) - np.bincount(bins, sure, BINS)).sum() / len(truth)
    return float(area), float(off), log_loss(truth, np.clip(p, 1e-4, 1.0), labels=range(p.shape[1]))


def measured(net) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of rows, scores (rows, SPLITS, len(NAMES), len(SCORES)), and milliseconds of processor time a table (2,)."""
    names, found, spent, rng = [], [], np.zeros(2), np.random.default_rng(0)
    for name, (x, y) in sets().items():
        for num in SIZES:
            rows = []
            for split in splits(x, y, num, SPLITS):
                times = [time.process_time()]
                ours = said(net, split, y.max() + 1, rng)
                times.append(time.process_time())
                others = peers(split)
                spent += 1e3 * np.diff([*times, time.process_time()])
                rows.append([scores(p, split.truth) for p in (ours, *others)])
            names.append(f"{name}, {num} rows")
            found.append(rows)
            print(names[-1], np.mean(rows, 0).round(3).tolist(), flush=True)
    return names, np.array(found), spent / (len(found) * SPLITS)


def tabled(names: list[str], found: np.ndarray) -> str:
    """A table of one score (rows, SPLITS, methods). Errors of the last line are of the mean of all rows, from its splits."""
    means, errors = found.mean(1), found.std(1, ddof=1) / SPLITS**0.5
    every = np.r_[means, [means.mean(0)]], np.r_[errors, [np.sqrt(np.sum(errors**2, 0)) / len(errors)]]
    cells = [[f"{m:.3f} +- {e:.3f}" for m, e in zip(*row, strict=True)] for row in zip(*every, strict=True)]
    return table(["", *NAMES], [[name, *row] for name, row in zip([*names, "**mean**"], cells, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--write", action="store_true", help="write results/tabular.md")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    net, spent = trained(asked.steps, jax.random.key(0))
    print(net, net.fit, f"{spent:.0f} s", flush=True)
    names, found, times = measured(net)
    parts = [f"{score}:\n\n{tabled(names, found[..., i])}" for i, score in enumerate(SCORES)]
    if asked.write:
        what = (
            f"Sets of scikit-learn; {' or '.join(map(str, SIZES))} rows to learn from and up to {ASKED} others to classify, "
            f"{SPLITS} random splits, and their error; at most {FEATURES} features, chosen from the rows to learn from, the "
            "same for all. The calibration error of so few rows is not zero for a perfect classifier either. The network: "
            f"width {WIDTH}, depth {DEPTH}, {asked.steps} steps of {BATCH} tables of {max(SIZES) + REST} rows drawn from a "
            f"program, Muon at {RATE}, in {spent:.0f} CPU seconds of both cores together, compilation included; then "
            f"{times[0]:.0f} ms a table, compilation included, where the three others together take {times[1]:.0f} ms. "
            "Log losses are of probabilities of at least 0.0001."
        )
        title = "Small tables: a prior-fitted network among classifiers"
        write("tabular", title, f"{what} {machine(('jax', 'optax', 'scikit-learn'))}", *parts)
    print(*parts, sep="\n\n")


if __name__ == "__main__":
    main()
