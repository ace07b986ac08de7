"""The default sampler against all peers on all reference posteriors.

    python -m benchmarks.nuts --rounds 1 --only eight_schools,garch --peers numpyro,stan
    python -m benchmarks.nuts --rounds 3 --write

Every run is kept in build/benchmarks/nuts.jsonl, and a run that is there is not run again: break it off and resume it as you
like, run it in parts, raise the rounds. `--write` writes benchmarks/results/nuts.md from the runs of the named rounds. What
is measured and how: benchmarks/README.md.
"""

import argparse
from importlib.metadata import PackageNotFoundError, version

from benchmarks.peers import PEERS
from benchmarks.report import machine, write
from benchmarks.runs import Runs
from benchmarks.table import NOTE, details, line, summary

CROSSED = 0.5  # busy cores before a run, above which its times are doubtful


def installed(peers: list[str]) -> list[str]:
    """The peers whose library is there; a sentence for each that is not."""
    found = []
    for peer in peers:
        try:
            version(PEERS[peer].library)
            found.append(peer)
        except PackageNotFoundError:
            print(f"{PEERS[peer].title} is left out: {PEERS[peer].library} is not installed.")
    return found


def main() -> None:
    from benchmarks.numpyro_models import MODELS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated parts of posteriors' names")
    parser.add_argument("--peers", default="", help=f"comma-separated, of {', '.join(PEERS)}; Evidentia is always in")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a process is ended")
    parser.add_argument("--kept", default="build/benchmarks/nuts.jsonl", help="the file of single runs")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/nuts.md")
    args = parser.parse_args()

    asked = [p for p in args.peers.split(",") if p] or list(PEERS)
    unknown = [p for p in asked if p not in PEERS]
    if unknown:
        parser.error(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    peers = installed([p for p in PEERS if p in asked or p == "evidentia"])
    names = [n for n in MODELS if any(part in n for part in args.only.split(","))]
    runs = Runs(args.kept, limit=args.limit)
    for i in range(args.rounds):
        for name in names:
            for peer in reversed(peers) if i % 2 else peers:
                print(line(runs.of(peer, name, i)), flush=True)

    records = [runs.of(peer, name, i) for peer in peers for name in names for i in range(args.rounds)]
    tables = summary(records), *details(records)
    print(tables[0])
    if args.write:
        crossed = sum(record["load"] > CROSSED for record in records)
        beside = f"Before {crossed} of them other work held over {CROSSED} cores." if crossed else "No other work beside them."
        turns = "Peers take turns, but a run that was kept is not repeated, so some may have run at another time of the day."
        note = f"{len(records)} runs: {args.rounds} rounds. {turns} {beside}"
        used = machine(sorted({"jax", *(PEERS[peer].library for peer in peers)}))
        write("nuts", "The default sampler against its peers", NOTE, f"{note} {used}", *tables)


if __name__ == "__main__":
    main()
