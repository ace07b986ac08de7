"""The registry: models that every law of the language must hold for, each with its density written by hand in SciPy.

A new combinator is one function here and one line in `CASES`; `test_laws.py` then runs every law on it. The oracle takes
the nested choices as NumPy arrays, walks the model in plain Python loops, and returns the joint log density.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import gammaln

import ppl
from ppl import dist, sample


class Case(NamedTuple):
    """A program (made when asked, so that the test's precision rules), its oracle, and what is special about it."""

    make: Callable[[], ppl.Program]
    oracle: Callable[[dict[str, Any]], float]
    exact: dict[str, Any] | None = None  # data under which all latent choices are discrete: the marginal is a finite sum
    target: bool = True  # False: no continuous latent site, or a site in one branch only


def normal(x, loc=0.0, scale=1.0):
    return float(np.sum(stats.norm.logpdf(x, loc, scale)))


def half_normal(x, scale=1.0):
    return float(np.sum(stats.halfnorm.logpdf(x, 0.0, scale)))


def poisson(k, rate):
    return float(np.sum(stats.poisson.logpmf(k, rate)))


def bernoulli(k, p):
    return float(np.sum(stats.bernoulli.logpmf(k, p)))


def dirichlet(x, a):
    return float(gammaln(np.sum(a)) - np.sum(gammaln(a)) + np.sum((np.asarray(a) - 1) * np.log(x)))


# -- sites -----------------------------------------------------------------------------------------------------------------


@ppl.model
def plain():
    mu = sample("mu", dist.Normal(1.0, 2.0))
    s = sample("s", dist.HalfNormal(1.5))
    return sample("y", dist.Normal(mu, s))


def plain_oracle(c):
    return normal(c["mu"], 1, 2) + half_normal(c["s"], 1.5) + normal(c["y"], c["mu"], c["s"])


SCALE = np.array([[2.0, 0.3], [0.3, 1.0]])


@ppl.model
def shapes():
    x = sample("x", dist.Normal(jnp.arange(3.0), 2.0))
    p = sample("p", dist.Dirichlet(jnp.array([1.5, 2.0, 3.0])))
    v = sample("v", dist.MultivariateNormal(jnp.zeros((3, 2)), jnp.array(SCALE)))
    e = sample("e", dist.Normal(x, 1.0).to_event(1))
    return x.sum() + p @ v[:, 0] + e[0]


def shapes_oracle(c):
    v = stats.multivariate_normal([0, 0], SCALE)
    return (
        normal(c["x"], np.arange(3), 2)
        + dirichlet(c["p"], [1.5, 2, 3])
        + sum(float(v.logpdf(row)) for row in c["v"])
        + normal(c["e"], c["x"], 1)
    )


@ppl.model
def supports():
    s = sample("s", dist.Weibull(1.5, 2.0))
    u = sample("u", dist.Uniform(-s, 2.0 * s))
    b = sample("b", dist.TruncatedNormal(0.5, 0.3, low=0.0, high=1.0))
    t = sample("t", dist.LogNormal(u, b))
    return sample("c", dist.Cauchy(t, 1.0))


def supports_oracle(c):
    return float(
        stats.weibull_min.logpdf(c["s"], 2, scale=1.5)
        + stats.uniform.logpdf(c["u"], -c["s"], 3 * c["s"])
        + stats.truncnorm.logpdf(c["b"], -0.5 / 0.3, 0.5 / 0.3, 0.5, 0.3)
        + stats.lognorm.logpdf(c["t"], c["b"], scale=np.exp(c["u"]))
        + stats.cauchy.logpdf(c["c"], c["t"], 1)
    )


# -- plates ----------------------------------------------------------------------------------------------------------------

SIGMA = np.array([1.0, 2.0, 0.5])
Y = np.array([0.3, -1.2, 2.0])


@ppl.model
def plate():
    mu = sample("mu", dist.Normal(0.0, 5.0))

    def school(s):
        theta = sample("theta", dist.Normal(mu, 2.0))
        return sample("y", dist.Normal(theta, s))

    return ppl.vmap(school)(jnp.array(SIGMA))


def plate_oracle(c):
    return normal(c["mu"], 0, 5) + normal(c["theta"], c["mu"], 2) + normal(c["y"], c["theta"], SIGMA)


@ppl.model
def nested_plates():
    """Both plates have three members: a transposed value would pass every check of shapes."""
    mu = sample("mu", dist.Normal(jnp.zeros(3), 3.0))

    def outer(m):
        a = sample("a", dist.Normal(m, 1.0))

        def inner(s):
            b = sample("b", dist.Normal(a, s))
            return b + sample("shared", dist.Normal(mu, 1.0)).sum()

        return ppl.vmap(inner)(jnp.array(SIGMA))

    return ppl.vmap(outer)(mu)


def nested_plates_oracle(c):
    out = normal(c["mu"], 0, 3)
    for i in range(3):
        out += normal(c["a"][i], c["mu"][i], 1)
        for j in range(3):
            out += normal(c["b"][i, j], c["a"][i], SIGMA[j]) + normal(c["shared"][i, j], c["mu"], 1)
    return out


MATRIX = np.arange(6.0).reshape(2, 3)


@ppl.model
def axes():
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def column(x, m, *, k):
        return x * sample("w", dist.Normal(m, 1.0)) + sample("v", dist.Normal(x + k, 2.0))

    return ppl.vmap(column, in_axes=(1, None), out_axes=1)(jnp.array(MATRIX), mu, k=jnp.arange(3.0))


def axes_oracle(c):
    out = normal(c["mu"])
    for j in range(3):
        out += normal(c["w"][j], c["mu"], 1) + normal(c["v"][j], MATRIX[:, j] + j, 2)
    return out


@ppl.model
def axis_size():
    return ppl.vmap(lambda: sample("x", dist.Exponential(2.0)), axis_size=4)()


def axis_size_oracle(c):
    return float(np.sum(stats.expon.logpdf(c["x"], scale=0.5)))


# -- loops -----------------------------------------------------------------------------------------------------------------


@ppl.model
def chain():
    def step(z, _):
        z = sample("z", dist.Normal(0.8 * z, 1.0))
        sample("y", dist.Normal(z, 0.5))
        return z, z

    return ppl.scan(step, 0.0, length=4)


def chain_oracle(c):
    out, z = 0.0, 0.0
    for t in range(4):
        out += normal(c["z"][t], 0.8 * z, 1) + normal(c["y"][t], c["z"][t], 0.5)
        z = c["z"][t]
    return out


@ppl.model
def backwards():
    def step(z, x):
        z = sample("z", dist.Normal(z + x, 1.0))
        return z, 2 * z

    return ppl.scan(step, 1.0, jnp.array(SIGMA), reverse=True)


def backwards_oracle(c):
    out, z = 0.0, 1.0
    for t in (2, 1, 0):
        out += normal(c["z"][t], z + SIGMA[t], 1)
        z = c["z"][t]
    return out


@ppl.model
def scan_of_vmap():
    def step(z, x):
        def lane(z):
            return sample("z", dist.Normal(z, x))

        z = ppl.vmap(lane)(z)
        g = sample("g", dist.Normal(z.sum(), 1.0))
        return z + g, z

    return ppl.scan(step, jnp.zeros(2), jnp.array(SIGMA))


def scan_of_vmap_oracle(c):
    out, z = 0.0, np.zeros(2)
    for t in range(3):
        out += normal(c["z"][t], z, SIGMA[t]) + normal(c["g"][t], c["z"][t].sum(), 1)
        z = c["z"][t] + c["g"][t]
    return out


@ppl.model
def vmap_of_scan_of_cond():
    def series(level):
        def step(z, _):
            z = ppl.cond(
                z > level,
                lambda z: sample("z", dist.Normal(-z, 1.0)),
                lambda z: sample("z", dist.Normal(z + 1.0, 2.0)),
                z,
            )
            return z, z

        return ppl.scan(step, level, length=3)

    return ppl.vmap(series)(jnp.array([0.0, 1.0]))


def vmap_of_scan_of_cond_oracle(c):
    out = 0.0
    for i, level in enumerate((0.0, 1.0)):
        z = level
        for t in range(3):
            out += normal(c["z"][i, t], -z, 1) if z > level else normal(c["z"][i, t], z + 1, 2)
            z = c["z"][i, t]
    return out


@ppl.model
def fori():
    return ppl.fori_loop(1, 4, lambda i, x: x + i * sample("step", dist.Normal(x, 1.0)), 0.0)


def fori_oracle(c):
    out, x = 0.0, 0.0
    for i in (1, 2, 3):
        out += normal(c["step"][i - 1], x, 1)
        x = x + i * c["step"][i - 1]
    return out


@ppl.model
def remat():
    def step(z, x):
        z = sample("z", dist.Normal(jnp.sin(z) + x, 1.0))
        return z, z

    return ppl.scan(ppl.remat(step), 0.0, jnp.array(SIGMA))


def remat_oracle(c):
    out, z = 0.0, 0.0
    for t in range(3):
        out += normal(c["z"][t], np.sin(z) + SIGMA[t], 1)
        z = c["z"][t]
    return out


# -- branches --------------------------------------------------------------------------------------------------------------


@ppl.model
def one_branch():
    z = sample("z", dist.Normal(0.0, 1.0))
    x = ppl.cond(z > 0, lambda: sample("x", dist.Normal(z, 1.0)), lambda: 0.0)
    return sample("y", dist.Normal(x, 1.0))


def one_branch_oracle(c):
    taken = normal(c["x"], c["z"], 1) if c["z"] > 0 else 0.0
    return normal(c["z"]) + taken + normal(c["y"], c["x"] if c["z"] > 0 else 0.0, 1)


@ppl.model
def switch():
    k = sample("k", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    m = ppl.switch(
        k,
        [
            lambda: 1.0 * sample("n", dist.Poisson(1.0)),
            lambda: 3.0 + sample("flip", dist.Bernoulli(0.3)),
            lambda: 2.0 * sample("n", dist.Poisson(4.0)),
        ],
    )
    return sample("y", dist.Poisson(m + 0.5))


def switch_oracle(c):
    k, n, flip = int(c["k"]), c["n"], c["flip"]
    branch = [(poisson(n, 1), n), (bernoulli(flip, 0.3), 3 + flip), (poisson(n, 4), 2 * n)][k]
    return float(np.log([0.2, 0.3, 0.5][k])) + branch[0] + poisson(c["y"], branch[1] + 0.5)


@ppl.model
def mixture():
    w = sample("w", dist.Uniform(0.0, 1.0))

    def member(_):
        z = sample("z", dist.Bernoulli(w))
        return ppl.cond(z == 1, lambda: sample("y", dist.Normal(2.0, 0.5)), lambda: sample("y", dist.Normal(-1.0, 1.0)))

    return ppl.vmap(member)(jnp.arange(3))


def mixture_oracle(c):
    out = bernoulli(c["z"], c["w"])
    for z, y in zip(c["z"], c["y"], strict=True):
        out += normal(y, 2, 0.5) if z == 1 else normal(y, -1, 1)
    return out


TRANSITION = np.array([[0.7, 0.3], [0.2, 0.8]])


@ppl.model
def hidden_markov():
    def step(z, _):
        z = sample("z", dist.Categorical(jnp.array(TRANSITION)[z]))
        sample("y", dist.Normal(3.0 * z, 1.0))
        return z, z

    return ppl.scan(step, jnp.zeros((), int), length=4)


def hidden_markov_oracle(c):
    out, z = 0.0, 0
    for t in range(4):
        out += float(np.log(TRANSITION[z, c["z"][t]])) + normal(c["y"][t], 3 * c["z"][t], 1)
        z = c["z"][t]
    return out


# -- programs in programs --------------------------------------------------------------------------------------------------


@ppl.model
def line(x, scale):
    a = sample("a", dist.Normal(0.0, scale))
    sample("y", dist.Normal(a * x, 1.0))
    return a


def line_oracle(c, x, scale):
    return normal(c["a"], 0, scale) + normal(c["y"], c["a"] * x, 1)


@ppl.model
def nested():
    s = sample("s", dist.HalfNormal(1.0))
    a = sample("left", line(jnp.array(SIGMA), s))
    b = sample("right", line(2.0, 1.0))
    return sample("a", dist.Normal(a + b, 1.0))


def nested_oracle(c):
    left, right = line_oracle(c["left"], SIGMA, c["s"]), line_oracle(c["right"], 2, 1)
    return half_normal(c["s"]) + left + right + normal(c["a"], c["left"]["a"] + c["right"]["a"], 1)


@ppl.model
def nested_with_data():
    s = sample("s", dist.HalfNormal(1.0))
    return sample("line", line(jnp.array(SIGMA), s) | {"y": Y})


def nested_with_data_oracle(c):
    return half_normal(c["s"]) + line_oracle({"a": c["line"]["a"], "y": Y}, SIGMA, c["s"])


@ppl.model
def plate_of_programs():
    s = sample("s", dist.HalfNormal(1.0))
    return ppl.vmap(lambda x: sample("line", line(x, s)))(jnp.array(SIGMA))


def plate_of_programs_oracle(c):
    lanes = [{"a": c["line"]["a"][i], "y": c["line"]["y"][i]} for i in range(3)]
    return half_normal(c["s"]) + sum(line_oracle(lane, SIGMA[i], c["s"]) for i, lane in enumerate(lanes))


@ppl.model
def scan_of_programs():
    def step(scale, x):
        a = sample("inner", line(x, scale))
        return jnp.exp(0.1 * a), a

    return ppl.scan(step, 1.0, jnp.array(SIGMA))


def scan_of_programs_oracle(c):
    out, scale = 0.0, 1.0
    for t in range(3):
        lane = {"a": c["inner"]["a"][t], "y": c["inner"]["y"][t]}
        out += line_oracle(lane, SIGMA[t], scale)
        scale = np.exp(0.1 * lane["a"])
    return out


@ppl.model
def twice():
    """A program in a program in a plate: three levels of names."""
    return ppl.vmap(lambda x: sample("deep", nested_with_data()) * x)(jnp.array([1.0, 2.0]))


def twice_oracle(c):
    d = c["deep"]
    return sum(nested_with_data_oracle({"s": d["s"][i], "line": {"a": d["line"]["a"][i]}}) for i in range(2))


# -- weights, values, calls, data ------------------------------------------------------------------------------------------


@ppl.model
def extras():
    w = sample("w", dist.Normal(jnp.zeros(2), 1.0))
    size = ppl.deterministic("size", jnp.sum(w**2))
    ppl.factor("penalty", -0.5 * jnp.abs(w))
    f = ppl.call("f", lambda x, *, k: jnp.sin(x) + k, size, k=0.5)
    return sample("y", dist.Normal(f, 1.0))


def extras_oracle(c):
    size = np.sum(c["w"] ** 2)
    return normal(c["w"]) - 0.5 * np.abs(c["w"]).sum() + normal(c["y"], np.sin(size) + 0.5, 1)


@ppl.model
def written():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    ppl.observe("one", dist.Normal(mu, 1.0), Y)  # one distribution for three data

    def lane(y):
        b = sample("b", dist.Normal(mu, 1.0))
        sample("y", dist.Poisson(jnp.exp(b)), obs=y)

    ppl.vmap(lane)(jnp.array([0, 3, 1]))
    return mu


def written_oracle(c):
    return normal(c["mu"]) + normal(Y, c["mu"], 1) + normal(c["b"], c["mu"], 1) + poisson(np.array([0, 3, 1]), np.exp(c["b"]))


HOLES = np.ma.masked_array(Y, mask=[False, True, False])


@ppl.model
def written_with_holes():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.HalfNormal(jnp.exp(mu)), obs=np.ma.abs(HOLES))


def written_with_holes_oracle(c):
    return normal(c["mu"]) + half_normal(np.where(HOLES.mask, c["y"], np.abs(HOLES.data)), np.exp(c["mu"]))


@ppl.model
def rows():
    a = sample("a", dist.HalfNormal(2.0))
    sample("p", dist.Dirichlet(a * jnp.ones((3, 4))))
    sample("v", dist.MultivariateNormal(a * jnp.ones((2, 2)), jnp.array(SCALE)))
    sample("y", dist.LogNormal(a * jnp.ones((2, 3)), 1.0))


SIMPLICES = np.ma.masked_array(np.full((3, 4), 0.25) + np.eye(3, 4) * 0.15 - np.eye(3, 4, 1) * 0.15)
SIMPLICES[1] = np.ma.masked
VECTORS = np.ma.masked_array([[0.5, -1.0], [9.0, 9.0]], mask=[[False] * 2, [True] * 2])
MATRIX_HOLES = np.ma.masked_array(MATRIX + 0.5, mask=MATRIX % 2 == 0)


def rows_oracle(c):
    p, v, y = (
        np.where(np.ma.getmaskarray(data), c[name], data.data)
        for name, data in (("p", SIMPLICES), ("v", VECTORS), ("y", MATRIX_HOLES))
    )
    mvn = stats.multivariate_normal(c["a"] * np.ones(2), SCALE)
    return (
        half_normal(c["a"], 2)
        + sum(dirichlet(row, c["a"] * np.ones(4)) for row in p)
        + sum(float(mvn.logpdf(row)) for row in v)
        + float(np.sum(stats.lognorm.logpdf(y, 1, scale=np.exp(c["a"]))))
    )


CHAIN_HOLES = {"y": np.ma.masked_array([1.0, 0.0, 0.0, -1.0], mask=[0, 1, 1, 0])}


def chain_with_holes_oracle(c):
    y = CHAIN_HOLES["y"]
    return chain_oracle({"z": c["z"], "y": np.where(y.mask, c["y"], y.data)})


# -- changed programs ------------------------------------------------------------------------------------------------------


@ppl.model
def hierarchy():
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfNormal(2.0))
    theta = ppl.vmap(lambda s: sample("theta", dist.Normal(mu, tau)))(jnp.array(SIGMA))
    v = sample("v", dist.MultivariateNormal(mu * jnp.ones(2), jnp.array(SCALE)))
    sample("y", dist.Normal(theta + v[0], jnp.array(SIGMA)))
    return theta


