"""Differential equations with unknown rates, solved by diffrax inside the model."""

import diffrax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

import ppl
from ppl import dist, sample

from .flat import LogLinear, flat_positive
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
def one_compartment(times, dose, volume, enzyme):
    """A dose is absorbed at a constant rate, and eliminated by an enzyme that saturates; days, mg, litres."""
    absorption = sample("k_a", dist.HalfCauchy(1.0))
    half_saturation, fastest = enzyme()
    sigma = sample("sigma", dist.HalfCauchy(1.0))

    def flow(t, c, args):
        return (absorption * dose * jnp.exp(-absorption * t) - fastest * c / (half_saturation + c)) / volume

    concentration = ppl.call("concentration", solve, flow, 0.0, jnp.zeros_like(absorption), times)
    sample("C_hat", dist.LogNormal(jnp.log(concentration), sigma))


def michaelis_menten():
    """K_m and V_m, independent a priori."""
    return sample("K_m", dist.HalfCauchy(1.0)), sample("V_m", dist.HalfCauchy(1.0))


def michaelis_menten_by_rate():
    """The same, in K_m and the rate at 10 mg/L: that is what the data determine, and V_m only if K_m is known."""
    half_saturation = sample("K_m", dist.HalfCauchy(1.0))
    span = half_saturation + 10.0
    fastest = ppl.deterministic("V_m", sample("rate", flat_positive()) * span)
    ppl.factor("V_m_prior", dist.HalfCauchy(1.0).log_prob(fastest) + jnp.log(span))
    return half_saturation, fastest


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


def one_comp_mm_elim_abs(d: Data, enzyme=michaelis_menten):
    return one_compartment(d["times"], d["D"], d["V"], enzyme) | {"C_hat": d["C_hat"]}


# Small cycles about the equilibrium theta3/theta4, theta1/theta2 have the frequency sqrt(theta1 theta3). The data determine
# frequency and equilibrium; log theta is linear in the logs of frequency, theta1/theta3, and equilibrium prey and predators.
CYCLE = np.array([[1, 0.5, 0, 0], [1, 0.5, 0, -1], [1, -0.5, 0, 0], [1, -0.5, -1, 0]])


def by_cycle(program, d: Data):
    return program.reparam({"theta": LogLinear(CYCLE)})


def ten_years(d: Data):
    """A cycle of ten years about the mean populations. Cycles of other lengths are local modes, in which chains stick."""
    cycle = jnp.log(jnp.array([2 * jnp.pi / 10.0, 1.0, *d["y"].mean(0)]))
    return {"theta_base": cycle, "z_init": d["y_init"], "sigma": jnp.full(2, 0.5)}


def by_rate(program, d: Data):
    return one_comp_mm_elim_abs(d, michaelis_menten_by_rate)


# theta is truncated at zero, 2 and 1 standard deviations below its centre
TRUNCATION = -2 * norm.logcdf(2.0) - 2 * norm.logcdf(1.0)

REFERENCES = {
    "hudson_lynx_hare-lotka_volterra": Reference(hares_and_lynxes, constant=TRUNCATION, better=by_cycle, start=ten_years),
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": Reference(
        one_comp_mm_elim_abs, constant=4 * np.log(2.0), better=by_rate, in_logs=("K_m", "V_m")
    ),
}
