"""Distribution Transformers: the paper's tasks, against exact answers.

    python -m benchmarks.dt [--only "filter, 4"] [--fast] [--write]

Tasks and oracles are in `dt_one_number.py` (quadrature), `dt_mixtures.py` (conjugate mixtures), `dt_filter.py` (Kalman) and
`dt_smc.py` (many particles); this file says how long networks are trained and makes the table. (Whittle, Ziomek, Rawling and
Osborne, "Distribution transformers", 2025, arXiv:2502.02463.) Rows are kept in `build/benchmarks/dt.jsonl` as they are made,
so parts can be run one after the other; `--write` makes `results/dt.md` of all that are there. `--fast` trains for a tenth of
the steps, and keeps nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import dt_filter, dt_mixtures, dt_one_number, dt_smc
from benchmarks.dt_oracles import mean_and_error
from benchmarks.report import machine, table, write

KEPT = Path("build/benchmarks/dt.jsonl")
KEY, NEW = jax.random.key(0), jax.random.key(99)  # of training, and of what networks are tried on
CASES = 1000
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=1e-4))


class Row(NamedTuple):
    """Cells of the table: what was asked for is at most `asked`, where something was."""

    task: str
    what: str
    found: float
    error: float
    floor: str = ""
    untrained: str = ""
    asked: float | None = None
    published: str = ""
    training: str = ""

    def cells(self) -> list[str]:
        reached = "" if self.asked is None else "yes" if self.found <= self.asked else "no"
        asked = "" if self.asked is None else f"{self.asked:g}"
        found = f"{_short(self.found)} +- {_short(self.error)}"
        return [self.task, self.what, found, self.floor, self.untrained, asked, reached, self.published, self.training]


def _short(x: float) -> str:
    return f"{x:.1e}" if 0.0 < abs(x) < 1e-3 else f"{x:.4f}" if abs(x) < 10.0 else f"{x:.1f}"


def timed(train: Callable[..., Any], steps: int) -> tuple[Any, str]:
    """A trained network, and what it cost."""
    begun = time.process_time()
    net = train(steps=steps)
    seconds = time.process_time() - begun
    num = sum(x.size for x in jax.tree.leaves(net.net))
    return net, f"{steps} steps, {num:,} numbers, {seconds:.0f} s"


def one_number(name: str, factor: float) -> Iterator[Row]:
    task = dt_one_number.TASKS[name]
    train = partial(dt_one_number.trained, task, key=KEY, optimizer=ADAM)
    net, training = timed(train, int(factor * task.steps))
    found = dt_one_number.gaps(task, net, NEW, CASES)
    floor = f"{dt_one_number.floor(task, NEW, 30):.1e}"
    mean, error = mean_and_error(found[:, 0])
    yield Row(name, "KL", mean, error, floor, _short(found[:, 1].mean()), task.asked, task.published, training)
    if task.model is dt_one_number.surface:
        ours, exact, gap, error = dt_one_number.predicted(net, NEW, CASES)
        yield Row(name, f"predictive NLL {ours:.3f}, exact {exact:.3f}: gap", gap, error, asked=0.01, published="0.00")
    if task.priors is dt_one_number.WIDE and task.model is dt_one_number.variance:
        other = task._replace(priors=dt_one_number.two_parameters(24.0, 6.0))
        mean, error = mean_and_error(dt_one_number.gaps(other, dt_one_number.under(net, other), NEW, CASES)[:, 0])
        yield Row(name, "KL under other priors, InverseGamma(24, 6)", mean, error, published="0.0054")


def filtering(dim: int, factor: float) -> Iterator[Row]:
    rounds = [max(1, int(factor * steps)) for steps in (300, 300, 300, 1500)]
    net, training = timed(lambda steps: dt_filter.on_policy(dim, key=KEY, rounds=tuple(rounds), optimizer=ADAM), sum(rounds))
    found = dt_filter.gaps(net, NEW, dim)
    late, error = mean_and_error(found[:, -10:].mean(1))
    name = f"filter, {dim}"
    yield Row(name, "KL from Kalman's filter, steps 91 to 100", late, error, "0", asked=1e-3, training=training)
    yield Row(name, "the same, all steps", *mean_and_error(found.mean(1)), "0", asked=1e-3)
    yield Row(name, "the same, the worst step's mean", float(found.mean(0).max()), float(found.mean(0).std()), "0", asked=1e-3)


def mixing(dim: int, factor: float) -> Iterator[Row]:
    net, training = timed(partial(dt_mixtures.trained, dim, key=KEY, optimizer=ADAM), int(factor * 1000))
    found = dt_mixtures.gaps(net, NEW, CASES)
    (mean, error), name = mean_and_error(found[:, 0]), f"mixture, {dim}"
    one = f"{_short(found[:, 2].mean())} (one Normal)"
    yield Row(name, "KL", mean, error, f"0; {one}", _short(found[:, 1].mean()), training=training)
    for other, prior in dt_mixtures.priors().items() if dim == 2 else ():
        mean, error, off = dt_mixtures.changed(net, prior, NEW)
        yield Row(name, f"KL under the prior: {other}; corrected mean off by {off:.3f} sd", mean, error, "0")


def proposing(factor: float) -> Iterator[Row]:
    net, training = timed(partial(dt_smc.trained, key=KEY, optimizer=ADAM), int(factor * 1000))
    found = dt_smc.compared(net, NEW, 10, 4)
    middle = found["reference"].mean(1)
    for kind in ("guided", "bootstrap"):
        mean, error = mean_and_error((found[kind].mean(1) - middle) / dt_smc.LENGTH)
        spread = np.sqrt(found[kind].var(1, ddof=1).mean())
        what = f"{kind}, 500 particles (sd of a log evidence {spread:.2f}): log evidence per step away from 50,000's"
        asked = 0.02 if kind == "guided" else None
        yield Row("proposal", what, abs(mean), error, asked=asked, training=training if kind == "guided" else "")


TASKS: dict[str, Callable[[float], Iterator[Row]]] = {
    **{name: partial(one_number, name) for name in dt_one_number.TASKS},
    **{f"filter, {dim}": partial(filtering, dim) for dim in (1, 2, 4)},
    **{f"mixture, {dim}": partial(mixing, dim) for dim in (1, 2, 4, 8)},
    "proposal": proposing,
}


def kept() -> dict[str, list[Row]]:
    """Rows by task, the latest of each."""
    lines = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    return {line["task"]: [Row(*row) for row in line["rows"]] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--fast", action="store_true", help="a tenth of the steps; nothing is kept")
    parser.add_argument("--write", action="store_true", help="write results/dt.md")
    asked = parser.parse_args()
    header = ["task", "what", "found", "floor", "untrained", "asked for", "reached", "published", "training"]
    for name in [asked.only] if asked.only else TASKS if not asked.write else []:
        rows = list(TASKS[name](0.1 if asked.fast else 1.0))
        print(table(header, [row.cells() for row in rows]), flush=True)
        if not asked.fast:
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            with KEPT.open("a") as file:
                file.write(json.dumps({"task": name, "rows": rows}) + "\n")
    if asked.write:
        done = kept()
        rows = [row.cells() for name in TASKS for row in done.get(name, [])]
        what = (
            f"KL(exact posterior || network) in nats, means over {CASES} priors and data (filters: 200 series) that training "
            "did not see, and standard errors. *Floor*: the best mixture of as many components. *Untrained*: KL(exact || "
            "prior), what a network that ignores the data scores. *Published*: DT-5 of Whittle et al. (2025), tables 1, 2 and "
            "5, after 10 to 40 million samples on a GPU; ours are trained on the processor, seconds of it (of all threads, "
            "compilation included) in the last column. Adam at 0.01, 64 or 128 data sets a step; float32. "
            f"{machine(('jax', 'optax'))}"
        )
        write("dt", "Distribution Transformers against exact answers", what, table(header, rows))


if __name__ == "__main__":
    main()
