"""Minibatches: gradients without bias, and samplers whose biased laws are known for normal posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import inference as inf
import ppl
from inference.mcmc import sghmc, sgld
from inference.mcmc.minibatch import Minibatches
from ppl import dist, sample
from tests.inference.targets import correlated

RNG = np.random.default_rng(0)
NUM = 20
X, Y = RNG.normal(size=NUM), RNG.normal(1.0, 1.0, size=NUM)


@ppl.model
def regression(x):
    """Not conjugate: the scale is positive, so that the unconstrained prior has a Jacobian."""
    slope = sample("slope", dist.Normal(0.0, 2.0))
    scale = sample("scale", dist.HalfNormal(2.0))
    ppl.vmap(lambda x: sample("y", dist.Normal(slope * x, scale)))(x)


@ppl.model
def location(x):
    """mu given rows y is normal, of precision 1 + num_rows."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    ppl.vmap(lambda x: sample("y", dist.Normal(mu + 0.0 * x, 1.0)))(x)


def rows(model, size: int) -> Minibatches:
    return inf.minibatches(lambda x, y: model(x) | {"y": y}, (jnp.asarray(X), jnp.asarray(Y)), size=size)


# -- gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("around_mode", [False, True])
def test_the_mean_over_all_batches_is_the_gradient(x64, around_mode):
    """All 400 ordered pairs of rows, which are equally likely."""
    target = rows(regression, 2)
    target = target.around_mode() if around_mode else target
    position = jnp.array([0.7, -0.4])
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(NUM), jnp.arange(NUM)), axis=-1).reshape(-1, 2)
    mean = jax.jit(jax.vmap(target.estimate, (0, None)))(pairs, position).mean(0)
    np.testing.assert_allclose(mean, jax.grad(target.log_density)(position), rtol=1e-9)


def test_batches_are_drawn_alike(x64):
    """The mean of 20,000 estimates within 4.5 standard errors in both coordinates."""
    target, position = rows(regression, 2), jnp.array([0.7, -0.4])
    found = jax.jit(jax.vmap(target.gradient, (0, None)))(jax.random.split(jax.random.key(0), 20_000), position)
    error = found.std(0) / np.sqrt(20_000)
    assert (np.abs(found.mean(0) - jax.grad(target.log_density)(position)) < 4.5 * error).all()


def test_control_variates_take_the_noise_away_near_the_mode(x64):
    """At the mode all of it, a tenth of a posterior standard deviation off 99% of its variance."""
    plain = rows(regression, 2)
    target = plain.around_mode()
    mode = target.centre.position
    assert np.abs(target.centre.gradient).max() < 1e-4

    @jax.jit
    def noise(target, position):
        return jnp.var(jax.vmap(target.gradient, (0, None))(jax.random.split(jax.random.key(0), 2000), position), axis=0)

    near = mode + 0.1 * jnp.array([0.2, 0.16])
    assert (noise(target, mode) < 1e-20).all()
    assert (noise(target, near) < 0.01 * noise(plain, near)).all()
    given = plain.around_mode({"slope": 1.0, "scale": 1.0}).centre.position
    np.testing.assert_allclose(given, [1.0, 0.0], atol=1e-12)


# -- samplers ------------------------------------------------------------------------------------------------------------

PRECISION = 1.0 + NUM
NOISE = NUM**2 / 2 * Y.var()  # of the gradient, from two rows drawn with replacement: the variance


def sgld_variance(step: float, noise: float) -> float:
    """Of the stationary law of x <- (1 - step * precision / 2) x + normal noise."""
    return (step + step**2 * noise / 4) / (1 - (1 - step * PRECISION / 2) ** 2)


def sghmc_variance(step: float, noise: float, friction: float) -> float:
    """Of x <- x + v, v <- (1 - friction) v - step * precision * x + normal noise, by its Lyapunov equation."""
    push = np.array([-step * PRECISION, 1 - friction])
    move = np.array([[1.0 + push[0], push[1]], push])
    covariance = (2 * friction * step + step**2 * noise) * np.ones((2, 2))
    return float(np.linalg.solve(np.eye(4) - np.kron(move, move), covariance.ravel())[0])


STEP, CHAINS = 0.04, 20_000
SAMPLERS = {
    "SGLD": (inf.SGLD(STEP), sgld_variance(STEP, NOISE), False),
    "SGLD, control variates": (inf.SGLD(STEP), sgld_variance(STEP, 0.0), True),
    "SGHMC": (inf.SGHMC(STEP / 8, 0.2), sghmc_variance(STEP / 8, NOISE, 0.2), False),
    "SGHMC, control variates": (inf.SGHMC(STEP / 8, 0.2), sghmc_variance(STEP / 8, 0.0, 0.2), True),
}


