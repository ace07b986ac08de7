"""The joint-distribution test: the main kernels on five programs, the others on one; and it finds planted bugs, of a density,
a Jacobian or a kernel.

A right registry fails for one set of keys in 10,000 per kernel and program.
"""

import jax
import jax.numpy as jnp
import pytest

import inference as inf
import ppl
from inference.checks import joint
from ppl import dist, sample
from tests.inference.kernels import KERNELS
from tests.inference.test_nuts import WrongSign
from tests.inference.test_sbc import regression, scale, shares

FALSE_ALARM = 1e-4


@ppl.model
def schools(sigma):
    """A hierarchy in plates."""
    mu = sample("mu", dist.Normal(0.0, 2.0))
    tau = sample("tau", dist.HalfNormal(1.0))

    def school(s):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, s))

    ppl.vmap(school)(sigma)


@ppl.model
def volatility(steps):
    """A chain whose states scale the data."""

    def step(h, _):
        h = sample("h", dist.Normal(0.9 * h, 0.3))
        sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)))
        return h, None

    ppl.scan(step, 0.0, length=steps)


PROGRAMS = {
    "scale": lambda: scale(4) | {"y": jnp.zeros(4)},
    "shares": lambda: shares() | {"counts": jnp.array([5, 3, 2])},
    "regression": lambda: regression(jnp.linspace(-1.0, 1.0, 6)) | {"y": jnp.zeros(6)},
    "schools": lambda: (schools(jnp.array([0.5, 1.0, 2.0])) | {"y": jnp.zeros(3)}).reparam(),
    "volatility": lambda: volatility(4) | {"y": jnp.zeros(4)},
}

MAIN = ("NUTS", "HMC", "ChEES", "MAMS", "Slice")
# These need a normal prior, or name the sites of the registry's own target.
SPECIAL = ("EllipticalSlice", "gibbs", "involutive", "delayed_acceptance")


def check(program, kernel):
    return joint(program, kernel, key=jax.random.key(1))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", MAIN)
def test_main_kernels_keep_the_joint_distribution(name, program):
    program = PROGRAMS[program]()
    verdict = check(program, KERNELS[name].fixed(ppl.Target(program).dim))
    assert verdict.passed(FALSE_ALARM), verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KERNELS if name not in (*MAIN, *SPECIAL)])
def test_the_other_kernels_keep_it(name):
    program = PROGRAMS["regression"]()
    verdict = check(program, KERNELS[name].fixed(ppl.Target(program).dim))
    assert verdict.passed(FALSE_ALARM), verdict


def test_nuts_keeps_the_joint_distribution():
    program = PROGRAMS["scale"]()
    verdict = check(program, inf.NUTS(0.5, inf.metrics.Diagonal(jnp.ones(2)), max_depth=3))
    assert verdict.passed(FALSE_ALARM), verdict


# -- what it finds -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kernel_with_a_wrong_sign_is_found():
    assert not check(PROGRAMS["scale"](), inf.NUTS(0.5, WrongSign(jnp.ones(2)), max_depth=3)).passed()


@pytest.mark.slow
def test_a_missing_jacobian_is_found(monkeypatch):
    def without(self, position):
        return self.program.log_density(self.constrain(position))

    monkeypatch.setattr(ppl.Target, "log_density", without)
    assert not check(PROGRAMS["shares"](), inf.RandomWalk(0.5, inf.metrics.Diagonal(jnp.ones(2)))).passed()


@pytest.mark.slow
def test_a_likelihood_that_is_not_the_simulator_s_is_found(monkeypatch):
    """Data drawn with another scale than they are scored with."""

    def sampled_too_wide(self, key, sample_shape=()):
        return self.loc + 1.1 * self.scale * jax.random.normal(key, sample_shape + self.batch_shape)

    kernel = inf.RandomWalk(0.5, inf.metrics.Diagonal(jnp.ones(2)))
    with monkeypatch.context() as patch:
        patch.setattr(dist.Normal, "sample", sampled_too_wide)
        assert not check(PROGRAMS["scale"](), kernel).passed()
