"""Reads the three packages as syntax trees: modules, what they import, and where."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.architecture.floors import PACKAGES

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name."""

    target: str
    line: int
    lazy: bool  # inside a function: runs when called, not at import


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the three packages (``ppl`` itself is ``ppl/__init__.py``)."""
    found = {}
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(modules()[module].read_text(), filename=str(modules()[module]))


def _walk(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.stmt, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue  # read by type checkers only
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        yield from _walk(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def _base(module: str, node: ast.ImportFrom) -> str:
    """The absolute module that a from-import reads, relative dots resolved."""
    if not node.level:
        return node.module or ""
    is_package = modules()[module].name == "__init__.py"
    anchor = module.split(".")
    anchor = anchor[: len(anchor) - node.level + is_package]
    return ".".join(anchor + ([node.module] if node.module else []))


@cache
def imports(module: str) -> list[Import]:
    """Every import of a module; ``from a import b`` counts as ``a.b`` where that is a module of ours, else as ``a``."""
    found = []
    for node, lazy in _walk(tree(module), False):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                found.append(Import(deeper if deeper in modules() else base, node.lineno, lazy))
    return found


def ours(name: str) -> bool:
    """Whether a dotted name lies in one of the three packages."""
    return name.split(".")[0] in PACKAGES
