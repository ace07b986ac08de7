"""Result tables with the machine they were measured on."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine(libraries: Sequence[str] = ("jax", "numpyro")) -> str:
    """One sentence: cores, processor, Python and library versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return f"Machine: {os.cpu_count()} cores, {model}; Python {platform.python_version()}, {versions}."


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def write(name: str, title: str, *parts: str) -> None:
    """Write `results/<name>.md`: a title, and paragraphs or tables."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n\n".join([f"# {title}", *parts]) + "\n")
