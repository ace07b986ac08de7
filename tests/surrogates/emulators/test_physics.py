"""Networks that know equations, against closed forms: a decay, and heat in a rod."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ppl import dist
from surrogates.emulators.physics import Equations, Informed, Level, slope
from surrogates.emulators.runs import Runs

KEY = jax.random.key(0)
TIMES = jnp.linspace(0.0, 1.0, 11)
SMALL = Level(width=16, depth=2, steps=400, batch=64)


class Decay(Equations):
    """u' = -k u, u(0) = 1: u = exp(-k t)."""

    coordinates: dict
    parameters: dict
    sign: float = 1.0

    @staticmethod
    def of(sign: float = 1.0) -> "Decay":
        return Decay({"t": dist.Uniform(0.0, 1.0)}, {"k": dist.Uniform(0.5, 2.0)}, sign)

    def field(self, raw, t, k):
        return 1.0 + t * raw["u"]

    def residuals(self, field, t, k):
        return {"decay": slope(field)(t, k) + self.sign * k * field(t, k)}

    def observed(self, field, k):
        return jax.vmap(lambda t: field(t, k))(TIMES)


class Heat(Equations):
    """u_t = a u_xx on a rod with cold ends, u = sin(pi x) at first: u = exp(-a pi^2 t) sin(pi x)."""

    coordinates: dict
    parameters: dict

    @staticmethod
    def of() -> "Heat":
        return Heat({"t": dist.Uniform(0.0, 1.0), "x": dist.Uniform(0.0, 1.0)}, {"a": dist.Uniform(0.05, 0.2)})

    def field(self, raw, t, x, a):
        return jnp.sin(jnp.pi * x) * (1.0 + t * raw["u"])

    def residuals(self, field, t, x, a):
        return {"heat": slope(field)(t, x, a) - a * slope(slope(field, 1), 1)(t, x, a)}

    def observed(self, field, a):
        return jax.vmap(lambda x: field(1.0, x, a))(jnp.linspace(0.0, 1.0, 9))


@pytest.fixture(scope="module")
def decay():
    return Informed(Decay.of(), (SMALL, SMALL)).fit(KEY)


def exact(k):
    return np.exp(-np.asarray(k)[:, None] * np.asarray(TIMES))


def error(emulator) -> float:
    """Root mean square over the box."""
    k = jnp.linspace(0.5, 2.0, 31)
    return float(np.sqrt(np.mean((np.asarray(jax.vmap(emulator)(k)) - exact(k)) ** 2)))


def test_slopes_are_derivatives():
    def f(x, y):
        return jnp.sin(x) * y**3

    assert slope(f)(0.3, 2.0) == pytest.approx(np.cos(0.3) * 8.0, rel=1e-5)
    assert slope(slope(f, 1), 1)(0.3, 2.0) == pytest.approx(np.sin(0.3) * 12.0, rel=1e-5)
    assert slope(slope(f, 1))(0.3, 2.0) == pytest.approx(np.cos(0.3) * 12.0, rel=1e-5)


def test_a_decay_is_learned_without_a_run(decay):
    """The residual r bounds the error: |u - exact| <= t max |r|, by Gronwall, since k > 0. And 1% is far below the 60% by
    which an untrained field is off."""
    bound = decay.report().largest[0]
    k = jnp.linspace(0.5, 2.0, 31)
    assert np.max(np.abs(np.asarray(jax.vmap(decay)(k)) - exact(k))) < 1.5 * bound  # 1.5: the largest at 2048 points
    assert error(decay) < 0.01
    assert np.all(np.asarray(jax.vmap(decay)(k))[:, 0] == 1.0)  # what starts the field is exact


def test_the_equation_decides(decay):
    """Of u' = +k u the same training makes a growth: the test above can fail."""
    other = Informed(Decay.of(-1.0), (SMALL,)).fit(KEY)
    assert error(other) > 0.5


def test_a_second_level_learns_what_the_first_left(decay):
    """Its scale is that of the residuals left, and they are smaller after it."""
    report = decay.report()
    before, first, second = report.residuals[0]
    assert first < 0.2 * before and second < first
    assert report.scales == (1.0, pytest.approx(first / before, rel=1e-4))
    assert report.numbers == (16 * 2 + 16 + 16 * 16 + 16 + 16 + 1,) * 2
    assert "level 2" in str(report) and "not known" in str(report)


