"""Equinox and Flax NNX modules in models: as arguments with fixed weights, and with priors over their weights."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.scipy.stats import norm

import inference as inf
import ppl
from ppl import dist, sample

KEY = jax.random.key(0)
GRID = jnp.linspace(-1.0, 1.0, 16)[:, None]
TRUTH = jnp.sin(2.5 * GRID[:, 0])
WAVE = TRUTH + 0.2 * np.random.default_rng(1).normal(size=16)
UNITS = 3


class Perceptron(nnx.Module):
    """One hidden layer, in NNX, with a parameter that is no float and state that is no parameter."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        dtype = jnp.result_type(float)  # NNX would take float32 in double precision too
        sizes = [(1, UNITS), (UNITS, 1)]
        self.layers = nnx.List([nnx.Linear(*size, param_dtype=dtype, rngs=rngs) for size in sizes])
        self.gain = nnx.BatchStat(jnp.ones(()))

    def __call__(self, x):
        return (self.layers[1](jnp.tanh(self.layers[0](x))) * self.gain[...])[..., 0]


class Rows(eqx.Module):
    """One hidden layer, in Equinox, for a batch of rows."""

    net: eqx.nn.MLP

    def __init__(self, key) -> None:
        self.net = eqx.nn.MLP(1, "scalar", UNITS, 1, activation=jnp.tanh, key=key)

    def __call__(self, x):
        return jax.vmap(self.net)(x)


def equinox_rows() -> Rows:
    return Rows(KEY)


def flax_rows() -> Perceptron:
    return Perceptron(nnx.Rngs(0))


def changed(net, change):
    """`net` with `change` made to each of its arrays."""
    return jax.tree.map(lambda w: change(w) if eqx.is_array(w) else w, net)


MAKERS = [pytest.param(equinox_rows, id="equinox"), pytest.param(flax_rows, id="nnx")]


def scale_prior(path, leaf):
    return dist.Normal(0.0, 2.0 if path.endswith(("weight", "kernel")) else 1.0).expand(leaf.shape)


@ppl.model
def regression(net, x):
    noise = sample("noise", dist.HalfNormal(0.3))
    sample("y", dist.Normal(net(x), noise))


@ppl.model
def random_regression(net, x, prior=scale_prior):
    net = ppl.random_module("net", net, prior)
    mean = ppl.deterministic("mean", net(x))
    noise = sample("noise", dist.HalfNormal(0.3))
    sample("y", dist.Normal(mean, noise))


# -- fixed weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_a_module_is_an_argument(make, precision):
    net = make()
    program = regression(net, GRID) | {"y": WAVE}
    traced = []

    @jax.jit
    def density(p):
        traced.append(p)
        return p.log_density({"noise": 0.2})

    expected = norm.logpdf(WAVE, net(GRID), 0.2).sum() + dist.HalfNormal(0.3).log_prob(0.2)
    np.testing.assert_allclose(density(program), expected, rtol=1e-5)
    density(regression(changed(net, lambda w: 2 * w), GRID + 1.0) | {"y": 2 * WAVE})
    assert len(traced) == 1  # other weights, other data: the same compiled function


@pytest.mark.parametrize("make", MAKERS)
def test_gradients_reach_the_weights(make):
    def loss(net):
        return (regression(net, GRID) | {"y": WAVE}).log_density({"noise": 0.2})

    net = make()
    gradient = (eqx.filter_jit(eqx.filter_grad(loss)) if make is equinox_rows else jax.jit(jax.grad(loss)))(net)
    assert type(gradient) is type(net)
    ahead = jax.tree.map(lambda g, w: w + 1e-5 * g, gradient, eqx.filter(net, eqx.is_array))
    assert loss(eqx.combine(ahead, net)) > loss(net)


@pytest.mark.parametrize("make", MAKERS)
def test_targets_and_maps_take_modules(make):
    net = make()
    target = ppl.Target(regression(net, GRID) | {"y": WAVE})
    density = jax.jit(lambda t, u: t.log_density(u))
    found = density(target, jnp.zeros(1))
    np.testing.assert_allclose(found, target.log_density(jnp.zeros(1)), rtol=1e-5)
    simulated = jax.vmap(lambda k: regression(net, GRID).simulate(k))(jax.random.split(KEY, 3))
    assert simulated.choices["y"].shape == (3, 16)


# -- random weights ------------------------------------------------------------------------------------------------------


def handwritten(w1, b1, w2, b2, noise):
    """The log density of `random_regression` with kernels of shape (in, out)."""
    mean = (jnp.tanh(GRID @ w1 + b1) @ w2 + b2)[:, 0]
    prior = sum(norm.logpdf(w, 0.0, s).sum() for w, s in ((w1, 2.0), (b1, 1.0), (w2, 2.0), (b2, 1.0)))
    return prior + dist.HalfNormal(0.3).log_prob(noise) + norm.logpdf(WAVE, mean, noise).sum()


WEIGHTS = {
    "w1": np.linspace(-1.0, 2.0, UNITS)[None],
    "b1": np.linspace(0.5, -0.5, UNITS),
    "w2": np.linspace(1.0, -1.5, UNITS)[:, None],
    "b2": np.array([0.3]),
}


@pytest.mark.parametrize("precision", ["float64"], indirect=True)
@pytest.mark.parametrize("make", MAKERS)
def test_random_weights_have_the_density_written_by_hand(make, precision):
    w = WEIGHTS
    if make is equinox_rows:
        names = {"net.layers.0.weight": w["w1"].T, "net.layers.1.weight": w["w2"].T}
        names |= {"net.layers.0.bias": w["b1"], "net.layers.1.bias": w["b2"]}
    else:
        names = {"layers.0.kernel": w["w1"], "layers.1.kernel": w["w2"], "layers.0.bias": w["b1"], "layers.1.bias": w["b2"]}
    program = random_regression(make(), GRID) | {"y": WAVE}
    found = program.log_density({"net": names, "noise": 0.2})
    np.testing.assert_allclose(found, handwritten(**w, noise=0.2), rtol=1e-10)