def hierarchy_oracle(c, theta=None):
    theta = c["theta"] if theta is None else theta
    mvn = stats.multivariate_normal(c["mu"] * np.ones(2), SCALE)
    top = normal(c["mu"], 0, 5) + half_normal(c["tau"], 2) + normal(theta, c["mu"], c["tau"])
    return top + float(mvn.logpdf(c["v"])) + normal(c["y"], theta + c["v"][0], SIGMA)


def non_centred_oracle(c):
    """The base variables' density: the original one times the Jacobian of location and scale."""
    theta = c["mu"] + c["tau"] * c["theta_base"]
    v = c["mu"] + np.linalg.cholesky(SCALE) @ c["v_base"]
    jacobian = 3 * np.log(c["tau"]) + np.log(np.linalg.det(SCALE)) / 2
    return hierarchy_oracle({**c, "v": v}, theta) + jacobian


CENTRING = np.array([0.0, 0.3, 1.0])  # of theta, entry by entry


def partly_centred_oracle(c):
    scale = c["tau"] ** (1.0 - CENTRING)
    theta = c["mu"] + scale * (c["theta_base"] - CENTRING * c["mu"])
    return hierarchy_oracle(c, theta) + float(np.sum(np.log(scale)))


def intervened_oracle(c):
    theta = np.array([1.0, 2.0, 3.0])
    v = float(stats.multivariate_normal(c["mu"] * np.ones(2), SCALE).logpdf(c["v"]))
    return normal(c["mu"], 0, 5) + half_normal(c["tau"], 2) + v + normal(c["y"], theta + c["v"][0], SIGMA)


