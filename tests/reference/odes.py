"""Differential equations with unknown rates, solved by diffrax inside the model."""

import diffrax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

import ppl
from ppl import dist, sample

from .reference import Data, Reference


@ppl.model
def lotka_volterra(times):
    """Hares and lynxes: u' = (theta1 - theta2 v) u, v' = (theta4 u - theta3) v, with multiplicative errors."""
    centre, spread = jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05])
    theta = sample("theta", dist.TruncatedNormal(centre, spread, low=0.0))
    start = sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
    sigma = sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))

    def growth(t, z, args):
        u, v = z
        return jnp.stack([(theta[0] - theta[1] * v) * u, (theta[3] * u - theta[2]) * v])

    populations = ppl.call("populations", solve, growth, 0.0, start, times)
    sample("y_init", dist.LogNormal(jnp.log(start), sigma))
    sample("y", dist.LogNormal(jnp.log(populations), sigma))


@ppl.model
def one_compartment(times, dose, volume):
    """A dose is absorbed at a constant rate, and eliminated by an enzyme that saturates; days, mg, litres."""
    absorption = sample("k_a", dist.HalfCauchy(1.0))
    half_saturation, fastest = sample("K_m", dist.HalfCauchy(1.0)), sample("V_m", dist.HalfCauchy(1.0))
    sigma = sample("sigma", dist.HalfCauchy(1.0))

    def flow(t, c, args):
        return (absorption * dose * jnp.exp(-absorption * t) - fastest * c / (half_saturation + c)) / volume

    concentration = ppl.call("concentration", solve, flow, 0.0, jnp.zeros_like(absorption), times)
    sample("C_hat", dist.LogNormal(jnp.log(concentration), sigma))


def solve(field, start, initial, times):
    """The solution at `times` to about seven digits; infinite where the solver gives up, hence of density zero."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        start,
        times[-1],
        None,
        initial,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7),
        max_steps=1024,
        throw=False,
    )
    return solution.ys


def hares_and_lynxes(d: Data):
    return lotka_volterra(d["ts"].astype(float)) | {"y_init": d["y_init"], "y": d["y"]}


def one_comp_mm_elim_abs(d: Data):
    return one_compartment(d["times"], d["D"], d["V"]) | {"C_hat": d["C_hat"]}


# theta is truncated at zero, 2 and 1 standard deviations below its centre
TRUNCATION = -2 * norm.logcdf(2.0) - 2 * norm.logcdf(1.0)

REFERENCES = {
    "hudson_lynx_hare-lotka_volterra": Reference(hares_and_lynxes, constant=TRUNCATION),
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": Reference(
        one_comp_mm_elim_abs, constant=4 * np.log(2.0), in_logs=("K_m", "V_m")
    ),
}