def deviation(name: str) -> tuple[float, float]:
    """How far mean and variance of many chains lie from those of the biased law, in standard errors; they have forgotten
    that they began at the mean."""
    kernel, variance, around_mode = SAMPLERS[name]
    target = rows(location, 2)
    target = target.around_mode() if around_mode else target
    mean = Y.sum() / PRECISION

    @jax.jit
    def last(key):
        def one(state, key):
            return kernel.step(key, state, target)[0], None

        return lax.scan(one, kernel.init(key, target, jnp.full(1, mean)), jax.random.split(key, 60))[0].position[0]

    x = np.asarray(jax.vmap(last)(jax.random.split(jax.random.key(0), CHAINS)), np.float64) - mean
    error = np.std(x**2) / np.sqrt(CHAINS)
    return x.mean() / (x.std() / np.sqrt(CHAINS)), (np.mean(x**2) - variance) / error


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_of_the_draws_is_the_biased_one_of_theory(x64, name):
    """Far enough from the posterior to tell: the variance is too large by more than 20 standard errors."""
    of_mean, of_variance = deviation(name)
    assert abs(of_mean) < 4.5 and abs(of_variance) < 4.5
    biased = SAMPLERS[name][1] * PRECISION - 1
    assert biased > (20 * np.sqrt(2 / CHAINS) if name.startswith("SGLD") else 0.001)


def unscaled(key, target, position):
    """Of the batch alone, as if it were all rows."""
    return target.gradient(key, position) * target.size / target.num_rows


@pytest.mark.parametrize(("name", "module"), [("SGLD", sgld), ("SGHMC", sghmc)])
def test_a_planted_bug_is_found(x64, monkeypatch, name, module):
    monkeypatch.setattr(module, "estimate", unscaled)
    assert max(map(abs, deviation(name))) > 10


@pytest.mark.parametrize("kernel", [inf.SGLD(1e-3), inf.SGHMC(1e-3)], ids=["SGLD", "SGHMC"])
def test_the_front_door(x64, kernel):
    target = rows(regression, 5).around_mode()
    settings = {"key": jax.random.key(0), "warmup": 500, "draws": 2000, "progress": False, "check": False}
    posterior = inf.mcmc(target, inf.repeat(kernel, 5), **settings)
    exact = inf.mcmc(target.full, inf.NUTS(), **settings)
    for site in ("slope", "scale"):
        assert abs(posterior[site].mean() - exact[site].mean()) < 0.35 * exact[site].std()
        np.testing.assert_allclose(posterior[site].std(), exact[site].std(), rtol=0.35)
    assert np.isnan(posterior.stats["lp"]).all()
    assert posterior.provenance["biased"] == [type(kernel).__name__]
    assert "biased by its step size" in str(posterior.check())


def test_a_schedule_and_exact_gradients():
    """On a plain target, and with Optax's steps: number i has the size schedule(i), the first one evaluated included."""
    schedule = optax.polynomial_schedule(1e-2, 1e-3, 1.0, 50)
    posterior = inf.mcmc(
        correlated(), inf.SGLD(schedule), key=jax.random.key(0), warmup=10, draws=20, progress=False, check=False
    )
    np.testing.assert_allclose(posterior.stats["step_size"][0], [schedule(i) for i in range(11, 31)], rtol=1e-6)


@ppl.model
def one_each(x):
    def row(x):
        z = sample("z", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(z, 1.0))

    ppl.vmap(row)(x)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: rows(one_each, 5),
            r"^minibatches: the latent site 'z' depends on the rows: it has the shape \(20,\) for all",
        ),
        (lambda: rows(location, 0), r"^minibatches: size must be a whole number from 1 to 20, the number of rows, got 0\.$"),
        (
            lambda: inf.minibatches(lambda x: location(x), (X, Y[:3]), size=2),
            r"^minibatches: the rows must be arrays of one length, one entry a row; theirs are \[20, 3\]\.$",
        ),
        (lambda: inf.minibatches(lambda x: location(x), X, size=2), r"^minibatches: rows must be a tuple of arrays, the arg"),
        (
            lambda: inf.mcmc(correlated(), inf.cycle(inf.SGLD(0.1), inf.RandomWalk()), key=jax.random.key(0), progress=False),
            r"^cycle, mixture: a state needs the fields position and log_density, or inner, and StochasticState has position,",
        ),
        (lambda: inf.SGLD(-1.0), r"^SGLD: step_size must be a positive number or a schedule, got -1\.0\.$"),
        (lambda: inf.SGHMC(0.0), r"^SGHMC: step_size must be a positive number or a schedule, got 0\.0\.$"),
        (lambda: inf.SGHMC(0.1, 2.0), r"^SGHMC: friction must lie in \(0, 1\], got 2\.0\.$"),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_density_without_a_maximum_has_no_control_variates():
    @ppl.model
    def endless(x):
        slope = sample("slope", dist.ImproperUniform(dist.constraints.real, (), ()))
        ppl.vmap(lambda x: ppl.factor("gain", slope + 0.0 * x))(x)

    target = inf.minibatches(lambda x: endless(x), (jnp.asarray(X),), size=2)
    with pytest.raises(ValueError, match=r"^minibatches: no mode was found in 500 steps from zero\. Give a place near one"):
        target.around_mode()
