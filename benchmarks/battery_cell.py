"""A lithium-ion cell: the single-particle model under constant current, by conservative finite volumes. Voltages in volts.

    x_t = xi^-2 (xi^2 D(x)/R^2 x_xi)_xi,   D/R^2 x_xi = -j/(R c_max) at xi = 1,   x = x_0 at t = 0      (one particle a side)
    V   = U_c(x_c) - U_a(x_a) + R T (j_c/i0_c(x_c) - j_a/i0_a(x_a))                              at the particles' surfaces

x is the filling of a particle and xi its radius, both from 0 to 1. Cells of equal width, harmonic means of D between them;
BDF2 in s, t = end s^2, in which the solution is smooth at the start, where it goes as the root of time; D anew from the last
solution in each Picard pass. Mass is kept to rounding, and the error falls as the square of cells and of steps.

```python
voltage(Parameters(i0_a=2.0, Ds_c=2.0), jnp.linspace(10.0, 1350.0, 100))            # (100,)
voltage(Parameters(eps_a=0.95), times, rate=1.0, grid=Grid(8, 16))                  # a coarse level: other settings
```
A function for jit, vmap and grad, in float32 and float64. Model and numbers: Hassanaly, Weddle, King, De, Doostan, Randall,
Dufek, Colclasure and Smith, "PINN surrogate of Li-ion battery models for parameter inference", Journal of Energy Storage 98,
2024, 113103 and 113104 (arXiv:2312.17329, 2312.17336); see `docs/tutorials/data/README.md`.
"""

import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

CELL = Path(__file__).parents[1] / "docs" / "tutorials" / "data" / "spm_state_equations.json"
CAPACITY = 0.0189  # A: the current that empties the cell in an hour
HOUR = 2700.0  # s: how long a discharge at the rate 1 is followed

Function = Callable[[Any], Any]


class Parameters(NamedTuple):
    """What multiplies the cell's own numbers: exchange currents `i0`, diffusivities `Ds` and solid fractions `eps`, of the
    anode (a) and the cathode (c)."""

    i0_a: Any = 1.0
    i0_c: Any = 1.0
    Ds_a: Any = 1.0
    Ds_c: Any = 1.0
    eps_a: Any = 1.0
    eps_c: Any = 1.0


class Grid(NamedTuple):
    """How finely it is solved: `cells` along the radius, `steps` of time, Picard `passes` a step.

    The defaults are within 0.05 mV of the converged voltage at 10 s, and within 0.005 mV from 150 s on.
    """

    cells: int = 64
    steps: int = 128
    passes: int = 2


FINE = Grid()


class Electrode(NamedTuple):
    """One side of a cell: lengths in m, `c_max` in kmol/m3; functions of the filling x: open-circuit voltage in V, exchange
    current in A/m2, diffusivity in m2/s. `sign`: of the flux out of its particles on discharge."""

    thickness: float
    radius: float
    fraction: float
    c_max: float
    start: float
    sign: float
    open_circuit: Function
    exchange: Function
    diffusivity: Function


class Cell(NamedTuple):
    """A cell: its electrodes, area in m2, temperature in K; F and R in kmol."""

    anode: Electrode
    cathode: Electrode
    area: float
    temperature: float
    faraday: float
    gas: float


class History(NamedTuple):
    """Of a particle at s = k/steps: the filling of its `surface` and its `mean`, (steps + 1,) each."""

    surface: Array
    mean: Array


def voltage(parameters: Parameters, times: Any, *, rate: float = 2.0, grid: Grid = FINE, cell: Cell | None = None) -> Array:
    """The voltage (n,) at `times` (n,), in seconds from 0 to 2700/rate, of a discharge at `rate` times the capacity an hour.

    Example:
        `jax.vmap(lambda i0: voltage(Parameters(i0_a=i0), times))(jnp.linspace(0.5, 4.0, 100))`
    """
    cell = nominal() if cell is None else cell
    x_a = _at(times, parameters.Ds_a, parameters.eps_a, cell.anode, cell, rate, grid)
    x_c = _at(times, parameters.Ds_c, parameters.eps_c, cell.cathode, cell, rate, grid)
    return terminal(parameters, x_a, x_c, cell, rate)


