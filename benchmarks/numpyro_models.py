"""The reference posteriors as NumPyro users write them. `MODELS[name](data) -> (model, args)`.

`python -m benchmarks.check_models` compares their densities with those of the reference programs.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

sample = numpyro.sample
positive, ordered = dist.constraints.positive, dist.constraints.ordered_vector


def flat(shape=(), support=dist.constraints.real):
    return dist.ImproperUniform(support, shape, ())


def arK(x, y):
    alpha = sample("alpha", dist.Normal(0.0, 10.0))
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(alpha + x @ beta, sigma), obs=y)


def forward(log_start, log_a, emit):
    """Log likelihood of a hidden Markov model with emission log densities `emit` (time, state)."""

    def step(alpha, e):
        return jax.nn.logsumexp(alpha[:, None] + log_a, axis=0) + e, None

    return jax.nn.logsumexp(jax.lax.scan(step, log_start + emit[0], emit[1:])[0])


def hmm_drive(u, v, concentration):
    theta1 = sample("theta1", dist.Dirichlet(concentration[0]))
    theta2 = sample("theta2", dist.Dirichlet(concentration[1]))
    phi = sample("phi", dist.ImproperUniform(dist.constraints.positive_ordered_vector, (), (2,)))
    lam = sample("lambda", dist.ImproperUniform(dist.constraints.positive_ordered_vector, (), (2,)))
    means = jnp.array([0.0, 3.0])
    numpyro.factor("priors", dist.Normal(means, 1.0).log_prob(phi).sum() + dist.Normal(means, 1.0).log_prob(lam).sum())
    emit = dist.Exponential(phi).log_prob(u[:, None]) + dist.Exponential(lam).log_prob(v[:, None])
    numpyro.factor("y", forward(jnp.zeros(2), jnp.log(jnp.stack([theta1, theta2])), emit))


def hmm_example(y):
    theta1 = sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = sample("mu", dist.ImproperUniform(dist.constraints.positive_ordered_vector, (), (2,)))
    numpyro.factor("prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    emit = dist.Normal(mu, 1.0).log_prob(y[:, None])
    numpyro.factor("y", forward(jnp.zeros(2), jnp.log(jnp.stack([theta1, theta2])), emit))


def regression(x, y):
    beta = sample("beta", flat((x.shape[1],)))
    sigma = sample("sigma", flat(support=positive))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def kidscore(x, y):
    beta = sample("beta", flat((x.shape[1],)))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def blr(x, y):
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]))
    sigma = sample("sigma", dist.HalfNormal(10.0))
    sample("y", dist.Normal(x @ beta, sigma), obs=y)


def kilpisjarvi(x, alpha_prior, beta_prior, y):
    alpha = sample("alpha", dist.Normal(*alpha_prior))
    beta = sample("beta", dist.Normal(*beta_prior))
    sigma = sample("sigma", flat(support=positive))
    sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def diamonds(x, y):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]))
    intercept = sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = sample("sigma", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))
    sample("y", dist.Normal(intercept + x @ b, sigma), obs=y)


def eight_schools_centered(sigma, y):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools(sigma, y):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, sigma), obs=y)


def garch(sigma1, y):
    mu = sample("mu", flat())
    alpha0 = sample("alpha0", flat(support=positive))
    alpha1 = sample("alpha1", dist.Uniform(0.0, 1.0))
    # NumPyro's draws of a site whose bounds depend on another are wrong (0.22), so it is written on (0, 1)
    share = sample("share", dist.Uniform(0.0, 1.0))
    beta1 = numpyro.deterministic("beta1", share * (1.0 - alpha1))
    numpyro.factor("flat_beta1", jnp.log1p(-alpha1))  # d beta1 / d share

    def step(variance, y_t):
        sample("y", dist.Normal(mu, variance**0.5), obs=y_t)
        return alpha0 + alpha1 * (y_t - mu) ** 2 + beta1 * variance, None

    scan(step, sigma1**2, y)


def garch_coordinates(choices):
    width = 1.0 - choices["alpha1"]
    return {**choices, "share": choices["beta1"] / width}, float(jnp.log(width))


def gp_poisson(x, k):
    rho = sample("rho", dist.Gamma(25.0, 4.0))
    alpha = sample("alpha", dist.HalfNormal(2.0))
    z = sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * jnp.eye(len(x))
    f = numpyro.deterministic("f", jnp.linalg.cholesky(kernel) @ z)
    sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def accel_gp(x, frequency, x_sigma, frequency_sigma, y):
    def process(suffix, location, spread, x, frequency):
        intercept = sample(f"Intercept{suffix}", dist.StudentT(3.0, location, spread))
        amplitude = sample(f"sdgp{suffix}_1", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 36.0)))
        length = sample(f"lscale{suffix}_1", dist.InverseGamma(1.124909, 0.0177))
        z = sample(f"zgp{suffix}_1", dist.Normal(0.0, 1.0).expand(frequency.shape))
        root = amplitude * (2 * jnp.pi) ** 0.25 * jnp.sqrt(length) * jnp.exp(-((length * frequency) ** 2) / 4)
        return intercept + x @ (root * z)

    mean = process("", -13.0, 36.0, x, frequency)
    log_sigma = process("_sigma", 0.0, 10.0, x_sigma, frequency_sigma)
    sample("Y", dist.Normal(mean, jnp.exp(log_sigma)), obs=y)


def solve(field, initial, times):
    """The solver and the precision of the reference programs."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, times[-1], None, initial, saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7), max_steps=1024, throw=False,
    ).ys  # fmt: skip


