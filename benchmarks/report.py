"""Result tables with the machine they were measured on."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """One sentence: cores, processor, Python and library versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpyro"))
    return f"Machine: {os.cpu_count()} cores, {model}; Python {platform.python_version()}, {libraries}."


def write(name: str, title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write `results/<name>.md`: title, note, one table."""
    lines = [f"# {title}", "", note, "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