def terminal(parameters: Parameters, x_a: Any, x_c: Any, cell: Cell, rate: float) -> Any:
    """The voltage where the surfaces' fillings are x_a and x_c."""
    anode, cathode = cell.anode, cell.cathode
    thermal = cell.gas * cell.temperature
    over_a = thermal * flux(anode, cell, rate, parameters.eps_a) / (parameters.i0_a * anode.exchange(x_a))
    over_c = thermal * flux(cathode, cell, rate, parameters.eps_c) / (parameters.i0_c * cathode.exchange(x_c))
    return cathode.open_circuit(x_c) + over_c - anode.open_circuit(x_a) - over_a


def flux(electrode: Electrode, cell: Cell, rate: float, fraction: Any) -> Any:
    """What leaves a particle on discharge, in kmol/m2/s, where the solid fraction is multiplied by `fraction`."""
    area = 3 * fraction * electrode.fraction * electrode.thickness / electrode.radius  # of particles' surfaces, to the cell's
    return electrode.sign * CAPACITY * rate / (cell.area * cell.faraday * area)


def rise_of(electrode: Electrode, j: Any) -> Any:
    """D/R^2 x_xi at the surface, in 1/s; three times it is how fast the mean filling rises."""
    return -j / (electrode.radius * electrode.c_max)


def _at(times, diffusion, fraction, electrode: Electrode, cell: Cell, rate: float, grid: Grid) -> Array:
    """The surface's filling at `times`, by cubics through four steps."""
    rise = rise_of(electrode, flux(electrode, cell, rate, fraction))
    history = particle(electrode, diffusion, rise, HOUR / rate, grid)
    u = jnp.sqrt(jnp.asarray(times) * (rate / HOUR)) * grid.steps
    i = jnp.clip(jnp.floor(u).astype(int) - 1, 0, grid.steps - 3)
    r, y = u - i, history.surface
    one, two, three = r - 1.0, r - 2.0, r - 3.0
    weights = (-one * two * three / 6, r * two * three / 2, -r * one * three / 2, r * one * two / 6)
    return jnp.sum(jnp.stack([w * y[i + k] for k, w in enumerate(weights)]), 0)


def particle(electrode: Electrode, diffusion: Any, rise: Any, end: float, grid: Grid) -> History:
    """One particle from t = 0 to `end`, its diffusivity multiplied by `diffusion`; `rise` as of `rise_of`."""
    faces, volumes, between, surface = _geometry(grid.cells)

    def d(x):
        return diffusion * electrode.diffusivity(x) / electrode.radius**2

    def step(carry, now):
        (x, old), (lead, one, two, h, first) = carry, now
        known = (one * x + two * old).at[-1].add(h * rise / volumes[-1])
        guess = jnp.where(first, x, 2.0 * x - old)
        for _ in range(grid.passes):
            inside = d(guess)
            g = h * faces**2 * (2.0 * inside[1:] * inside[:-1] / (inside[1:] + inside[:-1])) / between
            right, left = jnp.pad(g / volumes[:-1], (0, 1)), jnp.pad(g / volumes[1:], (1, 0))
            guess = lax.linalg.tridiagonal_solve(-left, lead + left + right, -right, known[:, None])[:, 0]
        return (guess, x), History(surface(guess, rise, d), 3.0 * jnp.dot(volumes, guess))

    start = jnp.full(grid.cells, electrode.start, jnp.result_type(float, diffusion, rise))
    _, history = lax.scan(step, (start, start), _steps(grid.steps, end))
    return jax.tree.map(lambda x: jnp.concatenate([jnp.full(1, electrode.start, x.dtype), x]), history)


def _geometry(n: int):
    """Inner faces, volumes, distances of the cells' means; and the filling at the surface, by the parabola that has the means
    of the last two cells and the slope there."""
    faces = np.linspace(0.0, 1.0, n + 1)
    volumes = np.diff(faces**3) / 3
    first, second = (np.diff(faces ** (3 + k)) / (3 + k) / volumes for k in (1, 2))
    off, square = (first - 1)[-2:], (second - 2 * first + 1)[-2:]

    def surface(x, rise, d):
        found = x[-1]
        for _ in range(3):  # of D at the surface, which hardly matters: the first correction is of third order in n
            other, last = x[-2:] - off * rise / d(found)
            found = (last * square[0] - other * square[1]) / (square[0] - square[1])
        return found

    return *map(jnp.asarray, (faces[1:-1], volumes, np.diff(first))), surface


