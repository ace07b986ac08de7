"""Tables from single runs: the targets, all ratios of the default sampler, and every peer's numbers.

    print(summary(records)); print(*details(records), sep="\\n\\n")

A peer's number on a posterior is the median over rounds. Effective samples are those of the worst published parameter,
bulk or tail, whichever are fewer.
"""

from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from statistics import fmean, median

from benchmarks.peers import PEERS
from benchmarks.report import table

OURS, BASE = "evidentia", "numpyro"
CONVERGED = 1.05  # R-hat; above it, effective samples say little
LONG_RUN = 30.0  # seconds; the difference of two runs longer than this says nothing about the time to compile

NOTE = f"""Every run is a process of its own: defaults, 4 chains x (1000 + 1000), float64; Evidentia's warm-up ends when its
chains agree, after at most 1000 steps. ESS: effective samples of the worst published parameter, bulk or tail, whichever are
fewer; per second of warm-up and sampling with nothing to compile, and per 1000 gradients of both and of the search for first
positions. Medians over rounds. In brackets: R-hat above 1.01. A peer counts as the best only where its R-hat is at most
{CONVERGED}; where NumPyro's is not, its ratio is not in the means. nutpie's density is called back from Python, so its seconds
do not count; "at Stan's pace" gives it the seconds that Stan needs for as many gradients of the same density."""

Measure = Callable[[dict], float | None]


def ess(r: dict) -> float:
    return min(r["ess_bulk"], r["ess_tail"])


def per_second(r: dict) -> float | None:
    return ess(r) / r["run"] if r["run"] else None


def per_gradient(r: dict) -> float:
    """Effective samples per 1000 gradients."""
    return 1000 * ess(r) / r["gradients"]


def compiling(r: dict) -> float | None:
    return r["whole"] - r["run"] if r["run"] and r["run"] <= LONG_RUN else None


class Suite:
    """Records by posterior and peer."""

    def __init__(self, records: Iterable[dict]) -> None:
        self.runs: dict[tuple[str, str], list[dict]] = {}
        self.failures: dict[tuple[str, str], str] = {}
        for record in records:
            where = record["name"], record["peer"]
            if "failure" in record:
                self.failures[where] = record["failure"]
            else:
                self.runs.setdefault(where, []).append(record)
        both = {*self.runs, *self.failures}
        self.names = sorted({name for name, _ in both})
        self.peers = [peer for peer in PEERS if any(p == peer for _, p in both)]

    def value(self, name: str, peer: str, measure: Measure) -> float | None:
        """The median over rounds; None where a round did not end, or has no such number."""
        values = [measure(r) for r in self.runs.get((name, peer), [])]
        known = [v for v in values if v is not None]
        return median(known) if known and len(known) == len(values) and (name, peer) not in self.failures else None

    def converged(self, name: str, peer: str) -> bool:
        rhat = self.value(name, peer, lambda r: r["rhat"])
        return rhat is not None and rhat <= CONVERGED

    def at_stans_pace(self, name: str, peer: str) -> float | None:
        """Effective samples per second, for nutpie as if its gradients took Stan's time."""
        each = self.value(name, "stan", lambda r: r["gradients"] / r["run"])
        gradient = self.value(name, peer, per_gradient)
        if not peer.startswith("nutpie"):
            return self.value(name, peer, per_second)
        return gradient * each / 1000 if each is not None and gradient is not None else None

    def best(self, name: str, value: Callable[[str, str], float | None]) -> tuple[str, float] | None:
        """The best peer that converged, and its number."""
        found = [(v, p) for p in self.peers if p != OURS and self.converged(name, p) and (v := value(name, p)) is not None]
        return (max(found)[1], max(found)[0]) if found else None

    def to_base(self, measure: Measure, name: str) -> float | None:
        """Ours / NumPyro's."""
        a, b = self.value(name, OURS, measure), self.value(name, BASE, measure)
        return a / b if a is not None and b and self.converged(name, BASE) else None

    def to_best(self, value: Callable[[str, str], float | None], name: str) -> float | None:
        a, best = value(name, OURS), self.best(name, value)
        return a / best[1] if a is not None and best and best[1] > 0 else None

    def each(self, ratio: Callable[[str], float | None]) -> list[float]:
        return [x for x in map(ratio, self.names) if x is not None]


