"""The reference posteriors as Stan programs. `stan(name, data) -> (program, data)`.

Written from the mathematics in `tests/reference/data/index.json`, as a Stan user writes for speed: whole vectors, and the
fused normal regression where it fits. The numbers of a program are the arguments of the NumPyro model of the same name.

`python -m benchmarks.check_models --stan` compares their densities with those of the reference programs.
"""

import inspect

import numpy as np

from benchmarks import numpyro_models


def regression(parameters: str, priors: str, mean: str = "x, 0, beta, sigma") -> str:
    """A normal regression of y (n) on the columns of x (n, p)."""
    return f"""
data {{ int n; int p; matrix[n, p] x; vector[n] y; }}
parameters {{ {parameters} real<lower=0> sigma; }}
model {{ {priors} y ~ normal_id_glm({mean}); }}
"""


FLAT = regression("vector[p] beta;", "")
KIDSCORE = regression("vector[p] beta;", "sigma ~ cauchy(0, 2.5);")
BLR = regression("vector[p] beta;", "beta ~ normal(0, 10); sigma ~ normal(0, 10);")
ARK = regression(
    "real alpha; vector[p] beta;",
    "alpha ~ normal(0, 10); beta ~ normal(0, 10); sigma ~ cauchy(0, 2.5);",
    "x, alpha, beta, sigma",
)
DIAMONDS = regression(
    "vector[p] b; real Intercept;",
    "b ~ normal(0, 1); Intercept ~ student_t(3, 8, 10); sigma ~ student_t(3, 0, 10);",
    "x, Intercept, b, sigma",
)

KILPISJARVI = """
data { int n; vector[n] x; vector[n] y; vector[2] alpha_prior; vector[2] beta_prior; }
parameters { real alpha; real beta; real<lower=0> sigma; }
model {
  alpha ~ normal(alpha_prior[1], alpha_prior[2]);
  beta ~ normal(beta_prior[1], beta_prior[2]);
  y ~ normal(alpha + beta * x, sigma);
}
"""

EIGHT_SCHOOLS_CENTERED = """
data { int n; vector[n] sigma; vector[n] y; }
parameters { real mu; real<lower=0> tau; vector[n] theta; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); theta ~ normal(mu, tau); y ~ normal(theta, sigma); }
"""

EIGHT_SCHOOLS = """
data { int n; vector[n] sigma; vector[n] y; }
parameters { real mu; real<lower=0> tau; vector[n] z; }
transformed parameters { vector[n] theta = mu + tau * z; }
model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); z ~ std_normal(); y ~ normal(theta, sigma); }
"""

GARCH = """
data { int n; real sigma1; vector[n] y; }
parameters { real mu; real<lower=0> alpha0; real<lower=0, upper=1> alpha1; real<lower=0, upper=1 - alpha1> beta1; }
model {
  vector[n] variance;
  variance[1] = square(sigma1);
  for (t in 2:n) variance[t] = alpha0 + alpha1 * square(y[t - 1] - mu) + beta1 * variance[t - 1];
  y ~ normal(mu, sqrt(variance));
}
"""

GP_POISSON = """
data { int n; array[n] real x; array[n] int k; }
parameters { real<lower=0> rho; real<lower=0> alpha; vector[n] z; }
transformed parameters {
  vector[n] f = cholesky_decompose(add_diag(gp_exp_quad_cov(x, alpha, rho), 1e-10)) * z;
}
model { rho ~ gamma(25, 4); alpha ~ normal(0, 2); z ~ std_normal(); k ~ poisson_log(f); }
"""

ACCEL_GP = """
functions {
  vector root_spectrum(vector w, real amplitude, real scale) {
    return amplitude * sqrt(sqrt(2 * pi()) * scale) * exp(-0.25 * square(scale * w));
  }
}
data {
  int n; int p; int q;
  matrix[n, p] x; vector[p] frequency; matrix[n, q] x_sigma; vector[q] frequency_sigma; vector[n] y;
}
parameters {
  real Intercept; real<lower=0> sdgp_1; real<lower=0> lscale_1; vector[p] zgp_1;
  real Intercept_sigma; real<lower=0> sdgp_sigma_1; real<lower=0> lscale_sigma_1; vector[q] zgp_sigma_1;
}
model {
  Intercept ~ student_t(3, -13, 36);
  Intercept_sigma ~ student_t(3, 0, 10);
  sdgp_1 ~ student_t(3, 0, 36);
  sdgp_sigma_1 ~ student_t(3, 0, 36);
  lscale_1 ~ inv_gamma(1.124909, 0.0177);
  lscale_sigma_1 ~ inv_gamma(1.124909, 0.0177);
  zgp_1 ~ std_normal();
  zgp_sigma_1 ~ std_normal();
  y ~ normal(
    Intercept + x * (root_spectrum(frequency, sdgp_1, lscale_1) .* zgp_1),
    exp(Intercept_sigma + x_sigma * (root_spectrum(frequency_sigma, sdgp_sigma_1, lscale_sigma_1) .* zgp_sigma_1))
  );
}
"""

# Hidden Markov models: log probabilities of all paths up to a time, by the state that they end in.
PATHS = """
functions {
  real all_paths(vector theta1, vector theta2, matrix emission) {
    matrix[2, 2] into = log([theta1', theta2']);
    vector[2] ending = emission[, 1];
    for (t in 2:cols(emission)) {
      real first = log_sum_exp(ending + into[, 1]);
      ending[2] = log_sum_exp(ending + into[, 2]) + emission[2, t];
      ending[1] = first + emission[1, t];
    }
    return log_sum_exp(ending);
  }
}
"""

