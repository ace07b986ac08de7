"""Simulation-based calibration: the main kernels pass on five programs, planted bugs do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.checks.sbc import sbc, uniformity
from ppl import dist, sample
from tests.inference.test_nuts import WrongSign


@ppl.model
def scale(n):
    """A mean and a scale."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sigma = sample("sigma", dist.Gamma(3.0, 3.0))

    def seen(_):
        sample("y", dist.Normal(mu, sigma))

    ppl.vmap(seen)(jnp.arange(n))


@ppl.model
def shares():
    """A simplex."""
    p = sample("p", dist.Dirichlet(jnp.array([2.0, 1.0, 3.0])))
    sample("counts", dist.Multinomial(10, p))


@ppl.model
def regression(x):
    """A line with a bounded slope and unknown noise."""
    slope = sample("slope", dist.Uniform(-1.0, 2.0))
    offset = sample("offset", dist.StudentT(5.0, 0.0, 1.0))
    noise = sample("noise", dist.LogNormal(-1.0, 0.5))

    def seen(x):
        sample("y", dist.Normal(offset + slope * x, noise))

    ppl.vmap(seen)(x)


@ppl.model
def effects(num, each):
    """A hierarchy, non-centred by its user."""
    mu = sample("mu", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.HalfNormal(1.0))

    def group(_):
        theta = mu + tau * sample("theta", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(theta, 0.5).expand([each]).to_event(1))

    ppl.vmap(group)(jnp.arange(num))


@ppl.model
def walk(steps):
    """A random walk with an unknown step, seen through counts."""
    size = sample("size", dist.Gamma(4.0, 10.0))

    def step(x, _):
        x = sample("x", dist.Normal(x, size))
        sample("n", dist.Poisson(jnp.exp(x)))
        return x, None

    ppl.scan(step, 1.0, length=steps)


def cases():
    return {
        "effects": effects(3, 4) | {"y": jnp.zeros((3, 4))},
        "walk": walk(8) | {"n": jnp.ones(8, int)},
        "scale": scale(4) | {"y": jnp.zeros(4)},
        "shares": shares() | {"counts": jnp.array([5, 3, 2])},
        "regression": regression(jnp.linspace(-1.0, 1.0, 6)) | {"y": jnp.zeros(6)},
    }


class NoJacobian(ppl.Target):
    """A planted bug: the density on the unconstrained scale, without the change of variables."""

    def log_density(self, position):
        return self.program.log_density(self.constrain(position))


# With how many draws between those whose rank is taken: until they are nearly independent. (ChEES needs many chains: the joint
# test looks at it, on the same programs.)
KERNELS = {"NUTS": (inf.NUTS(), 10), "HMC": (inf.HMC(), 20), "MAMS": (inf.MAMS(), 20), "Slice": (inf.Slice(), 30)}
SLOWER = {("Slice", "walk"): 400}  # one coordinate at a time along a path of unknown step size: 95 draws are worth one


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("kernel", KERNELS)
def test_main_kernels_are_calibrated(kernel, name):
    move, thin = KERNELS[kernel]
    thin = SLOWER.get((kernel, name), thin)
    result = sbc(cases()[name], key=jax.random.key(1), replications=300, kernel=move, thin=thin, warmup=max(300, thin))
    assert result.passed(), result


@pytest.mark.slow
def test_a_missing_jacobian_is_caught():
    program = scale(1) | {"y": jnp.zeros(1)}  # one datum: the prior, and so the Jacobian, matters
    result = sbc(program, key=jax.random.key(2), replications=100, target=NoJacobian)
    assert not result.passed(), result


@pytest.mark.slow
def test_a_wrong_energy_sign_is_caught():
    kernel = inf.NUTS(step_size=0.5, metric=WrongSign(jnp.ones(2)))
    result = sbc(cases()["scale"], key=jax.random.key(3), replications=100, kernel=kernel, warmup=100)
    assert not result.passed(), result


def test_uniformity_has_its_false_alarm_rate():
    rng = np.random.default_rng(0)
    p = [uniformity(rng.integers(0, 21, size=200), 20) for _ in range(2000)]
    for level in (0.05, 0.2):
        alarms = np.mean(np.array(p) < level)
        assert level / 2 < alarms < level + 4 * np.sqrt(level / 2000)
    assert uniformity(rng.integers(0, 15, size=200), 20) < 1e-6
