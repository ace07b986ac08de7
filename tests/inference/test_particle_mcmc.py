"""Particle Gibbs and particle marginal Metropolis-Hastings leave the joint law of a program as it is (Geweke's test), agree
with the Kalman filter on a grid, and say what they cannot do; bugs that are planted are found.

False-alarm rates: 1e-3 for each joint test, with fixed keys; posterior means at 4.5 Monte Carlo errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.stats import multivariate_normal, norm

import inference as inf
import ppl
from inference.checks import joint
from inference.exact.kalman import kalman_filter
from inference.exact.linear_gaussian import Affine, Gaussian, LinearGaussian
from inference.kernel import Kernel
from inference.mcmc.block import Block
from inference.mcmc.members import innermost
from inference.numerics import select
from inference.resampling import Sorted, Systematic
from inference.smc import pmmh as pmmh_file
from inference.smc.conditional import filtered_path
from inference.smc.particle_gibbs import ParticleGibbs
from inference.smc.pmmh import pmmh
from inference.smc.renewal import BackwardSampling
from ppl import dist, sample


@ppl.model
def switching():
    """A parameter; and in the loop a discrete and a positive site, and data."""
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def step(s, _):
        s = sample("s", dist.Bernoulli(logits=1.5 * s - 0.7))
        z = sample("z", dist.LogNormal(0.5 * mu + 0.8 * s, 0.5))
        sample("y", dist.Normal(z, 0.7))
        return s, None

    ppl.scan(step, 0, length=3)


SIMULATED = switching() | {"y": jnp.zeros(3)}
WALK = inf.RandomWalk(1.0, inf.metrics.Diagonal(jnp.ones(1)))
KERNELS = {
    "particle Gibbs": lambda: inf.gibbs({"mu": WALK, ("s", "z"): ParticleGibbs(3)}),
    "particle Gibbs of some sites": lambda: inf.gibbs(
        {"mu": WALK, "z": ParticleGibbs(2, renewal=BackwardSampling()), "s": ParticleGibbs(3)}
    ),
    "pmmh": lambda: pmmh(WALK, particles=4),
    "pmmh and particle Gibbs": lambda: inf.cycle(pmmh(WALK, particles=4), inf.gibbs({"mu": WALK, ...: ParticleGibbs(3)})),
    "correlated pmmh": lambda: pmmh(WALK, particles=4, correlation=0.7),
    "correlated pmmh and particle Gibbs": lambda: inf.cycle(
        pmmh(WALK, particles=2, correlation=0.7), inf.gibbs({"mu": WALK, ...: ParticleGibbs(3)})
    ),
    "pmmh of a block": lambda: inf.gibbs({("mu", "z"): pmmh(WALK, particles=3), "s": ParticleGibbs(3)}),
}
EVERY_DAY = ("particle Gibbs",)


def verdict(kernel, replications=4000):
    return joint(SIMULATED, kernel, key=jax.random.key(4), replications=replications, rounds=2, moves=2)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in EVERY_DAY else [pytest.mark.slow]) for n in KERNELS])
def test_the_joint_law_stays(name):
    found = verdict(KERNELS[name]())
    assert found.passed(), found


@pytest.mark.parametrize("name", ["particle Gibbs of some sites", "pmmh"])
def test_double_precision_is_kept(x64, name):
    kernel, target = KERNELS[name](), ppl.Target(SIMULATED)

    def moved(position, key):
        state, info = kernel.step(key, kernel.init(key, target, position), target)
        return jax.lax.scan(lambda s, k: kernel.step(k, s, target), state, jax.random.split(key, 2))[0].position, info

    position, info = jax.eval_shape(moved, jnp.zeros(target.dim), jax.random.key(0))
    assert position.dtype == info.lp.dtype == "float64"


def weighs_nothing(key, path, method, choices, *, particles, renewal):
    """An estimate that is not the one that made the path."""
    return filtered_path(key, path, method, particles=particles)


@pytest.mark.slow
def test_a_planted_bug_is_found(monkeypatch):
    """The estimate that a chain begins with is not the one that goes with its path."""
    monkeypatch.setattr(pmmh_file, "conditional_smc", weighs_nothing)
    found = verdict(pmmh(WALK, particles=2), 20_000)
    assert min(found.p_values.values()) < 1e-7, found


@pytest.mark.slow
def test_random_numbers_of_another_path_would_be_seen(monkeypatch):
    """Planted: numbers are kept where another kernel has moved the path, and they are not those of the estimate."""
    monkeypatch.setattr(pmmh_file, "known", lambda state, elsewhere: jnp.array(True))
    kernel = inf.cycle(pmmh(WALK, particles=2, correlation=0.9), inf.gibbs({"mu": WALK, ...: ParticleGibbs(2)}))
    found = verdict(kernel, 20_000)
    assert min(found.p_values.values()) < 1e-7, found


@ppl.model
def shifted():
    """Two parameters; the data see both, the loop's sites one of them."""
    a = sample("a", dist.Normal(0.0, 1.0))
    b = sample("b", dist.Normal(0.0, 1.0))

    def step(carry, _):
        z = sample("z", dist.Normal(a, 1.0))
        sample("y", dist.Normal(z + b, 0.5))
        return carry, None

    ppl.scan(step, 0.0, length=2)