@ppl.model
def coins():
    bias = sample("bias", dist.Bernoulli(0.4))
    return ppl.vmap(lambda i: sample("flip", dist.Bernoulli(0.2 + 0.5 * bias)))(jnp.arange(3))


def coins_oracle(c):
    return bernoulli(c["bias"], 0.4) + bernoulli(c["flip"], 0.2 + 0.5 * c["bias"])


CASES: dict[str, Case] = {
    "plain": Case(plain, plain_oracle),
    "batch and event shapes": Case(shapes, shapes_oracle),
    "supports, one of them random": Case(supports, supports_oracle),
    "vmap": Case(plate, plate_oracle),
    "vmap of vmap": Case(nested_plates, nested_plates_oracle),
    "vmap with axes": Case(axes, axes_oracle),
    "vmap with axis_size": Case(axis_size, axis_size_oracle),
    "scan": Case(chain, chain_oracle),
    "scan, reverse": Case(backwards, backwards_oracle),
    "scan of vmap": Case(scan_of_vmap, scan_of_vmap_oracle),
    "vmap of scan of cond": Case(vmap_of_scan_of_cond, vmap_of_scan_of_cond_oracle),
    "fori_loop": Case(fori, fori_oracle),
    "scan of remat": Case(remat, remat_oracle),
    "cond with a site in one branch": Case(one_branch, one_branch_oracle, target=False),
    "switch": Case(switch, switch_oracle, {"y": 3, "n": 2, "flip": 1}, target=False),
    "mixture": Case(mixture, mixture_oracle, {"w": 0.3, "y": np.array([1.0, -2.0, 0.5])}),
    "hidden Markov": Case(hidden_markov, hidden_markov_oracle, {"y": np.array([0.5, 2.0, 3.5, 1.0])}),
    "coins": Case(coins, coins_oracle, {"flip": np.array([1, 0, 1])}, target=False),
    "program in program": Case(nested, nested_oracle),
    "conditioned program in program": Case(nested_with_data, nested_with_data_oracle),
    "vmap of programs": Case(plate_of_programs, plate_of_programs_oracle),
    "scan of programs": Case(scan_of_programs, scan_of_programs_oracle),
    "vmap of programs in programs": Case(twice, twice_oracle),
    "factor, deterministic, call": Case(extras, extras_oracle),
    "obs= and observe": Case(written, written_oracle),
    "obs= with holes": Case(written_with_holes, written_with_holes_oracle),
    "rows of events with holes": Case(lambda: rows() | {"p": SIMPLICES, "v": VECTORS, "y": MATRIX_HOLES}, rows_oracle),
    "scan with holes": Case(lambda: chain() | CHAIN_HOLES, chain_with_holes_oracle),
    "hierarchy": Case(hierarchy, hierarchy_oracle),
    "hierarchy, non-centred": Case(
        lambda: hierarchy().reparam({"theta": ppl.NonCentered(), "v": ppl.NonCentered()}), non_centred_oracle
    ),
    "hierarchy, partly centred": Case(
        lambda: hierarchy().reparam({"theta": ppl.PartlyCentered(CENTRING)}), partly_centred_oracle
    ),
    "hierarchy, intervened": Case(lambda: hierarchy().intervene({"theta": np.array([1.0, 2.0, 3.0])}), intervened_oracle),
}
