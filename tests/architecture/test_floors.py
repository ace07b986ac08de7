"""Imports only point down: between the packages, and inside each by floors (the plan is floors.py)."""

import pytest

from tests.architecture.floors import DOORS, FLOORS, NUMPYRO_BORDER, PACKAGES, floor_of
from tests.architecture.sources import ROOT, Import, imports, modules, ours


def upward(module: str, step: Import) -> str | None:
    """What is wrong with this import, as a sentence; None where it points down."""
    here, there = module.split(".")[0], step.target.split(".")[0]
    where = f"{modules()[module].relative_to(ROOT)}:{step.line} imports {step.target}"
    if here != there:
        return None if PACKAGES.index(there) < PACKAGES.index(here) else f"{where}: {here} lies below {there}"
    mine, theirs = floor_of(module), floor_of(step.target)
    if mine is None or theirs is None or mine >= theirs or (step.lazy and (module, step.target) in DOORS):
        return None
    return f"{where}: floor {mine} reaches up to floor {theirs} (move one of them, or list a door in floors.py)"


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_floor(module):
    name = modules()[module].relative_to(ROOT)
    assert floor_of(module) is not None, f"{name} stands on no floor: add it to tests/architecture/floors.py"


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module):
    wrong = [upward(module, step) for step in imports(module) if ours(step.target)]
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_no_circles():
    """No chain of import-time imports comes back to where it began."""
    graph = {m: [i.target for i in imports(m) if ours(i.target) and not i.lazy and i.target != m] for m in modules()}
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done and module in graph:
            for target in graph[module]:
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_every_door_is_used():
    open_doors = {(m, i.target) for m in modules() for i in imports(m) if i.lazy}
    assert DOORS <= open_doors, f"doors that nothing opens: {sorted(DOORS - open_doors)}"


def test_numpyro_is_named_at_the_border_only():
    inside = [m for m in modules() if any(i.target.split(".")[0] == "numpyro" for i in imports(m))]
    named = {str(modules()[m].relative_to(ROOT)) for m in inside}
    assert named <= NUMPYRO_BORDER, f"numpyro is imported in {sorted(named - NUMPYRO_BORDER)}; go through ppl instead"


def test_the_plan_can_fail():
    """Planted: a low floor importing a high one, and a package importing the one above it."""
    assert floor_of("ppl") == len(FLOORS["ppl"]) - 1 and floor_of("ppl.combinators.scan") == floor_of("ppl.combinators")
    low = next(m for m in modules() if m.startswith("ppl.") and floor_of(m) == 0)
    assert upward(low, Import("ppl.target", 1, False)) and upward(low, Import("inference.kernel", 1, True))
    assert upward(low, Import("ppl.target", 1, True)) and not upward("ppl", Import(low, 1, False))