@pytest.mark.slow
def test_the_estimate_follows_sites_of_other_blocks():
    """b moves from 0 to 3 while a and z stay where they are: the estimate is then that of b = 3."""
    target, stays = (
        ppl.Target(shifted() | {"y": jnp.array([0.5, -0.5])}),
        inf.RandomWalk(1e6, inf.metrics.Diagonal(jnp.ones(1))),
    )
    kernel = pmmh(stays, particles=500)

    def given(b):
        return Block(target, jnp.array([0.0, b, 0.0, 0.0]), (0, 2))  # of a and z

    state = kernel.init(jax.random.key(0), given(0.0), jnp.zeros(3))
    state, _ = jax.jit(lambda key, state, view: kernel.step(key, state, view))(jax.random.key(1), state, given(3.0))
    np.testing.assert_array_equal(state.position, 0.0)
    law = multivariate_normal([3.0, 3.0], 1.25 * np.eye(2))  # of y given a = 0 and b = 3
    exact = law.logpdf([0.5, -0.5]) + norm.logpdf(0.0) + norm.logpdf(3.0)
    assert abs(innermost(state.kernel).log_density - exact) < 0.6  # without b: off by 11


class WhereAbove(Kernel):
    """Moves where mu > 0 alone, and leaves mu as it is."""

    kernel: Kernel

    def init(self, key, target, position):
        return self.kernel.init(key, target, position)

    def step(self, key, state, target):
        new, info = self.kernel.step(key, state, target)
        return select(target.constrain(state.position)["mu"] > 0, new, state), info


@pytest.mark.slow
def test_what_another_kernel_moves_does_not_choose_how_pmmh_moves():
    """Another kernel renews the path where mu > 0. Were random numbers kept elsewhere, pmmh would move otherwise there."""

    @ppl.model
    def noisy():
        mu = sample("mu", dist.Normal(0.0, 1.0))

        def step(carry, _):
            z = sample("z", dist.Normal(mu, 1.0))
            sample("y", dist.Normal(z, 0.2))
            return carry, None

        ppl.scan(step, 0.0, length=2)

    target = ppl.Target(noisy() | {"y": jnp.array([0.5, -0.5])})
    walk, still = (inf.RandomWalk(size, inf.metrics.Diagonal(jnp.ones(1))) for size in (1.5, 1e-7))
    others = WhereAbove(inf.gibbs({"mu": still, ...: ParticleGibbs(2)}))
    kernel = inf.cycle(pmmh(walk, particles=2, correlation=0.8), others)

    @jax.jit
    @jax.vmap
    def share_above(key):
        key_start, key_init, key_steps = jax.random.split(key, 3)
        state = kernel.init(key_init, target, 0.5 * jax.random.normal(key_start, (target.dim,)))

        def step(state, key):
            state = kernel.step(key, state, target)[0]
            return state, target.constrain(state.position)["mu"] > 0

        return jnp.mean(jax.lax.scan(step, state, jax.random.split(key_steps, 600))[1][200:], dtype=float)

    shares = np.asarray(share_above(jax.random.split(jax.random.key(0), 1000)))
    assert abs(shares.mean() - 0.5) < 4 * shares.std() / np.sqrt(len(shares))


# -- through the front door, against the Kalman filter on a grid -----------------------------------------------------------

T, SD = 25, 0.7
RNG = np.random.default_rng(3)
Y = np.zeros(T)
for t in range(T):
    Y[t] = 0.8 * (Y[t - 1] if t else 0.0) + RNG.normal()


@ppl.model
def autoregression():
    rho = sample("rho", dist.Uniform(-1.0, 1.0))

    def step(z, _):
        z = sample("z", dist.Normal(rho * z, 0.8))
        sample("y", dist.Normal(z, SD))
        return z, None

    ppl.scan(step, 0.0, length=T)


