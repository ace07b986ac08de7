"""An emulator's error in the likelihood: by Woodbury in few dimensions, against the dense covariance, in double precision."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from scipy.stats import multivariate_normal

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.emulators.emulator import Emulator, Prediction
from surrogates.emulators.noisy import noisy

SIZE, PARTS, NOISE = 7, 2, 0.3
RNG = np.random.default_rng(1)
Y = RNG.normal(size=SIZE)


class Made(Emulator):
    """A prediction whose every part depends on where it is."""

    base: Array
    vectors: Array  # (SIZE, PARTS)
    name: str = eqx.field(static=True, default="made")

    def __call__(self, x: Any) -> Array:
        return jnp.sin(x * self.base)

    def predict(self, x: Any) -> Prediction:
        return Prediction(self(x), self.vectors * jnp.exp(0.3 * x), 0.05 + 0.1 * (x * self.base) ** 2)

    def outside(self, x: Any) -> Array:
        return jnp.array(False)

    def report(self) -> str:
        return "made"


@ppl.model
def series(fn, noise=NOISE):
    sample("y", dist.Normal(ppl.call("curve", fn, sample("x", dist.Normal(0.0, 1.0))), noise))


def made() -> Made:
    return Made(jnp.asarray(np.linspace(0.5, 2.0, SIZE)), jnp.asarray(RNG.normal(size=(SIZE, PARTS))))


def marginal_of(emulator, noise=NOISE, **settings):
    program = series(emulator, noise).intervene({"curve": noisy(emulator, "curve", **settings)}) | {"y": Y}
    sites = [name for name in ("curve error", "curve residual") if name in program.sites()]
    return program.marginal(*sites)


@pytest.mark.parametrize("residual", [pytest.param(True, marks=pytest.mark.slow), False])
def test_integrated_out_it_is_the_dense_covariance(residual):
    with jax.enable_x64(True):
        emulator = made()
        program = marginal_of(emulator, residual=residual)
        for x in (0.0, 0.7, -1.3):
            known = emulator.predict(jnp.asarray(x))
            factor = np.asarray(known.factor)
            cov = factor @ factor.T + np.diag(np.asarray(known.residual) * residual) + NOISE**2 * np.eye(SIZE)
            exact = multivariate_normal(np.asarray(known.mean), cov).logpdf(Y) - 0.5 * np.log(2 * np.pi) - 0.5 * x**2
            assert float(program.log_density({"x": jnp.asarray(x)})) == pytest.approx(exact, abs=1e-10, rel=1e-10)


def test_a_factor_that_is_forgotten_is_caught():
    with jax.enable_x64(True):
        emulator = made()
        without = eqx.tree_at(lambda e: e.vectors, emulator, 0.5 * emulator.vectors)
        at = {"x": jnp.asarray(0.7)}
        assert abs(float(marginal_of(emulator).log_density(at) - marginal_of(without).log_density(at))) > 0.01


def test_latent_it_is_the_same_law():
    """E over the error's draws of the likelihood is the marginal: 20,000 draws, within 4 errors of their mean. The noise is
    large, so that these are not those of a few draws."""
    with jax.enable_x64(True):
        emulator, noise = made(), 2.0
        program = series(emulator, noise).intervene({"curve": noisy(emulator, "curve")}) | {"y": Y}
        marginal, x = marginal_of(emulator, noise), jnp.asarray(0.4)
        prior = -0.5 * np.log(2 * np.pi) - 0.5 * 0.4**2

        def one(key):
            trace, _ = program.generate(key, {"x": x})
            return sum(jnp.sum(v) for v in program.log_likelihoods(trace.choices).values())

        weights = np.exp(np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 20_000))))
        exact = np.exp(float(marginal.log_density({"x": x})) - prior)
        assert weights.std() < 3 * exact
        assert abs(weights.mean() - exact) < 4 * weights.std() / 20_000**0.5


def test_it_is_sampled_and_counts_what_the_emulator_cost():
    emulator = made()
    program = series(emulator).intervene({"curve": noisy(emulator, "curve")}) | {"y": np.asarray(Y, np.float32)}
    assert program.sites()["curve error"].shape == (PARTS,) and program.sites()["curve residual"].shape == (SIZE,)
    assert np.isfinite(ppl.as_target(program).log_density(jnp.zeros(1 + PARTS + SIZE)))
    assert noisy(emulator, "curve").true_calls == 0
    assert isinstance(inf.NUTS(), inf.Kernel)


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"^noisy: expected an emulator, whose predict\(\*args\) tells .*got function"):
        noisy(lambda x: x, "curve")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^noisy: the sites need a name, such as that of the call, got ''\.$"):
        noisy(made(), "")