def summary(records: Sequence[dict]) -> str:
    """The targets, and what was measured."""
    suite = Suite(records)

    def by(measure: Measure):
        return lambda name, peer: suite.value(name, peer, measure)

    def against_base(measure: Measure) -> list[float]:
        return suite.each(lambda name: suite.to_base(measure, name))

    seconds, gradients = against_base(per_second), against_base(per_gradient)
    best = {
        "ESS/s against the best peer of each posterior": suite.each(lambda n: suite.to_best(by(per_second), n)),
        "the same, with nutpie at Stan's pace": suite.each(lambda n: suite.to_best(suite.at_stans_pace, n)),
    }
    rows = [verdict(what, ratios, mean(ratios), 1.3) for what, ratios in best.items()]
    fewer = suite.each(lambda n: suite.to_best(by(per_gradient), n))
    rows += [
        ["ESS/gradient against the best peer of each posterior", "-", shown(mean(fewer)), len(fewer), ""],
        verdict("ESS/s against NumPyro, vectorised", seconds, mean(seconds), 4.0),
        verdict("- the worst posterior", seconds, min(seconds, default=None), 0.9),
        verdict("ESS/gradient against NumPyro", gradients, mean(gradients), 3.5),
    ]
    for tail in ("ess_bulk", "ess_tail"):
        only = against_base(lambda r, tail=tail: r[tail] / r["run"] if r["run"] else None)
        rows.append([f"- ESS/s against NumPyro, {tail[4:]} only", "-", shown(mean(only)), len(only), ""])
    whole = against_base(lambda r: 1 / r["whole"])
    rows.append(["Whole time, NumPyro's / ours", "-", shown(mean(whole)), len(whole), ""])
    times = [(suite.value(n, OURS, compiling), suite.value(n, BASE, compiling)) for n in suite.names]
    pairs = [(a, b) for a, b in times if a is not None and b is not None]
    if pairs:
        a, b = (median(side) for side in zip(*pairs, strict=True))
        shares = f"{a / b:.2f} ({a:.1f} s, {b:.1f} s)"
        rows.append(["Median compile time, ours / NumPyro's", "at most 0.5", shares, len(pairs), said(a / b <= 0.5)])
    here = [n for n in suite.names if (n, OURS) in suite.runs or (n, OURS) in suite.failures]
    stuck = [n for n in here if not suite.converged(n, OURS)]
    rows.append(["R-hat at most 1.05, ours", "all", f"{len(here) - len(stuck)}", len(here), said(not stuck)])
    for peer in suite.peers:
        if peer not in (OURS, BASE):
            for what, measure in (("ESS/s", per_second), ("ESS/gradient", per_gradient)):
                ratios = suite.each(lambda n, m=measure, p=peer: theirs(suite, m, n, p))
                if ratios:
                    rows.append([f"{PEERS[peer].title} against NumPyro: {what}", "-", shown(mean(ratios)), len(ratios), ""])
    return table(["geometric means", "target", "measured", "posteriors", "met"], rows)


def theirs(suite: Suite, measure: Measure, name: str, peer: str) -> float | None:
    """A peer's number / NumPyro's, where both converged."""
    a, b = suite.value(name, peer, measure), suite.value(name, BASE, measure)
    return a / b if a is not None and b and suite.converged(name, peer) and suite.converged(name, BASE) else None


def details(records: Sequence[dict]) -> list[str]:
    """A table of our ratios, and three of every peer's effective samples and times."""
    suite = Suite(records)
    rows = []
    for name in suite.names:

        def best(measure: Measure, name=name) -> str:
            def value(n, p):
                return suite.value(n, p, measure)

            ratio = suite.to_best(value, name)
            return "-" if ratio is None else f"{ratio:.2f} ({PEERS[suite.best(name, value)[0]].title})"

        ratios = [shown(suite.to_base(m, name)) for m in (per_second, per_gradient, compiling, lambda r: r["whole"])]
        exact = [suite.value(name, OURS, lambda r, k=k: r[k]) for k in ("rhat", "z")]
        ours = ["-" if x is None else f"{x:.{digits}f}" for x, digits in zip(exact, (3, 1), strict=True)]
        rows.append([name, best(per_second), best(per_gradient), *ratios, *ours])
    header = ["Evidentia against", "best peer: ESS/s", "best peer: ESS/gradient", "NumPyro: ESS/s", "ESS/gradient"]
    header += ["trace + compile", "whole time", "our R-hat", "our largest distance from the reference, standard errors"]
    titles = [PEERS[peer].title for peer in suite.peers]

    def every(what: str, measure: Measure, digits: int) -> str:
        cells = [[name, *(cell(suite, name, peer, measure, digits) for peer in suite.peers)] for name in suite.names]
        return table([what, *titles], cells)

    return [
        table(header, rows),
        every("ESS/s", per_second, 0),
        every("ESS per 1000 gradients", per_gradient, 2),
        every("whole time, s", lambda r: r["whole"] if r["run"] else None, 1),
        every("trace + compile, s", compiling, 1),
    ]


def cell(suite: Suite, name: str, peer: str, measure: Measure, digits: int) -> str:
    failure = suite.failures.get((name, peer))
    if failure:
        return failure if failure.startswith("over") else "failed"
    value, rhat = suite.value(name, peer, measure), suite.value(name, peer, lambda r: r["rhat"])
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" ({rhat:.2f})" if rhat is not None and rhat > 1.01 else "")


def mean(ratios: Sequence[float]) -> float | None:
    """The geometric mean."""
    return exp(fmean(log(max(r, 1e-6)) for r in ratios)) if ratios else None


def shown(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}"


def said(met: bool) -> str:
    return "yes" if met else "no"


def verdict(what: str, ratios: Sequence[float], value: float | None, target: float) -> list:
    return [what, f"at least {target}", shown(value), len(ratios), "-" if value is None else said(value >= target)]


def line(record: dict) -> str:
    """One run in one line."""
    who = f"{record['round']} {record['name']} | {PEERS[record['peer']].title} | "
    if "failure" in record:
        return who + record["failure"].splitlines()[-1]
    speed = per_second(record)
    return who + (
        f"{'-' if speed is None else f'{speed:.0f}'} ESS/s, {per_gradient(record):.2f} per 1000 gradients, "
        f"{record['whole']:.1f} s in all, R-hat {record['rhat']:.3f}, {record['z']:.1f} standard errors off"
    )
