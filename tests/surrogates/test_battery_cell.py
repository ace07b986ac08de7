"""The single-particle cell, against tabulated voltages, a series for constant diffusivity, and what is conserved."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from benchmarks.battery_cell import Grid, Parameters, flux, nominal, particle, rise_of, simple, voltage

REFERENCE = json.loads((Path(__file__).parents[2] / "benchmarks/data/spm_reference.json").read_text())["voltages"]
TIMES = np.array(REFERENCE["t_s"])
THETA = np.array([case["theta"] for case in REFERENCE["cases"]])
KNOWN = np.array([case["V"] for case in REFERENCE["cases"]])


def voltages(theta, times, **settings):
    """Of rows of theta (n, 2): exchange current of the anode, diffusivity of the cathode."""
    one = jax.jit(lambda theta: voltage(Parameters(i0_a=theta[0], Ds_c=theta[1]), jnp.asarray(times, float), **settings))
    return np.asarray(jax.vmap(one)(jnp.asarray(theta, float)))


def off(**settings) -> float:
    """The largest error of the tabulated voltages, in mV."""
    return 1e3 * float(np.max(np.abs(voltages(THETA, TIMES, **settings) - KNOWN)))


def test_tabulated_voltages_to_a_tenth_of_a_millivolt(precision):
    """The table is good to 2e-6 V. In float32 a voltage of 4 has digits of 2.4e-7, and the solver sums 128 steps of them."""
    assert off() < 0.1


def test_errors_fall_as_the_square_of_the_grid(x64):
    """By about four for twice the cells and steps; a coarse level is the same function, and worse."""
    errors = [off(grid=Grid(n, 2 * n)) for n in (8, 16, 32)]
    assert errors[0] < 2.0 and all(1.5 < coarse / fine < 6.0 for coarse, fine in zip(errors, errors[1:], strict=False))
    assert errors[2] > 0.1  # so the test above can fail


def test_check_values(x64):
    cell = nominal()
    assert cell.anode.open_circuit(jnp.asarray(0.91)) == pytest.approx(0.08477887, abs=1e-8)
    assert cell.cathode.open_circuit(jnp.asarray(0.39)) == pytest.approx(4.18743056, abs=1e-8)
    assert cell.anode.exchange(jnp.asarray(0.91)) == pytest.approx(6.4604557, rel=1e-7)
    assert cell.cathode.exchange(jnp.asarray(0.39)) == pytest.approx(4.7992504, rel=1e-7)
    assert cell.cathode.diffusivity(jnp.asarray(0.6)) == pytest.approx(4.36306e-15, rel=1e-5)
    assert flux(cell.anode, cell, 2.0, 1.0) == pytest.approx(1.5614587e-08, rel=1e-7)
    assert flux(cell.cathode, cell, 2.0, 1.0) == pytest.approx(-8.3874929e-09, rel=1e-7)


def series(fourier: float, s: np.ndarray, num: int = 400) -> np.ndarray:
    """The surface's filling beyond the start, in units of rise, where D is constant: over the roots of tan l = l,
    3 s^2 + (1/5 - 2 sum exp(-l^2 F s^2)/l^2)/F."""
    roots = [brentq(lambda x: np.sin(x) - x * np.cos(x), np.pi * k + 1e-9, np.pi * (k + 0.5)) for k in range(1, num + 1)]
    square = np.array(roots) ** 2
    return 3.0 * s**2 + (0.2 - 2.0 * np.sum(np.exp(-square * fourier * s[:, None] ** 2) / square, -1)) / fourier


def test_a_particle_of_constant_diffusivity_is_the_series(x64):
    """To 5e-5 of the filling from 10 s on, where it is farthest off, and 2e-6 at the end: second order, at 64 cells."""
    cell = nominal()
    rise = rise_of(cell.anode, flux(cell.anode, cell, 2.0, 1.0))
    history = particle(cell.anode, 1.0, rise, 1350.0, Grid())
    s = np.arange(129)[12:] / 128
    known = cell.anode.start + rise * 1350.0 * series(3e-14 / cell.anode.radius**2 * 1350.0, s)
    assert np.max(np.abs(np.asarray(history.surface)[12:] - known)) < 5e-5
    assert abs(history.surface[-1] - known[-1]) < 2e-6
    assert history.surface[-1] == pytest.approx(0.378518, abs=1e-5)


@pytest.mark.parametrize("side", ["anode", "cathode"])
def test_what_goes_in_stays(x64, side):
    """The mean rises by three times `rise`, to rounding, whatever D does: BDF2 and its first step are exact for it, as s^2."""
    cell = nominal()
    electrode = getattr(cell, side)
    rise = rise_of(electrode, flux(electrode, cell, 2.0, 0.9))
    history = particle(electrode, 0.7, rise, 1350.0, Grid(12, 20, 1))
    s = np.arange(21) / 20
    np.testing.assert_allclose(history.mean, electrode.start + 3.0 * rise * 1350.0 * s**2, rtol=0, atol=1e-12)


def test_the_voltage_is_affine_in_one_over_the_exchange_current(x64):
    """And the linear cell's voltage at rest is that of its state equations."""
    one, two, four = voltages(np.array([[1.0, 3.0], [2.0, 3.0], [4.0, 3.0]]), TIMES)
    np.testing.assert_allclose(one - two, 2.0 * (two - four), rtol=1e-9)
    start = voltages(np.array([[1e12, 1.0]]), np.zeros(1), cell=simple()._replace(temperature=0.0))
    np.testing.assert_allclose(start, 5.0 - 1.4 * 0.39 - (0.2 - 0.2 * 0.91), rtol=1e-12)


@pytest.mark.slow
def test_gradients_are_differences(x64):
    """All six parameters, forward and backward, at another rate."""
    times = jnp.linspace(20.0, 2700.0, 5)

    @jax.jit
    def at(theta):
        return voltage(Parameters(*theta), times, rate=1.0, grid=Grid(12, 24))

    theta, step = jnp.array([1.5, 0.8, 1.2, 1.1, 0.95, 1.05]), 1e-5
    forward = jax.jacfwd(at)(theta)
    differences = jnp.stack([(at(theta + e) - at(theta - e)) / (2 * step) for e in step * jnp.eye(6)], -1)
    np.testing.assert_allclose(forward, differences, atol=1e-8)
    np.testing.assert_allclose(jax.jacrev(at)(theta), forward, atol=1e-12)
    assert np.min(np.max(np.abs(forward), 0)) > 1e-4  # each parameter is seen