@pytest.fixture(scope="module")
def on_a_grid() -> tuple[float, float]:
    """Posterior mean and variance of rho."""
    grid = jnp.linspace(-0.999, 0.999, 400)

    def log_evidence(rho):
        model = LinearGaussian(Gaussian(0.0, 0.64), transition=Affine(rho, 0.64), observation=Affine(1.0, SD**2))
        return kalman_filter(model, jnp.asarray(Y)).log_evidence

    p = np.asarray(jax.nn.softmax(jax.vmap(log_evidence)(grid)), np.float64)
    mean = float(p @ grid)
    return mean, float(p @ (np.asarray(grid) - mean) ** 2)


FRONT = {
    "particle Gibbs": (lambda: inf.gibbs({"rho": inf.NUTS(), "z": ParticleGibbs(10)}), 1000),
    "pmmh": (lambda: pmmh(inf.RandomWalk(), particles=50), 3000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FRONT)
def test_the_parameter_has_its_exact_posterior(name, on_a_grid):
    kernel, draws = FRONT[name]
    posterior = inf.mcmc(
        autoregression() | {"y": jnp.asarray(Y)}, kernel(), key=jax.random.key(1), draws=draws, warmup=300, progress=False,
        check=False, placement=inf.Vectorized(),
    )  # fmt: skip
    rho, (mean, variance) = np.asarray(posterior["rho"]), on_a_grid
    for values, truth in ((rho, mean), ((rho - mean) ** 2, variance)):
        size = float(array_stats.ess(values, chain_axis=0, draw_axis=1))
        assert size > 100 and abs(values.mean() - truth) < 4.5 * values.std() / np.sqrt(size)
    assert posterior["z"].shape == (4, draws, T)


@pytest.mark.slow
def test_correlated_estimates_are_accepted_more_often():
    """With five particles, sorted: the share that is accepted at one step size."""
    method = inf.particle_filter(resample=Sorted(Systematic(), by=lambda walker: walker.carry))

    def accepted(correlation):
        kernel = pmmh(
            inf.RandomWalk(0.1, inf.metrics.Diagonal(jnp.ones(1))), particles=5, correlation=correlation, method=method
        )
        posterior = inf.mcmc(
            autoregression() | {"y": jnp.asarray(Y)}, kernel, key=jax.random.key(1), draws=200, warmup=20, progress=False,
            check=False, placement=inf.Vectorized(),
        )  # fmt: skip
        return np.mean(posterior.stats["acceptance_rate"])

    assert accepted(0.95) > 1.5 * accepted(0.0)


def test_what_cannot_be_is_said():
    program = autoregression() | {"y": jnp.asarray(Y)}

    @ppl.model
    def plain():
        sample("x", dist.Normal(0.0, 1.0))

    @ppl.model
    def discrete():
        k = sample("k", dist.Bernoulli(0.5))
        ppl.scan(lambda z, _: (sample("z", dist.Normal(z + k, 1.0)), None), 0.0, length=2)

    @ppl.model
    def loop():
        ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)), None), 0.0, length=2)

    def mcmc(program, kernel):
        return lambda: inf.mcmc(program, kernel, key=jax.random.key(0))

    for attempt, sentence in (
        (lambda: ParticleGibbs(1), r"^ParticleGibbs: particles must be at least 2, the present path counted, got 1\.$"),
        (mcmc(program, ParticleGibbs()), r"^ParticleGibbs: site 'rho' is not in the program's ppl\.scan\. Give it a kernel"),
        (mcmc(plain(), ParticleGibbs()), r"^a program that is taken step by step has exactly one ppl\.scan"),
        (
            mcmc(loop(), inf.tempered(ParticleGibbs(), 0.5)),
            r"^ParticleGibbs: a particle filter follows the program",
        ),
        (
            lambda: pmmh(inf.NUTS()),
            r"^pmmh: the kernel must evaluate the density once in a step, .*got NUTS\.$",
        ),
        (
            lambda: pmmh(inf.mala()),
            r"^pmmh: the kernel must do without gradients, for a filter has none .*HMC\.$",
        ),
        (lambda: pmmh(inf.RandomWalk(), particles=1), r"^pmmh: particles must be at least 2, got 1\.$"),
        (lambda: pmmh(WALK, correlation=1.0), r"^pmmh: correlation must be at least 0 and below 1, got 1\.0\.$"),
        (
            mcmc(program, inf.gibbs({"z": pmmh(WALK), ...: WALK})),
            r"^pmmh: there is no site before the program's ppl\.scan",
        ),
        (
            mcmc(program, inf.gibbs({"rho": pmmh(WALK), ...: ParticleGibbs()})),
            r"^pmmh: the sites in the program's ppl",
        ),
        (mcmc(discrete(), pmmh(WALK)), r"^site 'k' is discrete \(Bernoulli.*\), and pmmh moves continuous sites only"),
    ):
        with pytest.raises(ValueError, match=sentence):
            attempt()