def _steps(num: int, end: float) -> tuple[Array, ...]:
    """Of each step: the factors of the new, the last and the last but one solution in its derivative; its length; whether it
    is the first, which is one of implicit Euler in time, since nothing lies before it."""
    s = np.arange(1, num + 1) / num
    first = s == s[0]
    lead, one, two = np.where(first, 1.0, 1.5), np.where(first, 1.0, 2.0), np.where(first, 0.0, -0.5)
    length = np.where(first, 1.0, 2.0 * s * num) * end / num**2
    return (*(jnp.asarray(x, float) for x in (lead, one, two, length)), jnp.asarray(first))


# -- the cell of the papers --------------------------------------------------------------------------------------------------


@cache
def nominal() -> Cell:
    """The cell of Hassanaly et al.: graphite against NMC."""
    told = json.loads(CELL.read_text())
    numbers = {name: row["value"] for name, row in told["constants"].items()}
    rows = {name: row for name, row in told["polynomials"].items() if isinstance(row, dict) and "coefficients" in row}
    polynomials = {name: _polynomial(row["coefficients"]) for name, row in rows.items()}
    a, c = told["electrodes"]["anode"], told["electrodes"]["cathode"]
    salt = np.sqrt(numbers["c_e"])

    def anode_exchange(x):
        x = jnp.clip(x, 0.0, 1.0)
        return 2.5 * 0.27 * salt * a["c_max_kmol_m3"] * jnp.sqrt((1.0 - x) * x)

    def cathode_exchange(x):
        return 9.0 * np.sqrt(numbers["c_e"] / 1.2) * polynomials["cathode_exchange_current"](x)

    def cathode_diffusivity(x):
        return 2.25 * 10.0 ** polynomials["cathode_diffusivity"](x)

    def anode_diffusivity(x):
        return jnp.full_like(x, a["diffusivity_m2_s"])

    def electrode(told, sign, *functions):
        sizes = ("thickness_m", "particle_radius_m", "solid_fraction", "c_max_kmol_m3", "x_initial")
        return Electrode._make([*(told[name] for name in sizes), sign, *functions])

    return Cell(
        electrode(a, 1.0, polynomials["anode_open_circuit_voltage"], anode_exchange, anode_diffusivity),
        electrode(c, -1.0, polynomials["cathode_open_circuit_voltage"], cathode_exchange, cathode_diffusivity),
        *(numbers[name] for name in ("A", "T", "F", "R")),
    )


def simple() -> Cell:
    """The same cell with the linear state equations that the papers test with."""
    cell = nominal()
    anode = cell.anode._replace(
        open_circuit=lambda x: 0.2 - 0.2 * x, exchange=lambda x: jnp.full_like(x, 2.0), diffusivity=partial(_constant, 3e-14)
    )
    cathode = cell.cathode._replace(
        open_circuit=lambda x: 5.0 - 1.4 * x, exchange=lambda x: jnp.full_like(x, 3.0), diffusivity=partial(_constant, 3.5e-15)
    )
    return cell._replace(anode=anode, cathode=cathode)


def _constant(value: float, x: Array) -> Array:
    return jnp.full_like(x, value)


def _polynomial(descending: list[float]) -> Function:
    """A polynomial of x, clipped to [0, 1], by its Chebyshev series there. The coefficients of powers are up to 1e5 and cancel
    each other: in float32 their sum is off by a millivolt, that of the series by a microvolt."""
    exact = [Fraction(c) for c in descending]

    def value(z: float) -> float:
        x, total = (Fraction(float(z)) + 1) / 2, Fraction(0)
        for c in exact:
            total = total * x + c
        return float(total)

    def values(z: np.ndarray) -> np.ndarray:
        return np.array([value(each) for each in np.ravel(z)])

    interpolate: Any = np.polynomial.chebyshev.chebinterpolate
    series = [float(c) for c in interpolate(values, len(exact) - 1)]

    def polynomial(x):
        z = 4.0 * jnp.clip(x, 0.0, 1.0) - 2.0  # twice the variable of the series
        one = two = jnp.zeros_like(z)
        for c in series[:0:-1]:  # Clenshaw's recurrence
            one, two = c + z * one - two, one
        return series[0] + 0.5 * z * one - two

    return polynomial
