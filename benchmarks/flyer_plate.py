"""Flyer plates on aluminium 5083: the strength of a metal from velocities, by an emulator, with and without a discrepancy.

1000 simulations at 11 inputs of 12 velocities, four features of each of three shots, and one measurement of each. An emulator
is fitted to the simulations; its error, in the likelihood, is the covariance of its errors on simulations left out. The inputs
are calibrated with and without a discrepancy along the features of each shot, which are independent between shots.

Walters et al., "Bayesian calibration of strength parameters using hydrocode simulations of symmetric impact shock experiments
of Al-5083", J. Appl. Phys. 124, 2018, whose published example takes a variance of 0.01 y for the measurements, y in m/s.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.discrepancy import discrepancy, squared_exponential
from surrogates.emulators.charts import Given
from surrogates.emulators.components import Principal
from surrogates.emulators.gaussian_process import GaussianProcess, Process
from surrogates.emulators.runs import Runs
from surrogates.emulators.trend import Linear

DATA = Path(__file__).parent / "data" / "al5083.npz"
STRENGTH = ("a", "b", "c", "x_n", "x_m")  # of the flow stress; the others are speeds of the plates, a shear modulus, two more
SPOTS = np.array([(shot, feature) for shot in range(3) for feature in range(4)], float)  # of the 12 velocities


def simulations() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Inputs (1000, 11) scaled to [0, 1], velocities (1000, 12) in m/s, those measured (12,), names of the inputs."""
    with np.load(DATA) as file:
        x, y, measured, names = (file[k] for k in ("design", "velocity", "measured", "names"))
    low, high = x.min(axis=0), x.max(axis=0)
    return ((x - low) / (high - low)).astype(float), y.astype(float), measured.astype(float), tuple(names.tolist())


def emulator(most: int = 200, steps: int = 25) -> Process:
    x, y, _, names = simulations()
    family = GaussianProcess(components=Principal(num=10), charts=Given(), trend=Linear(), most=most, steps=steps)
    return family.fit(jax.random.key(0), Runs.of(x, y, names=names))


def left_out(process: Process) -> tuple[np.ndarray, np.ndarray]:
    """R^2 on simulations left out (12,), and the covariance of the errors (12, 12)."""
    _, y, _, _ = simulations()
    errors = y - np.asarray(process.left_out.mean, float)
    return 1.0 - (errors**2).mean(axis=0) / y.var(axis=0), errors.T @ errors / len(errors)


def along_a_shot(a, b, length):
    """Correlation of the discrepancies of two (shot, feature): none between shots."""
    return jnp.where(a[0] == b[0], squared_exponential(a[1:], b[1:], length), 0.0)


def _velocities(process):
    return process(*(sample(name, dist.Uniform(0.0, 1.0)) for name in process.names))


@ppl.model
def without(process, noise, own):
    mean = _velocities(process)
    sample("velocity", dist.MultivariateNormal(mean, covariance_matrix=jnp.diag(noise**2) + own))


@ppl.model
def with_discrepancy(process, noise, own):
    mean = _velocities(process)
    delta = discrepancy(
        "delta", SPOTS, amplitude=dist.HalfNormal(10.0), length=dist.LogNormal(np.log(1.5), 0.5), kernel=along_a_shot
    )
    sample("velocity", delta.around(mean, noise, covariance=own))


def calibrated(model, process: Process, *, draws: int = 400, chains: int = 2) -> inf.Posterior:
    """By NUTS."""
    _, _, measured, _ = simulations()
    _, own = left_out(process)
    program = model(process, jnp.sqrt(0.01 * jnp.asarray(measured)), jnp.asarray(own))
    return inf.mcmc(
        program | {"velocity": jnp.asarray(measured)}, inf.NUTS(), key=jax.random.key(1), draws=draws, chains=chains,
        progress=False,
    )  # fmt: skip
