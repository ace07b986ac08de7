"""What people get wrong, as thunks by name; `test_sentences.py` holds what each must be told."""

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

KEY = jax.random.key(0)
Y = np.array([1.0, 2.0, 3.0])


@ppl.model
def schools():
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfNormal(2.0))
    theta = ppl.vmap(lambda s: sample("theta", dist.Normal(mu, tau)))(jnp.ones(3))
    size = ppl.deterministic("size", jnp.sum(theta))
    return sample("y", dist.Normal(theta, ppl.call("noise", jnp.exp, 0.1 * size)))


@ppl.model
def counts():
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    sample("n", dist.Poisson(rate * jnp.ones(4)))


@ppl.model
def shares():
    sample("p", dist.Dirichlet(jnp.ones((2, 3))))
    sample("x", dist.Normal(0.0, 1.0))


@ppl.model
def outer():
    return sample("sub", schools())


def body(fn, *args):
    """The program whose model is `fn`."""
    return ppl.model(fn)(*args)


def simulate(fn, *args):
    return body(fn, *args).simulate(KEY)


def sites(fn, *args):
    return body(fn, *args).sites()


def two_named(name):
    sample(name, dist.Normal(0.0, 1.0))
    sample(name, dist.Normal(0.0, 1.0))


def normal(name="x"):
    return sample(name, dist.Normal(0.0, 1.0))


def branch_on(convert):
    """Python needs the value of a random choice."""

    def model():
        return convert(sample("k", dist.Poisson(jnp.ones(3))))

    return model


def branches(one, two):
    def model():
        return ppl.cond(normal("z") > 0, one, two)

    return model


def raw(transform):
    """A raw JAX transformation around a site."""

    def model():
        return transform(lambda x: x * sample("inside", dist.Normal(0.0, 1.0)))

    return model


GOOD = {"mu": 0.0, "tau": 1.0, "theta": jnp.zeros(3), "y": Y}
DATA = {"y": Y}


def partly(x):
    return np.ma.masked_invalid(x)


