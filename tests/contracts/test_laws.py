"""Every law on every model of the registry, in double precision; `test_float32.py` has the densities in single."""

from functools import cache

import pytest

from . import laws
from .models import CASES, Case

LAWS = [
    laws.density_is_the_oracles,
    laws.runs_agree,
    laws.table_is_the_traces,
    laws.conditioning_is_fixing,
    laws.generate_brackets,
]
TARGET_LAWS = [laws.change_of_variables, laws.gradients_are_right]


def laws_of(case: Case):
    return LAWS + ([] if case.target is False else TARGET_LAWS)


@cache
def run_of(name: str) -> laws.Run:
    return laws.simulate(CASES[name])


# the laws of one model follow one another, so that a worker simulates it once
@pytest.mark.parametrize(
    ("name", "law"),
    [pytest.param(name, law, id=f"{name}-{law.__name__}") for name, case in CASES.items() for law in laws_of(case)],
)
def test_law(name, law, x64):
    law(run_of(name))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.exact is not None])
def test_generate_is_unbiased(name, x64):
    laws.generate_is_unbiased(run_of(name).program, CASES[name].exact)
