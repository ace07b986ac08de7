"""The registry of strategies and the programs they are tried on, with exact means, and how to look whether the law is kept.

The law: the mean of `estimate` is that of the program, and the mean of its gradient is the gradient of that mean. Every
program here has its mean in closed form, or as a sum over the values of its coins, written without the library. A new
strategy is a line in each program that it is for.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from inference.vi import DisARM, Enumerate, Expectation, Learned, MeasureValued, Reparameterised, Score, Strategy, expectation
from inference.vi.strategies import Relax
from ppl import dist, sample

sigmoid = jax.nn.sigmoid
THETA = jnp.array([0.3, -0.4])  # where gradients are compared


class Case(NamedTuple):
    """A program of two parameters, its exact mean, and the strategies that are tried, by name: for every site, or by address.

    `plain`: which of them are tried every day.
    """

    fn: Callable[[Any], Any]
    mean: Callable[[Any], Any]
    strategies: Mapping[str, Strategy | Mapping[str, Strategy]]
    plain: tuple[str, ...]

    def using(self, name: str) -> Expectation:
        """The program with the strategies of this name."""
        chosen = self.strategies[name]
        e = self.fn if isinstance(self.fn, Expectation) else expectation(self.fn)
        return e.using({"*": chosen} if isinstance(chosen, Strategy) else chosen)


def total(f, *sizes: int):
    """The sum of f over all joint values."""
    return sum(f(*values) for values in itertools.product(*map(range, sizes)))


def chance(p, x):
    """Of a coin."""
    return p if x else 1.0 - p


# -- two normals, one after the other; exact by moments --------------------------------------------------------------------


def normals(theta):
    t, s = theta
    a = sample("a", dist.Normal(t, 1.0))
    b = sample("b", dist.Normal(s, jnp.exp(t)))
    return a * b + a**2 + jnp.cos(b) + s * a


def normals_mean(theta):
    t, s = theta
    return t * s + t**2 + 1.0 + jnp.exp(-0.5 * jnp.exp(2.0 * t)) * jnp.cos(s) + s * t


# -- two noises that must differ: E[ab] = 0 wherever the scales are --------------------------------------------------------


def noises(theta):
    scale = jnp.exp(theta)
    return sample("a", dist.Normal(0.0, scale[0])) * sample("b", dist.Normal(0.0, scale[1]))


# -- coins, each depending on the one before, and a normal on them ---------------------------------------------------------


def coins(theta):
    t, s = theta
    x = sample("x", dist.Bernoulli(sigmoid(t)))
    y = sample("y", dist.Bernoulli(logits=s + x))
    z = sample("z", dist.Normal(t * y, 1.0))
    return (1.0 + x + 2 * y) * t + x * y * z - s * y


def coins_mean(theta):
    t, s = theta

    def f(x, y):
        return chance(sigmoid(t), x) * chance(sigmoid(s + x), y) * ((1.0 + x + 2 * y) * t + x * y * t * y - s * y)

    return total(f, 2, 2)


# -- a coin a step of a chain ----------------------------------------------------------------------------------------------


def chain(theta):
    def step(carry, shift):
        x = sample("x", dist.Bernoulli(sigmoid(theta[0] + carry + shift * theta[1])))
        return carry + x - 0.5, None

    carry, _ = ppl.scan(step, 0.0, jnp.arange(3.0))
    return carry**2 + 0.5 * carry


def chain_mean(theta):
    def f(*xs):
        carry, weight = 0.0, 1.0
        for i, x in enumerate(xs):
            weight *= chance(sigmoid(theta[0] + carry + i * theta[1]), x)
            carry += x - 0.5
        return weight * (carry**2 + 0.5 * carry)

    return total(f, 2, 2, 2)


# -- lanes of a plate, used together ---------------------------------------------------------------------------------------


def plate(theta):
    xs = ppl.vmap(lambda a: sample("x", dist.Bernoulli(sigmoid(theta[0] * a + theta[1]))))(jnp.arange(3.0))
    return jnp.sum(xs) ** 2 + theta[1] * xs[2]


def plate_mean(theta):
    p = sigmoid(theta[0] * jnp.arange(3.0) + theta[1])
    return jnp.sum(p) ** 2 + jnp.sum(p * (1.0 - p)) + theta[1] * p[2]


# -- sites with shapes: expand, to_event, a table of probabilities ---------------------------------------------------------


def shapes(theta):
    t, s = theta
    x = sample("x", dist.Bernoulli(sigmoid(theta)).to_event(1))
    y = sample("y", dist.Bernoulli(logits=t).expand([2]).to_event(1))
    k = sample("k", dist.Categorical(jnp.stack([0.2 * sigmoid(s), 0.3 + 0.0 * s, 0.7 - 0.2 * sigmoid(s)])))
    n = sample("n", dist.Normal(theta * x, 1.0).to_event(1))
    return (x[0] + 2.0 * x[1] * y[0] + t * y[1]) * k + n[0] * n[1]


def shapes_mean(theta):
    t, s = theta
    p, q, k = sigmoid(theta), sigmoid(t), 0.3 + 2.0 * (0.7 - 0.2 * sigmoid(s))
    return (p[0] + 2.0 * p[1] * q + t * q) * k + t * p[0] * s * p[1]


# -- a site in one branch only, and one that several branches have ---------------------------------------------------------


def branches(theta):
    t, s = theta
    x = sample("x", dist.Bernoulli(sigmoid(t)))
    one = ppl.cond(
        x == 1,
        lambda: 1.0 * sample("u", dist.Normal(t, 1.0)),
        lambda: 2.0 * sample("w", dist.Bernoulli(sigmoid(2 * s))),
    )
    k = sample("k", dist.Categorical(logits=jnp.stack([t, s, 0.0])))
    several = [
        lambda: 1.0 * sample("v", dist.Bernoulli(sigmoid(s))),
        lambda: 3.0 * sample("v", dist.Bernoulli(sigmoid(t))),
        lambda: t,
    ]
    return one + ppl.switch(k, several) * (1.0 + x)


def branches_mean(theta):
    t, s = theta
    p, k = sigmoid(t), jax.nn.softmax(jnp.stack([t, s, 0.0]))
    one = p * t + (1.0 - p) * 2.0 * sigmoid(2 * s)
    return one + (k[0] * sigmoid(s) + k[1] * 3.0 * sigmoid(t) + k[2] * t) * (1.0 + p)


# -- programs in programs: sampled under a name, drawn twice ---------------------------------------------------------------


@ppl.model
def pair(t):
    x = sample("x", dist.Bernoulli(sigmoid(t)))
    sample("y", dist.Categorical(jnp.stack([0.5 * sigmoid(t), 0.5 - 0.5 * sigmoid(t), 0.5])))
    return x


@ppl.model
def nest(t, s):
    inner = sample("inner", pair(t))
    sample("z", dist.Normal(s * inner, 1.0))


def programs(theta):
    t, s = theta
    one, log_q = ppl.draw(nest(t, s))
    two, _ = ppl.draw(pair(s))
    x, y = one["inner"]["x"], one["inner"]["y"]
    prior = nest(0.1, 0.2).log_density(one)
    return x * y * one["z"] + two["x"] * two["y"] * x + prior - log_q


def programs_mean(theta):
    t, s = theta

    def law(t, y):
        return jnp.stack([0.5 * sigmoid(t), 0.5 - 0.5 * sigmoid(t), 0.5])[y]

    def f(x, y, x2, y2):
        weight = chance(sigmoid(t), x) * law(t, y) * chance(sigmoid(s), x2) * law(s, y2)
        log_ratio = jnp.log(chance(sigmoid(0.1), x) * law(0.1, y)) - jnp.log(chance(sigmoid(t), x) * law(t, y))
        normals = -0.5 * (1.0 + (s * x - 0.2 * x) ** 2) + 0.5
        return weight * (x * y * s * x + x2 * y2 * x + log_ratio + normals)

    return total(f, 2, 3, 2, 3)


# -- expectations in lanes of a map, and in steps of a loop ----------------------------------------------------------------

scaled = expectation(lambda theta, a: coins(theta) * a)


def lanes(theta):
    b = sample("b", dist.Bernoulli(sigmoid(theta[0])))
    return jnp.sum(ppl.vmap(scaled, (None, 0))(theta + b, jnp.arange(3.0)))


def lanes_mean(theta):
    return 3.0 * total(lambda b: chance(sigmoid(theta[0]), b) * coins_mean(theta + b), 2)


def steps(theta):
    def step(carry, a):
        x = sample("b", dist.Bernoulli(sigmoid(theta[1] + 0.5 * carry)))
        return carry + x, scaled(theta + carry, a)

    _, values = ppl.scan(step, 0.0, jnp.array([1.0, 2.0]))
    return jnp.sum(values)


def steps_mean(theta):
    return coins_mean(theta) + 2.0 * total(lambda b: chance(sigmoid(theta[1]), b) * coins_mean(theta + b), 2)


# -- a site some entries of which are data ---------------------------------------------------------------------------------

HOLES = np.ma.masked_array([1, 0, 1], [True, False, True])


@ppl.model
def partly(theta):
    sample("x", dist.Bernoulli(sigmoid(theta[0] * jnp.arange(1.0, 4.0))))


def holes(theta):
    c, _ = ppl.draw(partly(theta) | {"x": HOLES})
    x = c["x"]
    return x[0] * 1.0 + 2.0 * x[0] * x[2] + x[1] * theta[1] + x[2] * theta[1]


def holes_mean(theta):
    p = sigmoid(theta[0] * jnp.arange(1.0, 4.0))
    return p[0] + 2.0 * p[0] * p[2] + p[2] * theta[1]


# -- counts and waiting times: supports without end ------------------------------------------------------------------------


def counts(theta):
    t, s = theta
    n = sample("n", dist.Poisson(jnp.exp(t)))
    g = sample("g", dist.Gamma(2.0 + s**2, jnp.exp(s)))
    w = sample("w", dist.Exponential(jnp.exp(t)))
    return 0.1 * n**2 * 1.0 + g * w + 0.2 * n * w


def counts_mean(theta):
    t, s = theta
    rate = jnp.exp(t)
    return 0.1 * (rate + rate**2) + (2.0 + s**2) * jnp.exp(-s - t) + 0.2


def relaxed(z):
    """A control that is not linear, and is by no means good."""
    return jnp.sum(jnp.tanh(z)) + 0.3 * jnp.sum(z * sigmoid(2.0 * z))


everywhere = {"Score": Score(), "Enumerate": Enumerate(), "MeasureValued": MeasureValued()}
flips = {**everywhere, "DisARM": DisARM(), "Relax": Relax(relaxed)}

CASES = {
    "normals": Case(
        normals,
        normals_mean,
        {
            "Reparameterised": Reparameterised(),
            "Score": Score(),
            "MeasureValued": MeasureValued(),
            "Score, MeasureValued": {"a": Score(), "b": MeasureValued()},
            "MeasureValued, Reparameterised": {"a": MeasureValued(), "b": Reparameterised()},
            "a constant baseline": Score(0.5),
        },
        ("Score, MeasureValued",),
    ),
    "noises": Case(
        noises,
        lambda theta: 0.0 * jnp.sum(theta),
        {"Reparameterised": Reparameterised(), "Score": Score(), "MeasureValued": MeasureValued()},
        ("Reparameterised",),
    ),
    "coins": Case(
        coins,
        coins_mean,
        {name: {"[xy]": s} for name, s in flips.items()}
        | {
            "Enumerate, MeasureValued, Score": {"x": Enumerate(), "y": MeasureValued(), "z": Score()},
            "MeasureValued, DisARM": {"x": MeasureValued(), "y": DisARM(), "z": MeasureValued()},
            "Score, Relax": {"x": Score(), "y": Relax(relaxed)},
            "Relax, Enumerate": {"x": Relax(relaxed), "y": Enumerate()},
            "DisARM, Score": {"x": DisARM(), "y": Score(), "z": Score()},
            "a constant, a learned baseline": {"x": Score(0.7), "y": Score(Learned(jnp.array(0.4)))},
        },
        ("Relax", "Enumerate, MeasureValued, Score"),
    ),
    "chain": Case(chain, chain_mean, flips, ("DisARM",)),
    "plate": Case(plate, plate_mean, flips | {"a baseline a lane": Score(0.3)}, ("Enumerate",)),
    "shapes": Case(
        shapes,
        shapes_mean,
        {name: {"[xyk]": s} for name, s in everywhere.items()}
        | {
            "DisARM, Enumerate": {"[xy]": DisARM(), "k": Enumerate()},
            "Relax, MeasureValued": {"[xy]": Relax(relaxed), "[kn]": MeasureValued()},
            "an array of baselines": {"x": Score(jnp.array([0.5, -1.0])), "y": Enumerate(), "k": Score(0.2)},
        },
        ("an array of baselines",),
    ),
    "branches": Case(
        branches,
        branches_mean,
        {name: {"[xwkv]": s} for name, s in everywhere.items()}
        | {
            "DisARM, Enumerate": {"[xwv]": DisARM(), "k": Enumerate()},
            "Enumerate, Relax": {"x": Enumerate(), "[wv]": Relax(relaxed), "k": MeasureValued()},
        },
        ("Enumerate",),
    ),
    "programs": Case(
        programs,
        programs_mean,
        {name: {"*[xy]": s} for name, s in everywhere.items()}
        | {
            "Enumerate, Score": {"inner.*": Enumerate(), "[xy]": Score()},
            "by address": {"inner.x": MeasureValued(), "inner.y": Enumerate(), "x": DisARM(), "y": Score(), "z": Score()},
        },
        ("by address",),
    ),
    "lanes": Case(
        lanes,
        lanes_mean,
        {name: {"[xyb]": s} for name, s in flips.items()}
        | {
            "Score, Enumerate": {"b": Score(), "[xy]": Enumerate()},
            "MeasureValued, Score": {"b": MeasureValued(), "[xyz]": Score()},
        },
        ("Score, Enumerate",),
    ),
    "steps": Case(
        steps,
        steps_mean,
        {name: {"[xyb]": s} for name, s in flips.items()}
        | {"DisARM, Enumerate": {"b": DisARM(), "[xy]": Enumerate()}, "Enumerate, Score": {"b": Enumerate(), "[xy]": Score()}},
        ("Enumerate, Score",),
    ),
    "holes": Case(holes, holes_mean, flips, ("MeasureValued",)),
    "counts": Case(
        counts,
        counts_mean,
        {
            "Reparameterised": {"n": Score(), "[gw]": Reparameterised()},
            "Score": Score(),
            "MeasureValued": {"[nw]": MeasureValued()},
        },
        (),
    ),
}

PLAIN = [(program, strategy) for program, case in CASES.items() for strategy in case.plain]
EVERY = [(program, strategy) for program, case in CASES.items() for strategy in case.strategies]


def estimates(e: Expectation, theta, num: int, key, *args, samples: int = 1):
    """`num` values (num,) and gradients by theta (num, ...), as float64 of NumPy."""
    one = jax.value_and_grad(lambda k, theta: e.estimate(k, theta, *args, samples=samples), argnums=1)
    values, gradients = jax.jit(jax.vmap(one, (0, None)))(jax.random.split(key, num), theta)
    return np.asarray(values, float), np.asarray(gradients, float)


def errors(draws, exact) -> np.ndarray:
    """How many standard errors the means of draws (num, ...) are away from what they should be; rounding is forgiven."""
    exact = np.asarray(exact, float)
    rounding = 1e-5 * (1.0 + np.abs(exact))
    allowed = draws.std(0) / np.sqrt(len(draws))
    return np.maximum(np.abs(draws.mean(0) - exact) - rounding, 0.0) / np.maximum(allowed, 1e-12)


def surprise(case: Case, name: str, num: int, seed: int = 0, samples: int = 1) -> float:
    """The largest error, in standard errors, of the value and of the gradient."""
    theta = THETA.astype(float)  # double precision, where it is on
    values, gradients = estimates(case.using(name), theta, num, jax.random.key(seed), samples=samples)
    exact = jax.value_and_grad(case.mean)(theta)
    return max(float(np.max(errors(*pair))) for pair in zip((values, gradients), exact, strict=True))
