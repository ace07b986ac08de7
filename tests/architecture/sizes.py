"""A report on sizes, not a test: ``python -m tests.architecture.sizes``.

Files past 400 lines and functions past 60 (docstring not counted) are places to look for a second idea.
"""

import ast
import statistics

from tests.architecture.floors import PACKAGES
from tests.architecture.sources import ROOT, modules, tree
from tests.architecture.test_house_rules import public_names

LONG_FILE, LONG_FUNCTION = 400, 60


def file_lengths(package: str) -> dict[str, int]:
    """Lines of each file of a package, by path."""
    files = [p for m, p in modules().items() if m.split(".")[0] == package]
    return {str(p.relative_to(ROOT)): p.read_text().count("\n") for p in files}


def long_functions() -> list[str]:
    """Functions past the length worth a look, as ``module.name (lines)``."""
    found = []
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1 - (ast.get_docstring(node) or "").count("\n")
                if lines > LONG_FUNCTION:
                    found.append(f"{module}.{node.name} ({lines})")
    return found


def main() -> None:
    """Print the report."""
    for package in PACKAGES:
        lengths = file_lengths(package)
        middle = statistics.median(lengths.values())
        print(
            f"{package}: {len(lengths)} files, {sum(lengths.values())} lines, median {middle:.0f}, "
            f"longest {max(lengths.values())}, {len(public_names(package))} public names"
        )
        for name, lines in lengths.items():
            if lines > LONG_FILE:
                print(f"  long file: {name} ({lines})")
    for name in long_functions():
        print(f"  long function: {name}")


if __name__ == "__main__":
    main()
