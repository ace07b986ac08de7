"""Every kernel of the registry keeps the law, and moves; and bugs that are planted in them are found.

Exact draws that a kernel moves are exact draws again. They are independent, so plain tests of a sample apply, with no word of
convergence. Each kernel is looked at with 33 p-values; ALPHA fails a correct registry for one set of keys in 2500. (With
400,000 draws, too slow for every day, the smallest p-value of all kernels was 0.02.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

import inference as inf
from inference.integrators import Phase
from inference.kernel import CHAINS
from inference.mcmc import barker, combine, elliptical_slice, hmc, independence, metropolis, random_walk, slice
from ppl import dist
from ppl._keys import Shared
from tests.inference.kernels import DIM, KERNELS, exact, mover, surprise, target
from tests.inference.targets import COVARIANCE, MEAN, correlated

ALPHA = 1e-6
NUM, STEPS = 20_000, 10  # the mixture's bug, the least visible, shows with p = 1e-14
SIGMAS = 4.5  # Monte Carlo errors; six comparisons a kernel

all_kernels = pytest.mark.parametrize("name", KERNELS)


@all_kernels
def test_exact_draws_stay_exact(name):
    move, starts = mover(KERNELS[name].fixed(DIM), target(), STEPS), jnp.asarray(exact(NUM // 2), jnp.float32)
    positions, moved, info = move(starts, jax.random.key(1))
    assert surprise(positions) > ALPHA
    assert float(jnp.mean(moved)) > 0.1
    assert np.isfinite(info.lp).all() and all(x.shape == (NUM // 2, STEPS) for x in info)
    assert positions.dtype == info.lp.dtype == "float32"

    again, other = move(starts, jax.random.key(1))[0], move(starts, jax.random.key(2))[0]
    np.testing.assert_array_equal(positions, again)
    assert np.mean(np.all(positions == other, axis=1)) < 0.3  # chains that never moved


@pytest.mark.parametrize("row", [None, 0])  # as it is, and with a planted bug: all chains have the noise of the first
@pytest.mark.parametrize("name", [name for name, member in KERNELS.items() if member.fixed(DIM).shares])
def test_chains_that_share_a_key_have_noise_of_their_own(monkeypatch, name, row):
    if row is not None:
        monkeypatch.setattr(Shared, "mine", lambda self, draws: draws[row])
    kernel, starts = KERNELS[name].fixed(DIM), jnp.asarray(exact(NUM), jnp.float32)

    def chain(position, key):
        shared = [Shared(jax.random.fold_in(key, i), CHAINS, NUM) for i in range(STEPS + 1)]
        state = kernel.init(shared[0].own(), target(), position)
        for one in shared[1:]:
            state, _ = kernel.step(one, state, target())
        return state.position

    positions = jax.jit(jax.vmap(chain, (0, None), axis_name=CHAINS))(starts, jax.random.key(1))
    assert np.mean(np.any(positions != starts, axis=1)) > 0.7
    assert surprise(positions) > ALPHA if row is None else surprise(positions) < 1e-8


@all_kernels
def test_double_precision_is_kept(x64, name):
    move = mover(KERNELS[name].fixed(DIM), target(), STEPS)
    positions, _, info = jax.eval_shape(move, jnp.zeros((16, DIM)), jax.random.key(0))
    assert positions.dtype == info.lp.dtype == "float64"


@pytest.mark.parametrize("name", [name for name, member in KERNELS.items() if member.front])
def test_the_front_door(x64, name):
    """After a warm-up, means and variances within their Monte Carlo errors, and the acceptance that was aimed at."""
    kernel = KERNELS[name].front()
    posterior = inf.mcmc(correlated(), kernel, key=jax.random.key(3), progress=False, check=False)
    x = np.asarray(posterior["x"])
    for i in range(3):
        for values, truth in ((x[..., i], MEAN[i]), ((x[..., i] - MEAN[i]) ** 2, COVARIANCE[i, i])):
            size = float(array_stats.ess(values, chain_axis=0, draw_axis=1))
            assert size > 100
            assert abs(values.mean() - truth) < SIGMAS * values.std() / np.sqrt(size)
    assert all(values.shape == (4, 1000) for values in posterior.stats.values())
    if "step_size" in kernel.learns:
        assert abs(posterior.stats["acceptance_rate"].mean() - kernel.target_acceptance) < 0.12


@pytest.mark.parametrize("name", ["RandomWalk", "Slice"])
def test_placements_agree(x64, name):
    """Up to rounding, which few moves do not double often."""

    def draws(placement):
        settings = {"key": jax.random.key(0), "warmup": 0, "draws": 20, "progress": False, "check": False}
        return inf.mcmc(correlated(), KERNELS[name].fixed(3), placement=placement, **settings)["x"]

    np.testing.assert_allclose(draws(inf.Threads()), draws(inf.Vectorized()), rtol=1e-6)


# -- planted bugs --------------------------------------------------------------------------------------------------------


def decided_wrong_way(exponential, log_ratio, new, old):
    return metropolis.decided(exponential, -log_ratio, new, old)


def decided_always(exponential, log_ratio, new, old):
    return metropolis.decided(exponential, jnp.zeros_like(log_ratio), new, old)


def no_last_half_step(phase, target, metric, step_size):
    momentum = phase.momentum + 0.5 * step_size * phase.gradient
    position = phase.position + step_size * metric.velocity(momentum)
    log_density, gradient = jax.value_and_grad(target.log_density)(position)
    return Phase(position, momentum, gradient), log_density


def shrink_too_far(lower, upper, t):
    return jnp.where(t < 0, 0.5 * t, lower), jnp.where(t < 0, upper, 0.5 * t)


def one_sided(key, along, height, width, max_expansions):
    return jnp.zeros_like(width), width, jnp.int32(0)


def moved_but_not_evaluated(state, point, target):
    return state._replace(position=point.position)


BUGS = {
    "RandomWalk, ratio upside down": ("RandomWalk", random_walk, "decided", decided_wrong_way),
    "HMC, last half step forgotten": ("HMC", hmc, "velocity_verlet", no_last_half_step),
    "HMC, never rejects": ("HMC", hmc, "decided", decided_always),
    "Barker, way back forgotten": ("Barker", barker, "back_and_forth", lambda *_: 0.0),
    "Slice, shrinks too far": ("Slice", slice, "cut", shrink_too_far),
    "Slice, interval begins at the position": ("Slice", slice, "step_out", one_sided),
    "EllipticalSlice, reference not taken out": (
        "EllipticalSlice",
        elliptical_slice,
        "rest",
        lambda state, _: state.log_density,
    ),
    "Independence, proposal forgotten": ("Independence", independence, "log_weight", lambda q, state: state.log_density),
    "cycle, stale densities": ("cycle", combine, "placed", moved_but_not_evaluated),
    "mixture, stale densities": ("mixture", combine, "placed", moved_but_not_evaluated),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(monkeypatch, bug):
    name, module, attribute, wrong = BUGS[bug]
    monkeypatch.setattr(module, attribute, wrong)
    move, starts = mover(KERNELS[name].fixed(DIM), target(), STEPS), jnp.asarray(exact(NUM), jnp.float32)
    positions, *_ = move(starts, jax.random.key(1))
    assert surprise(positions) < 1e-8


def test_exact_draws_are_exact():
    """What the tests above compare with; a kernel that never moves would pass but for the share of moves."""
    assert surprise(exact(NUM)) > ALPHA


# -- parts ---------------------------------------------------------------------------------------------------------------


METRICS = {
    "diagonal": lambda: inf.metrics.Diagonal(jnp.array([1.0, 4.0, 0.01])),
    "dense": lambda: inf.metrics.Dense.from_covariance(jnp.asarray(COVARIANCE)),
    "low rank": lambda: inf.metrics.LowRank(
        jnp.array([1.0, 2.0, 3.0]), jnp.linalg.qr(jnp.arange(6.0).reshape(3, 2))[0], jnp.array([9.0, 0.1])
    ),
}


@pytest.mark.parametrize("metric", METRICS)
def test_whiten_undoes_unwhiten(x64, metric):
    metric, vector = METRICS[metric](), jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(metric.whiten(metric.unwhiten(vector)), vector, rtol=1e-12)


@pytest.mark.parametrize("kernel", [inf.RandomWalk(), inf.HMC(), inf.mala(), inf.Barker(), inf.Slice()])
def test_a_step_without_settings_is_refused(kernel):
    state = kernel.init(jax.random.key(0), correlated(), jnp.zeros(3))
    name = type(kernel).__name__
    with pytest.raises(ValueError, match=rf"^{name}: .*must be known to take a step; see inference.adapted\.$"):
        kernel.step(jax.random.key(0), state, correlated())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: inf.HMC(0), r"^HMC: num_steps must be at least 1, got 0\.$"),
        (lambda: inf.HMC(jitter=1.0), r"^HMC: jitter must lie in \[0, 1\), got 1.0\.$"),
        (lambda: inf.cycle(), r"^cycle: expected at least one kernel\.$"),
        (lambda: inf.cycle(inf.NUTS), r"^cycle: expected kernels such as NUTS\(\), got the class NUTS\.$"),
        (lambda: inf.mixture([inf.NUTS()], [0.5, 0.5]), r"^mixture: expected one positive weight for each of 1 kernels, got"),
        (lambda: inf.mixture([inf.NUTS()], [-1.0]), r"^mixture: expected one positive weight for each of 1 kernels, got"),
        (lambda: inf.repeat(inf.NUTS(), 0), r"^repeat: num must be a whole number of at least 1, got 0\.$"),
        (
            lambda: inf.Independence(dist.Normal(0.0, 1.0)).init(jax.random.key(0), correlated(), jnp.zeros(3)),
            r"^Independence: the proposal must draw positions of shape \(3,\), with a scalar log density, but its draws",
        ),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_cycle_reports_all_members():
    kernel = inf.cycle(inf.HMC(4, 0.5, inf.metrics.Diagonal(jnp.ones(3))), inf.Slice(inf.metrics.Diagonal(jnp.ones(3))))
    state = kernel.init(jax.random.key(0), correlated(), jnp.zeros(3))
    state, info = kernel.step(jax.random.key(1), state, correlated())
    assert info.n_steps == info.n_steps_0 and info.num_evaluations == info.num_evaluations_1
    assert info.acceptance_rate == info.acceptance_rate_0
    np.testing.assert_allclose(info.lp, correlated().log_density(state.position), rtol=1e-6)


def test_members_of_a_mixture_move_as_often_as_they_weigh_and_settle_what_they_learned():
    kernel = inf.mixture([inf.RandomWalk(), inf.mala()], [1, 3])
    posterior = inf.mcmc(
        correlated(),
        kernel,
        key=jax.random.key(0),
        warmup=300,
        draws=1000,
        progress=False,
        check=False,
        placement=inf.Vectorized(),
    )
    member, step_size = posterior.stats["member"], posterior.stats["step_size"]
    assert abs(member.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / member.size)
    for chain in range(4):
        for k in (0, 1):
            assert len(np.unique(step_size[chain, member[chain] == k])) == 1
            during = posterior.warmup_stats["step_size"][chain, posterior.warmup_stats["member"][chain] == k]
            assert len(np.unique(during)) > 30
