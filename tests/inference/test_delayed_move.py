"""Particles that move by delayed acceptance: exact draws of a level stay so, and the truth is asked once a move.

Normal data, prior Normal(0, 2), truth Normal(mu, 1), surrogate Normal(mu + 0.3, 1) to the power 0.4: every level is normal,
with precision 1/4 + n (0.4 (1 - b) + b) and a mean that weighs both data. 4000 draws are compared with it by Kolmogorov and
Smirnov.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import inference as inf
import ppl
from inference.mcmc import delayed_acceptance
from inference.population import Population
from inference.smc.delayed_move import DelayedMove
from inference.smc.tempering_path import TemperingPath
from inference.smc.threshold import Thresholds
from ppl import dist, sample
from tests.inference.counting import Counting

Y = np.array([1.2, 0.3, 2.1, 0.9], np.float32)
SHIFT, POWER, LEVEL, NUM = 0.3, 0.4, 0.3, 4000
KEY = jax.random.key(8)


@ppl.model
def location(fn):
    sample("y", dist.Normal(ppl.call("mean", fn, sample("mu", dist.Normal(0.0, 2.0))), 1.0).expand([len(Y)]))


def program(fn):
    return location(fn) | {"y": Y}


def cheap():
    return program(lambda mu: mu + SHIFT)


class Reference(eqx.Module):
    """prior x s^0.4, by hand."""

    def log_density(self, choices):
        mu = choices["mu"]
        return -0.125 * mu**2 - 0.5 * POWER * jnp.sum((jnp.asarray(Y) - mu - SHIFT) ** 2)


def law():
    """Mean and standard deviation of the level."""
    old, new = POWER * (1 - LEVEL), LEVEL
    precision = 0.25 + len(Y) * (old + new)
    return (old * (Y - SHIFT).sum() + new * Y.sum()) / precision, precision**-0.5


def moved(truth, *, num: int = 3, power: float = POWER):
    """Positions before and after, and the statistics."""
    path = TemperingPath(ppl.as_target(program(lambda mu: mu)), Reference())
    mean, sd = law()
    positions = jnp.asarray(np.random.default_rng(0).normal(mean, sd, (NUM, 1)), jnp.float32)
    population = Population.of(jax.vmap(path.at)(positions), level=jnp.float32(LEVEL))
    path = TemperingPath(ppl.as_target(program(truth)), Reference())  # what it asks from now on counts
    step = DelayedMove(ppl.as_target(cheap()), power, num, steps=5)
    go = jax.jit(lambda key, population: step(key, population, step.init(population, path), path))
    after = go(KEY, population)
    return positions[:, 0], after.population.particles.position[:, 0], after.info


def surprise(x) -> float:
    return float(stats.kstest(np.asarray(x, float), stats.norm(*law()).cdf).pvalue)


def test_exact_draws_stay_exact_and_a_move_asks_once():
    truth = Counting(lambda mu: mu)
    before, after, info = moved(truth)
    assert surprise(before) > 1e-3 and surprise(after) > 1e-6
    assert truth.asked == 3 * NUM == int(info["num_moves"]) * NUM
    assert np.mean(np.asarray(before) != np.asarray(after)) > 0.95
    assert 0.3 < float(info["acceptance_rate"]) < 1.0 and float(info["correlation"]) < 0.5


def test_a_surrogate_that_is_not_taken_out_is_found(monkeypatch):
    monkeypatch.setattr(delayed_acceptance, "correction", lambda there, here: 0.0)
    _, after, _ = moved(lambda mu: mu, num=8)
    assert surprise(after) < 1e-8


def test_what_is_wrong_is_said():
    target = ppl.as_target(cheap())
    with pytest.raises(ValueError, match=r"^DelayedMove: num must be at least 1, got 0\.$"):
        DelayedMove(target, 0.4, 0)
    with pytest.raises(ValueError, match=r"^DelayedMove: ThresholdPath is not a path of inverse temperatures"):
        DelayedMove(target, 0.4).check(Thresholds().of(cheap()))
    with pytest.raises(ValueError, match=r"^DelayedMove: its run cannot be frozen"):
        DelayedMove(target, 0.4).frozen(())
    assert isinstance(DelayedMove(target, 0.4).kernel, inf.RandomWalk)