@pytest.mark.parametrize("make", MAKERS)
def test_random_modules_differentiate_simulate_and_predict(make):
    program = random_regression(make(), GRID) | {"y": WAVE}
    target = ppl.Target(program)
    assert target.dim == 3 * UNITS + 2
    gradient = jax.jit(jax.grad(target.log_density))(jnp.full(target.dim, 0.1))
    assert jnp.isfinite(gradient).all() and (gradient != 0).all()
    draws = ppl.predict(program, KEY, num=7)
    assert draws["y"].shape == (7, 16) and len(draws["net"]) == 4
    trace = program.simulate(KEY)
    np.testing.assert_allclose(program.log_density(trace.choices), trace.log_density, rtol=1e-5)


@pytest.mark.parametrize("make", MAKERS)
def test_a_network_for_each_lane(make):
    net = make()

    @ppl.model
    def committee():
        return ppl.vmap(lambda x: ppl.random_module("net", net, scale_prior)(x), in_axes=None, axis_size=3)(GRID)

    trace = committee().simulate(KEY)
    assert all(w.shape[0] == 3 for w in trace.choices["net"].values())
    assert committee().retval(trace.choices).shape == (3, 16)
    assert not np.allclose(*committee().retval(trace.choices)[:2])


@pytest.mark.parametrize("make", MAKERS)
def test_the_prior_chooses_what_is_random(make):
    net = make()
    last = {w: dist.Normal(0.0, 1.0) for w in ("weight", "kernel")}
    program = random_regression(net, GRID, lambda path, leaf: last.get(path.split(".")[-1]) if "1" in path else None)
    (name,) = [n for n in program.sites() if n.startswith("net.")]
    values = {name: jnp.zeros(program.sites()[name].shape), "noise": 1.0, "y": WAVE}
    bias = net.net.layers[-1].bias if make is equinox_rows else net.layers[1].bias[...]
    np.testing.assert_allclose(program.values(values)["mean"], np.full(16, float(bias[0])), rtol=1e-6)


def test_other_state_of_nnx_is_kept_and_not_changed():
    class Counted(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(1, 1, rngs=rngs)
            self.seen = nnx.BatchStat(jnp.zeros((), int))
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            self.seen[...] += 1
            return self.drop(self.linear(x))[..., 0]

    net = Counted(nnx.Rngs(0))
    program = random_regression(net, GRID, dist.Normal(0.0, 1.0))
    assert [n for n in program.sites() if n.startswith("net.")] == ["net.linear.bias", "net.linear.kernel"]
    jax.jit(lambda p: p.simulate(KEY))(program)
    assert net.seen[...] == 0  # a program calls a copy


def test_weights_keep_the_modules_dtype(x64):
    net = eqx.nn.Linear(1, 1, key=KEY, dtype=jnp.float32)

    @ppl.model
    def weights():
        return ppl.random_module("net", net, dist.Normal(0.0, 1.0)).weight

    program = weights()
    assert program.retval(program.simulate(KEY).choices).dtype == jnp.float32


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "net, prior, sentence",
    [
        (linen.Dense(1), dist.Normal(), "Dense, a Flax module that does not hold its weights"),
        (eqx.nn.Identity(), dist.Normal(), "Identity with no floating-point parameter"),
        (eqx.nn.Linear(1, 1, key=KEY), lambda path, leaf: None, "or the prior keeps them all"),
        (eqx.nn.Linear(1, 1, key=KEY), lambda path, leaf: 0.1, "prior of parameter 'weight' in .* is float"),
        (eqx.nn.Linear(1, 1, key=KEY), 0.1, "prior of parameter 'weight' in .* is float"),
        (eqx.nn.Linear(2, 2, key=KEY), dist.Normal(jnp.zeros(3)), r"has shape \(3,\), .* the parameter's \(2, 2\)"),
        (eqx.nn.Linear(2, 2, key=KEY), dist.Dirichlet(jnp.ones(3)), r"has shape \(3,\), .* the parameter's \(2, 2\)"),
    ],
)
def test_what_cannot_be_is_said(net, prior, sentence):
    with pytest.raises(ValueError, match=sentence):
        ppl.model(lambda: ppl.random_module("net", net, prior))().sites()


def test_flax_is_imported_for_flax_modules_only():
    code = """
import sys, ppl, jax, equinox as eqx
net = eqx.nn.Linear(2, 1, key=jax.random.key(0))
ppl.model(lambda: ppl.random_module("net", net, ppl.dist.Normal()))().sites()
assert "flax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# -- inference -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::inference.SamplingWarning")  # weights have many equal modes; functions do not
@pytest.mark.parametrize("make", MAKERS)
def test_a_bayesian_network_learns_a_wave(make):
    program = random_regression(make(), GRID) | {"y": WAVE}
    posterior = inf.mcmc(program, inf.NUTS(), key=KEY, chains=2, draws=200, warmup=200, progress=False)
    mean, sd = posterior["mean"].mean((0, 1)), posterior["mean"].std((0, 1))
    assert np.sqrt(np.mean((mean - TRUTH) ** 2)) < 0.2  # the wave has 0.76
    assert (sd < 0.3).all()
    beyond = posterior.predict(random_regression(make(), GRID * 3.0), key=KEY)
    assert beyond["y"].shape == (2, 200, 16)
    assert beyond["mean"].std((0, 1))[0] > 3 * sd.mean()  # less is known where there are no data