def test_a_level_begins_as_those_below_it(decay):
    """A level of one step at rate zero changes nothing, bit for bit."""
    family = Informed(Decay.of(), (SMALL, Level(width=8, steps=1, batch=2, rate=0.0)))
    report = family.fit(KEY).report()
    assert report.residuals[0][1] == report.residuals[0][2] == decay.report().residuals[0][1]


@pytest.mark.slow
def test_heat_in_a_rod():
    """Within 5e-3 of the closed form over the box, and within the largest residual, which bounds the error by the maximum
    principle (t is at most 1); the field that was not trained is off by 0.39 and more."""
    emulator = Informed(Heat.of(), (Level(24, 2, 3000, 128), Level(24, 2, 3000, 128))).fit(KEY)
    a = jnp.linspace(0.05, 0.2, 16)
    known = np.exp(-(np.pi**2) * np.asarray(a)[:, None]) * np.sin(np.pi * np.linspace(0.0, 1.0, 9))
    error = np.max(np.abs(np.asarray(jax.vmap(emulator)(a)) - known))
    assert error < min(5e-3, 1.5 * emulator.report().largest[0])


def test_runs_teach_nothing_and_tell_the_error(decay):
    k = np.linspace(0.5, 2.0, 7)
    y = exact(k)
    y[3, 2] = np.nan
    family = Informed(Decay.of(), (SMALL, SMALL))
    shown = family.fit(KEY, Runs.of(k[:, None], y, names=("k",)))
    assert jnp.array_equal(shown(1.3), decay(1.3))
    there = np.arange(7) != 3
    squared = np.mean((np.asarray(jax.vmap(decay)(jnp.asarray(k)))[there] - y[there]) ** 2, 0)
    p = shown.predict(1.3)
    assert p.factor.shape == (11, 0)
    np.testing.assert_allclose(p.variance, squared, rtol=1e-2, atol=1e-12)  # float32 differences of numbers near 1
    assert shown.report().error == pytest.approx(np.sqrt(squared.mean()), rel=1e-2)
    with pytest.raises(ValueError, match="fitted without runs, so its error is not known"):
        decay.predict(1.3)


def test_it_is_a_function_and_a_pytree(decay):
    by_hand = (decay(1.3 + 1e-2) - decay(1.3 - 1e-2)) / 2e-2
    np.testing.assert_allclose(jax.jacfwd(decay)(1.3), by_hand, atol=2e-3)
    np.testing.assert_allclose(jax.jit(lambda e, k: e(k))(decay, 1.3), decay(1.3), rtol=1e-5)
    assert bool(decay.outside(2.5)) and not bool(decay.outside(1.0))
    assert decay.residuals(0.5, 1.0)["decay"].shape == ()
    assert all(eqx.is_array(x) for x in jax.tree.leaves(eqx.filter(decay.levels, eqx.is_inexact_array)))


def test_in_double_precision(x64):
    emulator = Informed(Decay.of(), (SMALL,)).fit(KEY)
    assert emulator(1.3).dtype == jnp.float64 and error(emulator) < 0.05


def test_another_optimizer_is_used():
    """One that takes no steps leaves the field where it began: u = 1."""
    family = Informed(Decay.of(), (Level(8, 1, 1, 2),), optimizer=optax.sgd(0.0))
    assert jnp.array_equal(family.fit(KEY)(1.3), jnp.ones(11))


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"levels must be a tuple such as \(Level\(\), Level\(width=64\)\)"):
        Informed(Decay.of(), ())
    with pytest.raises(ValueError, match="expected equations, an Equations, got str"):
        Informed("decay")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="batch must be a whole number of at least 2, got 1"):
        Level(batch=1)
    runs = Runs.of(np.ones((3, 2)), np.ones((3, 11)))
    with pytest.raises(ValueError, match=r"the parameters \['k'\], all scalars, and the runs the arguments"):
        Informed(Decay.of()).fit(KEY, runs)