CASES = {
    # names
    "data: a misspelled site": lambda: schools() | {"tehta": Y},
    "data: a name like no other": lambda: schools() | {"qqq": 1.0},
    "data: a misspelled site in a nested program": lambda: outer() | {"sub.thta": Y},
    "data: an array for a nested program": lambda: outer() | {"sub": Y},
    "data: no dict": lambda: schools() | Y,
    "data: a deterministic site": lambda: schools() | {"size": 1.0},
    "data: a call": lambda: schools() | {"noise": 1.0},
    "data: a factor": lambda: body(lambda: ppl.factor("penalty", normal())) | {"penalty": 1.0},
    "data: twice": lambda: (schools() | DATA) | DATA,
    "data: twice, the first time in part": lambda: (schools() | {"y": partly([1.0, np.nan, 2.0])}) | DATA,
    "data: obs= and |": lambda: body(lambda: sample("y", dist.Normal(0.0, 1.0), obs=1.0)) | {"y": 1.0},
    "data: in the nested program and outside": lambda: body(lambda: sample("sub", schools() | DATA)) | {"sub.y": Y},
    "data: an intervened site": lambda: schools().intervene({"mu": 1.0}) | {"mu": 1.0},
    "choices: one missing": lambda: schools().log_density({"mu": 0.0, "tau": 1.0, "theta": Y}),
    "choices: two missing": lambda: schools().log_density({"mu": 0.0, "tau": 1.0}),
    "choices: misspelled": lambda: schools().log_density({**GOOD, "mux": 0.0}),
    "choices: given data": lambda: (schools() | DATA).log_density(GOOD),
    "choices: a number": lambda: schools().log_density(1.0),
    "constraints: misspelled": lambda: schools().generate(KEY, {"thetas": Y}),
    "constraints: wrong shape": lambda: schools().generate(KEY, {"theta": np.ones(4)}),
    "without: unknown": lambda: (schools() | DATA).without("Y"),
    "without: a site that has no data": lambda: (schools() | DATA).without("mu"),
    "intervene: unknown": lambda: schools().intervene({"ta": 1.0}),
    "intervene: no dict": lambda: schools().intervene(["tau"]),
    "intervene: a function for a site": lambda: schools().intervene({"theta": jnp.sin}),
    "intervene: a value for a call": lambda: schools().intervene({"noise": 1.0}),
    "intervene: an unknown call": lambda: outer().intervene({"sub.nois": jnp.sin}),
    "reparam: unknown": lambda: schools().reparam({"thet": ppl.NonCentered()}),
    "reparam: no function": lambda: schools().reparam({"theta": "non-centred"}),
    "reparam: a site with data": lambda: (schools() | DATA).reparam({"y": ppl.NonCentered()}),
    "reparam: no location and scale": lambda: schools().reparam({"tau": ppl.NonCentered()}).sites(),
    "reparam: partly, no location and scale": lambda: schools().reparam({"tau": ppl.PartlyCentered(0.5)}).sites(),
    "reparam: a centring of wrong shape": lambda: schools().reparam({"theta": ppl.PartlyCentered(np.ones(2))}),
    "reparam: no dict": lambda: schools().reparam("theta"),
    # values
    "data: too long": lambda: schools() | {"y": np.ones(4)},
    "data: a scalar for a plate": lambda: schools() | {"theta": 1.0},
    "data: text": lambda: schools() | {"mu": "high"},
    "data: None": lambda: schools() | {"mu": None},
    "data: ragged": lambda: schools() | {"y": [[1.0], [2.0, 3.0], [4.0]]},
    "data: complex": lambda: schools() | {"mu": 1j},
    "data: NaN": lambda: schools() | {"y": np.array([1.0, np.nan, np.nan])},
    "data: NaN written in the model": lambda: sites(
        lambda: sample("y", dist.Normal(jnp.zeros(2), 1.0), obs=np.array([0.0, np.nan]))
    ),
    "data: negative for a positive site": lambda: schools() | {"tau": -1.0},
    "data: a fraction for a count": lambda: counts() | {"n": [1, 2, 2.5, 0]},
    "data: a negative count": lambda: counts() | {"n": [1, 2, 3, -1]},
    "data: outside, written in the model": lambda: sites(
        lambda: sample("y", dist.Bernoulli(0.5 * jnp.ones(2)), obs=np.array([0, 2]))
    ),
    "data: not a simplex": lambda: shares() | {"p": np.full((2, 3), 0.5)},
    "data: part of an event": lambda: shares() | {"p": partly([[0.2, 0.3, 0.5], [0.2, np.nan, 0.8]])},
    "data: infinite": lambda: schools() | {"mu": np.inf},
    "obs=: wrong shape": lambda: simulate(lambda: sample("y", dist.Normal(jnp.zeros(3), 1.0), obs=np.ones(4))),
    "obs=: text": lambda: simulate(lambda: sample("y", dist.Normal(0.0, 1.0), obs="high")),
    "obs=: for a program": lambda: simulate(lambda: sample("sub", schools(), obs=1.0)),
    # what a model says
    "sample: outside a model": lambda: normal(),
    "factor: outside a model": lambda: ppl.factor("f", 1.0),
    "sample: a class": lambda: simulate(lambda: sample("x", dist.Normal)),
    "sample: a model": lambda: simulate(lambda: sample("x", schools)),
    "sample: a number": lambda: simulate(lambda: sample("x", 1.0)),
    "sample: no name": lambda: simulate(lambda: sample("", dist.Normal(0.0, 1.0))),
    "sample: the arguments swapped": lambda: simulate(lambda: sample(dist.Normal(0.0, 1.0), "x")),
    "sample: one name twice": lambda: simulate(two_named, "x"),
    "sample: one name twice in a nested program": lambda: simulate(lambda: sample("sub", body(two_named, "x"))),
    "sample: one name in and after a plate": lambda: simulate(lambda: (ppl.vmap(lambda _: normal())(Y), normal())),
    "sample: one name in a Python loop": lambda: simulate(lambda: [normal() for _ in range(3)]),
    "sample: two names of one checksum": lambda: simulate(lambda: (normal("plumless"), normal("buckeroo"))),
    "sample: one address twice": lambda: sites(lambda: (normal("a.x"), sample("a", body(normal)))),
    "deterministic: a dict": lambda: sites(lambda: ppl.deterministic("parts", {"a": 1.0})),
    "deterministic: text": lambda: sites(lambda: ppl.deterministic("label", "high")),
    "factor: None": lambda: sites(lambda: ppl.factor("f", None)),
    "Python if": lambda: sites(branch_on(lambda k: 1 if k[0] > 1 else 2)),
    "Python if, under jit": lambda: jax.jit(body(branch_on(lambda k: 1 if k[0] > 1 else 2)).simulate)(KEY),
    "Python range": lambda: sites(branch_on(lambda k: [normal(f"x{i}") for i in range(k[0])])),
    "Python float": lambda: sites(branch_on(lambda k: float(k[0]))),
    "NumPy on a random value": lambda: sites(branch_on(lambda k: np.sort(k))),
    "a random mask": lambda: sites(branch_on(lambda k: k[k > 1])),
    "branches: a site of two shapes": lambda: simulate(
        branches(lambda: normal() * jnp.ones(2), lambda: sample("x", dist.Normal(jnp.zeros(2), 1.0)))
    ),
    "branches: a site and a program": lambda: simulate(branches(normal, lambda: sample("x", body(normal, "y")))),
    "branches: data in one": lambda: simulate(branches(normal, lambda: sample("x", dist.Normal(0.0, 1.0), obs=1.0))),
    "branches: discrete in one": lambda: simulate(branches(normal, lambda: 1.0 * sample("x", dist.Poisson(1.0)))),
    "branches: results of two shapes": lambda: simulate(branches(normal, lambda: jnp.zeros(2))),
    "scan: lengths differ": lambda: simulate(lambda: ppl.scan(lambda c, x: (c, normal()), 0.0, Y, length=4)),
    "scan: xs differ": lambda: simulate(lambda: ppl.scan(lambda c, x: (c, normal()), 0.0, (Y, jnp.ones(2)))),
    "scan: no length": lambda: simulate(lambda: ppl.scan(lambda c, x: (c, normal()), 0.0)),
    "scan: along a scalar": lambda: simulate(lambda: ppl.scan(lambda c, x: (c, normal()), 0.0, 1.0)),
    "fori_loop: a random bound": lambda: sites(branch_on(lambda k: ppl.fori_loop(0, k[0], lambda i, x: x + normal(), 0.0))),
    "raw jax.vmap": lambda: simulate(raw(lambda f: jax.vmap(f)(Y))),
    "raw jax.jit": lambda: simulate(raw(lambda f: jax.jit(f)(1.0))),
    "raw jax.grad": lambda: simulate(raw(lambda f: jax.grad(f)(1.0))),
    "raw jax.checkpoint": lambda: simulate(raw(lambda f: jax.checkpoint(f)(1.0))),
    "raw jax.lax.scan": lambda: simulate(raw(lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, Y))),
    "raw jax.lax.cond": lambda: simulate(raw(lambda f: jax.lax.cond(True, f, lambda x: x, 1.0))),
    "raw jax.vmap around ppl.vmap": lambda: simulate(raw(lambda f: jax.vmap(lambda x: ppl.vmap(f)(x))(jnp.ones((2, 3))))),
    # asking
    "simulate: a number as key": lambda: schools().simulate(0),
    "simulate: an old key": lambda: schools().simulate(jax.random.PRNGKey(0)),
    "simulate: many keys": lambda: schools().simulate(jax.random.split(KEY, 3)),
    "predict: neither draws nor num": lambda: ppl.predict(schools(), KEY),
    "predict: no draws wanted": lambda: ppl.predict(schools(), KEY, num=0),
    "predict: draws of another program": lambda: ppl.predict(schools(), KEY, {"alpha": np.ones((2, 5))}),
    "predict: draws of two sizes": lambda: ppl.predict(schools(), KEY, {"mu": np.ones(5), "tau": np.ones(4)}),
    "retval: of a trace from vmap": lambda: jax.vmap(schools().simulate)(jax.random.split(KEY, 2)).retval,
    "target: a model": lambda: ppl.as_target(schools),
    "target: a function": lambda: ppl.as_target(jnp.sin),
    "target: nothing latent": lambda: ppl.Target(body(normal) | {"x": 1.0}),
    "target: a site in one branch": lambda: ppl.Target(body(branches(normal, lambda: 0.0))),
    "target: a position of wrong length": lambda: ppl.Target(schools()).log_density(jnp.zeros(3)),
    "target: missing entries that jit hides": lambda: jax.jit(lambda p: ppl.Target(p).log_density(jnp.zeros(6)))(
        schools() | {"y": partly([1.0, np.nan, 2.0])}
    ),
    "target: unconstrain with a site missing": lambda: ppl.Target(schools() | DATA).unconstrain({"mu": 0.0}),
    "from_log_density: no scalar": lambda: ppl.Target.from_log_density(lambda x: -(x**2), jnp.zeros(3)),
    "from_log_density: unknown support": lambda: ppl.Target.from_log_density(
        lambda c: -c["a"], {"a": 1.0}, supports={"b": dist.constraints.positive}
    ),
}
