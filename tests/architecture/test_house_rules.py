"""Rules that a reader can check by eye and a test checks faster."""

import ast
import importlib
import importlib.metadata
import inspect
import types

import pytest

from tests.architecture.floors import PACKAGES
from tests.architecture.sources import ROOT, imports, modules, tree

FORBIDDEN_IMPORTS = ("jax._src", "pickle", "cloudpickle", "dill", "__future__")
FORBIDDEN_NAMES = {"_src", "pmap"}


def trespasses(syntax: ast.AST) -> list[str]:
    """Forbidden attributes and names in a syntax tree, as ``line: name``."""
    hits = []
    for node in ast.walk(syntax):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if name in FORBIDDEN_NAMES:
            hits.append(f"{node.lineno}: {name}")
    return hits


def public_names(package: str) -> list[str]:
    """What a package offers: ``__all__`` where it is written, else every name without an underscore."""
    module = importlib.import_module(package)
    return list(getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]))


def documented(value: object) -> bool:
    """Whether a value carries words of its own: not the signature that a dataclass writes, nor a parent's docstring."""
    if isinstance(value, types.ModuleType):
        return True  # ppl.dist is numpyro's own; our own are looked into by themselves
    doc = vars(value).get("__doc__") if isinstance(value, type) else inspect.getdoc(value)
    return bool(doc) and not (isinstance(value, type) and doc.startswith(f"{value.__name__}("))


@pytest.mark.parametrize("module", modules())
def test_no_private_jax_no_pickle_no_pmap(module):
    bad = [f"{i.line}: {i.target}" for i in imports(module) if i.target.startswith(FORBIDDEN_IMPORTS)]
    assert bad + trespasses(tree(module)) == [], modules()[module].relative_to(ROOT)


def test_trespassers_are_seen():
    assert len(trespasses(ast.parse("jax.pmap(f); jax._src.core; pmap"))) == 3


@pytest.mark.parametrize("module", modules())
def test_every_file_opens_with_what_it_is(module):
    assert ast.get_docstring(tree(module)), f"{modules()[module].relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("package", [*PACKAGES, "inference.metrics", "inference.mcmc.adaptation", "surrogates.emulators"])
def test_every_public_name_is_documented(package):
    module = importlib.import_module(package)
    missing = [n for n in public_names(package) if not documented(getattr(module, n))]
    assert missing == [], f"{package} offers names without a docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_front_door_offers_no_submodule_by_accident(package):
    module = importlib.import_module(package)
    ours = [n for n in getattr(module, "__all__", []) if isinstance(getattr(module, n), types.ModuleType)]
    meant = {"dist", "metrics", "adaptation", "steps", "resampling", "exact", "steering", "vi", "optimise"}
    assert set(ours) <= meant | {"emulators", "conformal", "batch_conformal", "unshrink"}, ours


@pytest.mark.parametrize("package", PACKAGES)
def test_evidentia_alone_owns_the_name(package):
    # An editable installation lists no files, so it may be absent here; the wheel's own test asks for it by name.
    owners = set(importlib.metadata.packages_distributions().get(package, []))
    assert owners <= {"evidentia"}, f"import {package} could come from {owners}"
    assert importlib.import_module(package).__file__ == str(ROOT / package / "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_shipped(package):
    assert (ROOT / package / "py.typed").exists() and (ROOT / package / "README.md").exists()