def lotka_volterra(times, y_init, y):
    spread = jnp.array([0.5, 0.05, 0.5, 0.05])
    theta = sample("theta", dist.TruncatedNormal(jnp.array([1.0, 0.05, 1.0, 0.05]), spread, low=0.0))
    z_init = sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]))
    sigma = sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]))

    def growth(t, z, args):
        return jnp.stack([(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]])

    z = solve(growth, z_init, times)
    sample("y_init", dist.LogNormal(jnp.log(z_init), sigma), obs=y_init)
    sample("y", dist.LogNormal(jnp.log(z), sigma), obs=y)


def one_compartment(times, dose, volume, y):
    k_a, k_m, v_m, sigma = (sample(name, dist.HalfCauchy(1.0)) for name in ("k_a", "K_m", "V_m", "sigma"))

    def flow(t, c, args):
        return (k_a * dose * jnp.exp(-k_a * t) - v_m * c / (k_m + c)) / volume

    c = solve(flow, jnp.zeros_like(k_a), times)
    sample("C_hat", dist.LogNormal(jnp.log(c), sigma), obs=y)


def mixture(y):
    mu = sample("mu", dist.ImproperUniform(ordered, (), (2,)))
    numpyro.factor("prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = sample("sigma", dist.HalfNormal(2.0).expand([2]))
    theta = sample("theta", dist.Beta(5.0, 5.0))
    weights = jnp.log(jnp.stack([theta, 1.0 - theta]))
    numpyro.factor("y", jax.nn.logsumexp(weights + dist.Normal(mu, sigma).log_prob(y[:, None]), axis=1).sum())


# -- data to arguments -------------------------------------------------------------------------------------------------------


def columns(*xs):
    return np.column_stack([np.ones(len(xs[0])), *xs])


def _ark(d):
    return arK, (np.lib.stride_tricks.sliding_window_view(d["y"][:-1], 5)[:, ::-1], d["y"][5:])


def _mesquite(d):
    sizes = [np.log(d[key]) for key in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    return regression, (columns(*sizes, d["group"]), np.log(d["weight"]))


def _nes(d):
    ages = [d["age_discrete"] == level for level in (2, 3, 4)]
    x = columns(d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"])
    return regression, (x, d["partyid7"])


def _kilpisjarvi(d):
    return kilpisjarvi, (d["x"], (d["pmualpha"], d["psalpha"]), (d["pmubeta"], d["psbeta"]), d["y"])


def _diamonds(d):
    x = d["X"][:, 1:]
    return diamonds, (x - x.mean(0), d["Y"])


def _accel(d):
    return accel_gp, (d["Xgp_1"], d["slambda_1"][:, 0], d["Xgp_sigma_1"], d["slambda_sigma_1"][:, 0], d["Y"])


def _interaction(d):
    return regression, (columns(d["height"], d["male"], d["height"] * d["male"]), np.log(d["earn"]))


MODELS = {
    "arK-arK": _ark,
    "bball_drive_event_0-hmm_drive_0": lambda d: (hmm_drive, (d["u"], d["v"], d["alpha"])),
    "diamonds-diamonds": _diamonds,
    "earnings-earn_height": lambda d: (regression, (columns(d["height"]), d["earn"])),
    "earnings-logearn_interaction": _interaction,
    "eight_schools-eight_schools_centered": lambda d: (eight_schools_centered, (d["sigma"], d["y"])),
    "eight_schools-eight_schools_noncentered": lambda d: (eight_schools, (d["sigma"], d["y"])),
    "garch-garch11": lambda d: (garch, (d["sigma1"], d["y"])),
    "gp_pois_regr-gp_pois_regr": lambda d: (gp_poisson, (d["x"], d["k"])),
    "hmm_example-hmm_example": lambda d: (hmm_example, (d["y"],)),
    "hudson_lynx_hare-lotka_volterra": lambda d: (lotka_volterra, (d["ts"].astype(float), d["y_init"], d["y"])),
    "kidiq-kidscore_momhsiq": lambda d: (kidscore, (columns(d["mom_hs"], d["mom_iq"]), d["kid_score"])),
    "kilpisjarvi_mod-kilpisjarvi": _kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": lambda d: (mixture, (d["y"],)),
    "mcycle_gp-accel_gp": _accel,
    "mesquite-logmesquite": _mesquite,
    "nes1972-nes": _nes,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": lambda d: (one_compartment, (d["times"], d["D"], d["V"], d["C_hat"])),
    "sblrc-blr": lambda d: (blr, (d["X"], d["y"])),
}

# Where a model is not written in the published coordinates: from those, its own, and log |d published / d own|.
COORDINATES = {"garch-garch11": garch_coordinates}
