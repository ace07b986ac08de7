"""Evidence is honest: over many runs, log evidence lies around the exact value as its own error says.

Of 200 runs (slow tests) the mean of z is within 0.3 and its standard deviation within [0.85, 1.15]. Were the error exact
the chance of being outside would be 2e-5 and 0.3 %; keys are fixed.
"""

import jax
import numpy as np
import pytest

import inference as inf
from tests.inference import exact_cases as cases
from tests.inference.evidence import z_scores

SYSTEMATIC = inf.particle_filter(resample=inf.Systematic())
CASES = {
    "the Nile, triggered": (cases.nile, inf.particle_filter(), 8000),
    "the Nile, systematic": (cases.nile, SYSTEMATIC, 8000),
    "earthquakes": (cases.earthquakes, inf.particle_filter(), 1000),
    "a series in one dimension": (lambda: cases.linear(1, 40, 0.5), inf.particle_filter(), 8000),
    "a series in twenty dimensions": (lambda: cases.linear(20, 5, 3.0), inf.particle_filter(), 40_000),
    "regression": (cases.regression, inf.tempering(), 500),
    "regression, HMC": (cases.regression, inf.tempering(inf.HMC(4)), 1000),
    "regression, waste-free": (cases.regression, inf.waste_free(length=100), 16_000),
    "a narrow normal": (cases.annealed, inf.tempering(), 500),
    "two bumps": (cases.mixture, inf.tempering(), 1000),
    "a box": (cases.box, inf.tempering(), 500),
    "a constant": (cases.constant, inf.tempering(), 500),
    "chronometers": (lambda: cases.cosmology(clocks=True, supernovae=False), inf.tempering(), 500),
    "supernovae": (lambda: cases.cosmology(clocks=False, supernovae=True), inf.tempering(), 500),
    "chronometers and supernovae": (lambda: cases.cosmology(clocks=True, supernovae=True), inf.tempering(), 500),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_errors_are_right(name):
    case, method, particles = CASES[name]
    case = case()
    if name == "a constant":
        posterior = inf.smc(case.program, method, key=jax.random.key(0), particles=particles, progress=False)
        assert posterior.log_evidence == pytest.approx(case.exact, abs=1e-5)
        assert posterior.log_evidence_error < 1e-3
        return
    z = z_scores(method, case, particles, 200)
    assert abs(z.mean()) < 0.3, (z.mean(), z.std())
    assert 0.85 < z.std() < 1.15, (z.mean(), z.std())


@pytest.mark.parametrize("name", ["chronometers", "a series in one dimension"])
def test_one_run_is_near(name):
    case, method, particles = CASES[name]
    case = case()
    posterior = inf.smc(case.program, method, key=jax.random.key(1), particles=particles, progress=False)
    assert abs(posterior.log_evidence - case.exact) < 5 * posterior.log_evidence_error
    assert 0.02 < posterior.log_evidence_error < 0.5
    assert np.isfinite(posterior.stages["ess"]).all()
