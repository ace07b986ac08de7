"""Tables: doors, reports, and files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from surrogates.artifact import load, save
from surrogates.emulators.charts import Given, Logit, Monotone
from surrogates.emulators.components import Principal
from surrogates.emulators.fidelity import Autoregressive
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.kernels import Matern52
from surrogates.emulators.table import runs_of, tabulated
from surrogates.emulators.trend import Linear

KEY = jax.random.key(0)
X = np.random.default_rng(0).random((20, 2))
Y = np.stack([np.sin(3 * X[:, 0]), X[:, 0] + X[:, 1] ** 2, X[:, 1]], -1)
FAMILY = GaussianProcess(charts=Given())


def test_columns_in_an_array_or_by_name():
    one = tabulated((X, Y), key=KEY, names=("a", "b"), family=FAMILY)
    two = tabulated(({"a": X[:, 0], "b": X[:, 1]}, Y), key=KEY, family=FAMILY)
    np.testing.assert_allclose(one(0.3, 0.6), two(0.3, 0.6))
    np.testing.assert_allclose(one(0.3, 0.6), [np.sin(0.9), 0.66, 0.6], atol=0.01)
    vector = runs_of(({"both": X}, Y[:, 0]))
    assert vector.names == ("both",) and vector.shapes == ((2,),)
    assert "20 runs" in one.report() and "a Identity, b Identity" in one.report()


def test_the_default_searches_charts():
    emulator = tabulated((X[:, :1], np.exp(3 * X[:, 0])), key=KEY)
    assert abs(emulator(0.5) - np.exp(1.5)) < 0.02


def test_an_emulator_takes_a_call_s_place():
    def simulator(x):
        return jnp.stack([jnp.sin(3 * x), x + 0.25, 0.5 + 0 * x])

    @ppl.model
    def model():
        x = sample("x", dist.Uniform(0.0, 1.0))
        sample("y", dist.Normal(ppl.call("f", simulator, x), 0.1).to_event(1))

    emulator = tabulated((X[:, :1], jax.vmap(simulator)(jnp.asarray(X[:, 0]))), key=KEY, family=FAMILY)
    program = model() | {"y": jnp.array([0.9, 0.7, 0.5])}
    cheap = program.intervene({"f": emulator})
    density = jax.jit(jax.vmap(jax.value_and_grad(lambda x: cheap.log_density({"x": x}))))
    x = jnp.array([0.2, 0.5])
    exact = jax.vmap(jax.value_and_grad(lambda x: program.log_density({"x": x})))(x)
    # errors of 1e-3 over noise of 0.1, times residuals of up to 6
    np.testing.assert_allclose(density(x)[0], exact[0], atol=0.1)
    np.testing.assert_allclose(density(x)[1], exact[1], rtol=0.05, atol=0.5)


SAVED = {
    "plain": lambda: tabulated((X, Y), key=KEY, family=FAMILY),
    "charts": lambda: tabulated(
        (X, Y),
        key=KEY,
        family=GaussianProcess(
            charts=Given(x0=Logit.of, x1=lambda lo, hi: Monotone.of(lo, hi, lambda k: np.diff(k**2))),
            kernel=Matern52(),
            trend=Linear(),
            components=Principal(num=2),
        ),
    ),
    "levels": lambda: Autoregressive(tabulated((X, 0.5 * Y), key=KEY, family=FAMILY), FAMILY).fit(KEY, runs_of((X, Y))),
}


@pytest.mark.parametrize("name", SAVED)
def test_what_is_loaded_says_the_same(name, tmp_path):
    emulator = SAVED[name]()
    save(emulator, tmp_path / "e.npz")
    again = load(tmp_path / "e.npz")
    for a, b in zip(emulator.predict(0.2, 0.7), again.predict(0.2, 0.7), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.report() == emulator.report() and jax.tree.structure(again) == jax.tree.structure(emulator)
    np.testing.assert_array_equal(again.left_out.sd, emulator.left_out.sd)
    with pytest.raises(ValueError, match="is an emulator, which is trained on no program: load it with the path alone"):
        load(tmp_path / "e.npz", "program")


def test_sentences():
    with pytest.raises(ValueError, match="key must be a typed key"):
        tabulated((X, Y), key=0)
    with pytest.raises(ValueError, match="pair of inputs and outputs, got ndarray"):
        tabulated(X, key=KEY)
    with pytest.raises(ValueError, match="its own names"):
        runs_of(({"a": X[:, 0]}, Y), names=("a",))
    with pytest.raises(ValueError, match=r"a row for each run, got \{'a': \(20,\), 'b': \(19,\)\}"):
        runs_of(({"a": X[:, 0], "b": X[:19, 1]}, Y))
