"""What importing ppl and inference costs on top of importing jax and numpyro: ``python benchmarks/import_time.py``.

The two imports alternate, each in a fresh interpreter, so that a busy machine slows both alike; the medians of their
paired differences and of each are printed. Reported, not asserted: seconds are a machine's, not a library's.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = "import jax, numpyro"
FULL = "import jax, numpyro, ppl, inference"
ROUNDS = 11


def seconds(code: str) -> float:
    """Wall seconds of a fresh interpreter that runs the code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    seconds(FULL)  # writes the byte code, warms the disk
    pairs = [(seconds(BASE), seconds(FULL)) for _ in range(ROUNDS)]
    base, full = (statistics.median(column) for column in zip(*pairs, strict=True))
    extra = statistics.median(f - b for b, f in pairs)
    print(f"import jax, numpyro            {base:.2f} s")
    print(f"  and ppl, inference           {full:.2f} s")
    print(f"  extra, median of {ROUNDS} pairs     {extra:.2f} s (aim: at most 0.3 s)")


if __name__ == "__main__":
    main()
