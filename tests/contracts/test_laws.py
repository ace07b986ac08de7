"""Every law on every model of the registry, in double precision; `test_float32.py` has the densities in single."""

from functools import cache

import pytest

from . import laws
from .models import CASES

MODELS = pytest.mark.parametrize("name", CASES)


@cache
def run_of(name: str) -> laws.Run:
    return laws.simulate(CASES[name])


@pytest.fixture
def run(name, x64):
    return run_of(name)


@MODELS
def test_density_is_the_oracles(run):
    laws.density_is_the_oracles(run)


@MODELS
def test_runs_agree(run):
    laws.runs_agree(run)


@MODELS
def test_table_is_the_traces(run):
    laws.table_is_the_traces(run)


@MODELS
def test_conditioning_is_fixing(run):
    laws.conditioning_is_fixing(run)


@MODELS
def test_generate_brackets(run):
    laws.generate_brackets(run)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.exact is not None])
def test_generate_is_unbiased(name, run):
    laws.generate_is_unbiased(run.program, CASES[name].exact)


TARGETS = pytest.mark.parametrize("name", [n for n, case in CASES.items() if not case.conditional and n != "coins"])


@TARGETS
def test_change_of_variables(run):
    laws.change_of_variables(run)


@TARGETS
def test_gradients_are_right(run):
    laws.gradients_are_right(run)
