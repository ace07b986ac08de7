"""Single runs, each in a process of its own, kept in a file as they end: a long benchmark can be broken off and resumed.

    runs = Runs("build/benchmarks/nuts.jsonl", limit=300.0)
    record = runs.of("stan", "arK-arK", round=0)     # run now, or read from the file

A record has `peer`, `name`, `round`, `load`, and either the numbers of `benchmarks.peers.measure` or `failure`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOO_LONG = "over"


class Runs:
    """The file of runs. Only what ends is kept; a run that was broken off is run again."""

    def __init__(self, path: str | Path, *, limit: float) -> None:
        self.path, self.limit = Path(path), limit
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.records = {(r["peer"], r["name"], r["round"]): r for r in map(json.loads, lines)}

    def of(self, peer: str, name: str, round: int) -> dict:
        """The record of a run, which runs now if the file has none. What took too long once is not tried in later rounds."""
        for earlier in (round, *range(round)):
            known = self.records.get((peer, name, earlier))
            if known is not None and (earlier == round or known.get("failure", "").startswith(TOO_LONG)):
                return {**known, "round": round}
        return self._keep(self._measured(peer, name, round))

    def _keep(self, record: dict) -> dict:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        self.records[record["peer"], record["name"], record["round"]] = record
        return record

    def _measured(self, peer: str, name: str, round: int) -> dict:
        which = {"peer": peer, "name": name, "round": round, "load": load()}
        command = [sys.executable, "-m", "benchmarks.runs", peer, name, str(round)]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            # a session of its own: samplers start processes, which have to end with theirs
            process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
            try:
                code = process.wait(self.limit)
            except subprocess.TimeoutExpired:
                return {**which, "failure": f"{TOO_LONG} {self.limit:.0f} s"}
            finally:
                end(process)
            if code:
                err.seek(0)
                return {**which, "failure": (err.read().strip() or f"exit code {code}")[-2000:]}
            out.seek(0)
            return {**which, **json.loads(out.read().splitlines()[-1])}


def end(process: subprocess.Popen) -> None:
    """End a worker and the processes it started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


def load(seconds: float = 1.0) -> float:
    """Busy cores, over one second. (The load average of a minute would still hold the run before.) 0 where not known."""

    def jiffies() -> tuple[int, int]:
        numbers = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    if not Path("/proc/stat").exists():
        return 0.0
    before = jiffies()
    time.sleep(seconds)
    total, idle = (b - a for a, b in zip(before, jiffies(), strict=True))
    return (os.cpu_count() or 1) * (1 - idle / max(total, 1))


def work(peer: str, name: str, round: int) -> None:
    """One run; its last line of output is its record."""
    import jax

    from benchmarks.peers import PEERS
    from benchmarks.peers.measure import numbers

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", PEERS[peer].devices)
    print("\n" + json.dumps(numbers(name, PEERS[peer].run(name, round))), flush=True)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
