"""The benchmark's posteriors as NumPyro users write them. `MODELS[name](data) -> (model, args)`."""

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


def arK(lags, y):
    alpha = sample("alpha", dist.Normal(0.0, 10.0))
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


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
    beta1 = sample("beta1", dist.ImproperUniform(dist.constraints.interval(0.0, 1.0 - alpha1), (), ()))

    def step(variance, y_t):
        sample("y", dist.Normal(mu, variance**0.5), obs=y_t)
        return alpha0 + alpha1 * (y_t - mu) ** 2 + beta1 * variance, None

    scan(step, sigma1**2, y)


def gp_poisson(x, k):
    rho = sample("rho", dist.Gamma(25.0, 4.0))
    alpha = sample("alpha", dist.HalfNormal(2.0))
    z = sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * jnp.eye(len(x))
    f = numpyro.deterministic("f", jnp.linalg.cholesky(kernel) @ z)
    sample("k", dist.Poisson(jnp.exp(f)), obs=k)


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


def _interaction(d):
    return regression, (columns(d["height"], d["male"], d["height"] * d["male"]), np.log(d["earn"]))


MODELS = {
    "arK-arK": _ark,
    "bball_drive_event_0-hmm_drive_0": lambda d: (hmm_drive, (d["u"], d["v"], d["alpha"])),
    "earnings-earn_height": lambda d: (regression, (columns(d["height"]), d["earn"])),
    "earnings-logearn_interaction": _interaction,
    "eight_schools-eight_schools_noncentered": lambda d: (eight_schools, (d["sigma"], d["y"])),
    "garch-garch11": lambda d: (garch, (d["sigma1"], d["y"])),
    "gp_pois_regr-gp_pois_regr": lambda d: (gp_poisson, (d["x"], d["k"])),
    "hmm_example-hmm_example": lambda d: (hmm_example, (d["y"],)),
    "kidiq-kidscore_momhsiq": lambda d: (kidscore, (columns(d["mom_hs"], d["mom_iq"]), d["kid_score"])),
    "kilpisjarvi_mod-kilpisjarvi": _kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": lambda d: (mixture, (d["y"],)),
    "mesquite-logmesquite": _mesquite,
    "nes1972-nes": _nes,
    "sblrc-blr": lambda d: (blr, (d["X"], d["y"])),
}