HMM_DRIVE = (
    PATHS
    + """
data { int n; vector[n] u; vector[n] v; matrix[2, 2] concentration; }
parameters { simplex[2] theta1; simplex[2] theta2; positive_ordered[2] phi; positive_ordered[2] lambda; }
model {
  matrix[2, n] emission;
  theta1 ~ dirichlet(concentration[1]');
  theta2 ~ dirichlet(concentration[2]');
  phi ~ normal([0, 3]', 1);
  lambda ~ normal([0, 3]', 1);
  for (k in 1:2) emission[k] = (log(phi[k]) + log(lambda[k]) - phi[k] * u - lambda[k] * v)';
  target += all_paths(theta1, theta2, emission);
}
"""
)

HMM_EXAMPLE = (
    PATHS
    + """
data { int n; vector[n] y; }
parameters { simplex[2] theta1; simplex[2] theta2; positive_ordered[2] mu; }
model {
  matrix[2, n] emission;
  mu ~ normal([3, 10]', 1);
  for (k in 1:2) emission[k] = -0.5 * square(y - mu[k])';
  target += all_paths(theta1, theta2, emission);
}
"""
)

MIXTURE = """
data { int n; vector[n] y; }
parameters { ordered[2] mu; vector<lower=0>[2] sigma; real<lower=0, upper=1> theta; }
model {
  mu ~ normal(0, 2);
  sigma ~ normal(0, 2);
  theta ~ beta(5, 5);
  for (i in 1:n) target += log_mix(theta, normal_lpdf(y[i] | mu[1], sigma[1]), normal_lpdf(y[i] | mu[2], sigma[2]));
}
"""

LOTKA_VOLTERRA = """
functions {
  vector growth(real t, vector z, vector theta) {
    return [(theta[1] - theta[2] * z[2]) * z[1], (theta[4] * z[1] - theta[3]) * z[2]]';
  }
}
data { int n; array[n] real times; vector[2] y_init; matrix[n, 2] y; }
parameters { vector<lower=0>[4] theta; vector<lower=0>[2] z_init; vector<lower=0>[2] sigma; }
model {
  array[n] vector[2] z = ode_rk45_tol(growth, z_init, 0.0, times, 1e-7, 1e-7, 10000, theta);
  theta ~ normal([1, 0.05, 1, 0.05]', [0.5, 0.05, 0.5, 0.05]');
  z_init ~ lognormal(log(10), 1);
  sigma ~ lognormal(-1, 1);
  y_init ~ lognormal(log(z_init), sigma);
  for (t in 1:n) y[t] ~ lognormal(log(z[t]), sigma);
}
"""

ONE_COMPARTMENT = """
functions {
  vector flow(real t, vector c, real k_a, real K_m, real V_m, real dose, real volume) {
    return (k_a * dose * exp(-k_a * t) - V_m * c / (K_m + c[1])) / volume;
  }
}
data { int n; array[n] real times; real dose; real volume; vector[n] y; }
parameters { real<lower=0> k_a; real<lower=0> K_m; real<lower=0> V_m; real<lower=0> sigma; }
model {
  array[n] vector[1] c = ode_rk45_tol(flow, [0.0]', 0.0, times, 1e-7, 1e-7, 10000, k_a, K_m, V_m, dose, volume);
  k_a ~ cauchy(0, 1);
  K_m ~ cauchy(0, 1);
  V_m ~ cauchy(0, 1);
  sigma ~ cauchy(0, 1);
  for (t in 1:n) y[t] ~ lognormal(log(c[t, 1]), sigma);
}
"""

PROGRAMS = {
    "arK-arK": ARK,
    "bball_drive_event_0-hmm_drive_0": HMM_DRIVE,
    "diamonds-diamonds": DIAMONDS,
    "earnings-earn_height": FLAT,
    "earnings-logearn_interaction": FLAT,
    "eight_schools-eight_schools_centered": EIGHT_SCHOOLS_CENTERED,
    "eight_schools-eight_schools_noncentered": EIGHT_SCHOOLS,
    "garch-garch11": GARCH,
    "gp_pois_regr-gp_pois_regr": GP_POISSON,
    "hmm_example-hmm_example": HMM_EXAMPLE,
    "hudson_lynx_hare-lotka_volterra": LOTKA_VOLTERRA,
    "kidiq-kidscore_momhsiq": KIDSCORE,
    "kilpisjarvi_mod-kilpisjarvi": KILPISJARVI,
    "low_dim_gauss_mix-low_dim_gauss_mix": MIXTURE,
    "mcycle_gp-accel_gp": ACCEL_GP,
    "mesquite-logmesquite": FLAT,
    "nes1972-nes": FLAT,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": ONE_COMPARTMENT,
    "sblrc-blr": BLR,
}


def stan(name: str, data) -> tuple[str, dict]:
    """The program of a posterior, and its data: the NumPyro model's arguments by name, and the sizes."""
    model, args = numpyro_models.MODELS[name](data)
    values = {key: np.asarray(x).tolist() for key, x in zip(inspect.signature(model).parameters, args, strict=True)}
    outcome = args[0] if name == "bball_drive_event_0-hmm_drive_0" else args[-1]
    values["n"] = len(outcome)
    for size, matrix in (("p", "x"), ("q", "x_sigma")):
        if np.ndim(values.get(matrix, 0)) == 2:
            values[size] = np.shape(values[matrix])[1]
    return PROGRAMS[name], values
