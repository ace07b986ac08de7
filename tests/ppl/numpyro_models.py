"""NumPyro models as people write them, with data: each is run under NumPyro and here, and the densities compared."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.contrib.module import random_eqx_module, random_nnx_module
from numpyro.infer.reparam import CircularReparam, ExplicitReparam, LocScaleReparam, TransformReparam

rng = np.random.default_rng(20)
Y8 = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA8 = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
X = rng.normal(size=(20, 3))
Y = rng.normal(size=20)
GROUP = rng.integers(0, 4, size=20)
COUNTS = rng.poisson(3.0, size=20)
SERIES = np.cumsum(rng.normal(size=12))


def eight_schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def nested_plates(x, group, y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    with numpyro.plate("feature", 3, dim=-2):
        centre = numpyro.sample("centre", dist.Normal(0.0, 1.0))
        with numpyro.plate("group", 4, dim=-1):
            slope = numpyro.sample("slope", dist.Normal(centre, scale))
    noise = numpyro.sample("noise", dist.Exponential(1.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal((x * slope[:, group].T).sum(-1), noise), obs=y)


def plate_stack_of_vectors(y=None):
    with numpyro.plate_stack("axis", [4, 5]):
        z = numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 0.4], [0.4, 2.0]])))
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal((z * w).sum(-1), 1.0), obs=y)


def mixture(y=None):
    weight = numpyro.sample("weight", dist.Dirichlet(jnp.ones(3)))
    with numpyro.plate("component", 3):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("row", 20):
        numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(weight), dist.Normal(loc, scale)), obs=y)


def correlated(y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(3, 2.0))
    corr = numpyro.sample("corr", dist.LKJ(3, 1.5))
    numpyro.deterministic("cov", factor @ factor.T)
    numpyro.factor("pull", -0.1 * jnp.sum(corr**2))
    with numpyro.plate("row", 20):
        numpyro.sample("y", dist.MultivariateNormal(scale_tril=scale[:, None] * factor), obs=y)


def dirichlet_categorical(y=None):
    p = numpyro.sample("p", dist.Dirichlet(2.0 * jnp.ones(6)))
    with numpyro.plate("row", 20):
        numpyro.sample("y", dist.Categorical(p), obs=y)


def horseshoe(x, y=None):
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    lam = numpyro.sample("lam", dist.HalfCauchy(1.0).expand([x.shape[1]]))
    beta = numpyro.sample("beta", dist.Normal(0.0, lam * tau))
    prec = numpyro.sample("prec", dist.Gamma(3.0, 1.0))
    numpyro.sample("y", dist.Normal(x @ beta, 1.0 / jnp.sqrt(prec)), obs=y)


def autoregression(y):
    phi = numpyro.sample("phi", dist.Uniform(-1.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))

    def step(last, now):
        numpyro.sample("y", dist.Normal(phi * last, noise), obs=now)
        return now, None

    scan(step, y[0], y[1:])


def random_walk(y):
    drift = numpyro.sample("drift", dist.Normal(0.0, 1.0))

    def step(z, now):
        with numpyro.plate("pair", 2):
            e = numpyro.sample("e", dist.StudentT(4.0, 0.0, 1.0))
        z = numpyro.sample("z", dist.Normal(z + drift, 0.5))
        numpyro.deterministic("level", z + e.sum())
        numpyro.sample("y", dist.Normal(z + e.sum(), 1.0), obs=now)
        return z, z

    scan(step, jnp.zeros(()), y, length=len(y))


def conditioned_walk(y):
    handlers.condition(random_walk, data={"z": jnp.arange(12.0)})(y)  # made here for this run's precision


def walk_without_data(length):
    def step(z, _):
        with handlers.reparam(config={"z": LocScaleReparam(0.0)}):
            z = numpyro.sample("z", dist.Normal(0.9 * z, 1.0))
        return z, z

    _, z = scan(step, jnp.zeros(()), None, length=length)
    numpyro.sample("end", dist.Normal(z[-1], 0.1), obs=1.0)


def hidden_markov_summed_out(y):
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((2, 2)) * 3.0).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))

    def step(forward, now):
        forward = jax.nn.logsumexp(forward[:, None] + jnp.log(transition), 0) + dist.Normal(loc, 1.0).log_prob(now)
        return forward, None

    forward, _ = scan(step, jnp.log(jnp.array([0.5, 0.5])), y)
    numpyro.factor("forward", jax.nn.logsumexp(forward))


def hidden_markov_with_states(y):
    transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((2, 2)) * 3.0).to_event(1))

    def step(state, now):
        state = numpyro.sample("state", dist.Categorical(transition[state]))
        numpyro.sample("y", dist.Normal(2.0 * state, 1.0), obs=now)
        return state, None

    scan(step, jnp.asarray(0), y)


def poisson_regression(x, y=None):
    beta = numpyro.sample("beta", dist.Normal(0.0, 0.5).expand([3]).to_event(1))
    numpyro.sample("y", dist.Poisson(jnp.exp(x @ beta + 1.0)).to_event(1), obs=y)


def censored(y):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    d = dist.Normal(loc, 1.0)
    with numpyro.plate("row", len(y)):
        with handlers.mask(mask=y < 0.5):
            numpyro.sample("seen", d, obs=y)
        with handlers.mask(mask=y >= 0.5):
            numpyro.factor("above", jnp.log1p(-d.cdf(0.5)))
        numpyro.sample("inner", dist.Normal(0.0, 1.0).mask(y > 0.0))


def missing_in_model(y):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=jnp.where(y > 1.0, 0.0, y), obs_mask=y <= 1.0)


def weighted(y, weight):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    with handlers.scale(scale=3.0), numpyro.plate("row", len(y)):
        numpyro.sample("jitter", dist.Normal(0.0, 1.0))
        numpyro.factor("small", -0.5 * jnp.abs(loc))
        with handlers.scale(scale=weight), handlers.mask(mask=y > -1.0):
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def gaussian_process(x, y=None):
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    height = numpyro.sample("height", dist.HalfNormal(1.0))
    gap = (x[:, None] - x[None]) ** 2
    cov = height**2 * jnp.exp(-0.5 * gap / length**2) + 0.1 * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), cov), obs=y)


def ordered_logistic(x, y=None):
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    cut = numpyro.sample(
        "cut", dist.TransformedDistribution(dist.Normal(0.0, 2.0).expand([5]), dist.transforms.OrderedTransform())
    )
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.OrderedLogistic(beta * x, cut), obs=y)


def truncated(y):
    low = numpyro.sample("low", dist.Normal(-3.0, 0.1))
    loc = numpyro.sample("loc", dist.TruncatedNormal(0.0, 1.0, low=low))
    scale = numpyro.sample("scale", dist.TruncatedCauchy(1.0, 1.0, low=0.5, high=3.0))
    numpyro.sample("y", dist.LeftTruncatedDistribution(dist.StudentT(5.0, loc, scale), low=-9.0), obs=y)


def improper(y):
    loc = numpyro.sample("loc", dist.ImproperUniform(dist.constraints.real, (), ()))
    scale = numpyro.sample("scale", dist.ImproperUniform(dist.constraints.positive, (), ()))
    with numpyro.plate("pair", 2):
        shift = numpyro.sample("shift", dist.ImproperUniform(dist.constraints.real_vector, (), (3,)))
    numpyro.sample("y", dist.Normal(loc + shift.sum(), scale), obs=y)


def zero_inflated(y):
    gate = numpyro.sample("gate", dist.Beta(1.0, 2.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    shape = numpyro.sample("shape", dist.Exponential(1.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate), obs=y)
        numpyro.sample("z", dist.GammaPoisson(shape, 1.0), obs=y)
        numpyro.sample("n", dist.ZeroInflatedNegativeBinomial2(rate, shape, gate=gate), obs=y)


def repeated(y):
    draws = numpyro.sample("draws", dist.Normal(0.0, 1.0), sample_shape=(3,))
    with numpyro.plate("row", 4, dim=-2):
        both = numpyro.sample("both", dist.Normal(0.0, 1.0), sample_shape=(2,))
    numpyro.sample("y", dist.Normal(draws.sum() + both.sum(), jnp.ones((5, 1))), obs=y)  # 20 data, 5 x 1 scales
    numpyro.sample("one", dist.Normal(draws, 1.0), obs=0.5)  # one datum, three locations


def with_parameters(y):
    shift = numpyro.param("shift", 0.3)
    numpyro.param("unused", lambda key: jnp.ones(2))
    numpyro.sample("y", dist.Normal(numpyro.sample("loc", dist.Normal(shift, 1.0)), 1.0), obs=y)


def branching(y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))

    def high(_):
        return numpyro.sample("x", dist.Normal(20.0, 1.0))

    def low(_):
        return numpyro.sample("x", dist.Normal(0.0, 2.0))

    x = cond(z > 0, high, low, None)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def angles():
    numpyro.sample("angle", dist.VonMises(0.5, 2.0))
    numpyro.sample("rate", dist.Gamma(4.0, 4.0))
    base = dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(1.0, 2.0))
    with numpyro.plate("pair", 2):
        numpyro.sample("pair_of", base)


def scoped(y):
    with handlers.scope(prefix="a"):
        eight_schools(SIGMA8.copy(), y)
    with handlers.scope(prefix="b", divider="."):
        eight_schools(SIGMA8.copy(), y)


def bayesian_network(x, y):
    net = random_eqx_module("net", eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(1)), lambda name, shape: dist.Normal())
    numpyro.sample("y", dist.Normal(jax.vmap(net)(x), 1.0), obs=y)


def bayesian_network_of_flax(x, y):
    from flax import nnx

    net = random_nnx_module("net", nnx.Linear(3, 1, rngs=nnx.Rngs(0)), dist.Normal())
    numpyro.sample("y", dist.Normal(net(x)[:, 0], 1.0), obs=y)


NON_CENTRED = {"theta": LocScaleReparam(0.0)}
PARTLY_CENTRED = {"theta": LocScaleReparam()}
ANGLES = {
    "angle": CircularReparam(),
    "rate": ExplicitReparam(dist.transforms.ExpTransform().inv),
    "pair_of": TransformReparam(),
}
STATES = {"transition": np.array([[0.7, 0.3], [0.2, 0.8]]), "state": np.array([0, 0, 1] * 4)}


class Case(NamedTuple):
    name: str
    model: Callable
    args: tuple = ()
    kwargs: dict = {}
    values: dict | None = None  # for discrete sites
    fixed: tuple[str, ...] = ()  # what a substitute handler fixes


CASES = [
    Case("eight schools", eight_schools, (SIGMA8,), {"y": Y8}),
    Case("eight schools, latent y", eight_schools, (SIGMA8,)),
    Case("non-centred", handlers.reparam(eight_schools, config=NON_CENTRED), (SIGMA8,), {"y": Y8}),
    Case("partly centred", handlers.reparam(eight_schools, config=PARTLY_CENTRED), (SIGMA8,), {"y": Y8}),
    Case("conditioned", handlers.condition(eight_schools, data={"y": jnp.asarray(Y8), "mu": 1.0}), (SIGMA8,)),
    Case("substituted", handlers.substitute(eight_schools, data={"mu": jnp.array(1.0)}), (SIGMA8, Y8), fixed=("mu",)),
    Case("intervened", handlers.do(eight_schools, data={"tau": 2.0}), (SIGMA8, Y8)),
    Case("seeded", handlers.seed(eight_schools, rng_seed=0), (SIGMA8, Y8)),
    Case("lifted", handlers.lift(with_parameters, prior={"shift": dist.Normal(0.0, 1.0)}), (Y,)),
    Case("nested plates", nested_plates, (X, GROUP, Y)),
    Case("plate stack", plate_stack_of_vectors, (rng.normal(size=(4, 5)),)),
    Case("mixture", mixture, (Y,)),
    Case("correlations", correlated, (X,)),
    Case("dirichlet and categorical", dirichlet_categorical, (GROUP,)),
    Case("horseshoe", horseshoe, (X, Y)),
    Case("autoregression", autoregression, (SERIES,)),
    Case("random walk", random_walk, (SERIES,)),
    Case("walk, reparameterised inside", walk_without_data, (7,)),
    Case("walk, conditioned", conditioned_walk, (SERIES,)),
    Case("walk, scaled", handlers.scale(random_walk, scale=0.3), (SERIES,)),
    Case("walk, masked", handlers.mask(random_walk, mask=False), (SERIES,)),
    Case("hidden Markov, summed out", hidden_markov_summed_out, (SERIES,)),
    Case("hidden Markov, with states", hidden_markov_with_states, (SERIES,), {}, STATES),
    Case("Poisson regression", poisson_regression, (X, COUNTS)),
    Case("censored", censored, (Y,)),
    Case("missing in the model", missing_in_model, (Y,)),
    Case("weighted", weighted, (Y, np.linspace(0.5, 2.0, 20))),
    Case("Gaussian process", gaussian_process, (X[:, 0], Y)),
    Case("ordered logistic", ordered_logistic, (Y, GROUP)),
    Case("truncated", truncated, (Y,)),
    Case("improper", improper, (Y,)),
    Case("zero-inflated and gamma-Poisson", zero_inflated, (COUNTS,)),
    Case("sample_shape and broadcast data", repeated, (rng.normal(size=(5, 4)),)),
    Case("parameters", with_parameters, (Y,)),
    Case("branches", branching, (Y,)),
    Case("angles, three reparameterisations", handlers.reparam(angles, config=ANGLES)),
    Case("scopes", scoped, (Y8,)),
    Case("Bayesian network, Equinox", bayesian_network, (X, Y)),
    Case("Bayesian network, Flax NNX", bayesian_network_of_flax, (X, Y)),
]
