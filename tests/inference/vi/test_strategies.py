"""Every strategy of the registry keeps the law on every program, and bugs that are planted are found.

A comparison is within LIMIT standard errors: a correct strategy fails one of its three with a chance of 2e-4. Keys are fixed.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.vi import Score
from inference.vi.play import Play
from inference.vi.strategies import disarm, measure_valued
from inference.vi.strategies.strategy import Chosen, zero
from ppl import distributions
from ppl.drawing import Drawing
from tests.inference.vi.strategies import CASES, EVERY, PLAIN, THETA, errors, estimates, surprise

LIMIT = 4.0
NUM, MANY = 10_000, 100_000


@pytest.mark.parametrize("program, strategy", PLAIN)
def test_the_law(program, strategy):
    assert surprise(CASES[program], strategy, NUM, seed=1) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("program, strategy", EVERY)
def test_the_law_of_every_strategy_on_every_program(program, strategy):
    assert surprise(CASES[program], strategy, MANY, seed=2) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("program, strategy", PLAIN)
def test_the_law_in_double_precision(x64, program, strategy):
    assert surprise(CASES[program], strategy, MANY, seed=3) < LIMIT


def test_samples_are_baselines_of_one_another():
    """With the law, and less variance than as many plays without."""
    case, num = CASES["chain"], 4
    e, exact = case.using("Score"), jax.grad(case.mean)(THETA)
    together = estimates(e, THETA, NUM, jax.random.key(5), samples=num)[1]
    apart = estimates(e, THETA, NUM, jax.random.key(6))[1]
    assert np.max(errors(together, exact)) < LIMIT
    assert together.var(0).sum() < 0.9 * apart.var(0).sum() / num


# -- planted bugs --------------------------------------------------------------------------------------------------------


def no_score(self, d, key):
    return Chosen(jax.lax.stop_gradient(distributions.draw(d, key)))


def one_noise(self, name):
    return self.inputs.key


def no_weight(self, kind, value, add=Play.add):
    if kind != "log_tried":
        add(self, kind, value)


def twice_the_rate(d, value):
    return jnp.exp(distributions.log_prob(d, value)) * 1.2


def biased_baseline(self, d, key):
    value = jax.lax.stop_gradient(distributions.draw(d, key))
    score = distributions.log_prob_inside(d, value)
    return Chosen(value, score, -value * zero(score))


def same_noise_again(logits, key):
    z = logits + jax.random.logistic(key, logits.shape, logits.dtype)
    return z > 0, z, z


def one_sided(d, key, value, normal=measure_valued._normal):
    both = normal(d, key, value)
    return replace(both, coefficient=both.coefficient.at[..., 2].set(0.0))


BUGS = {
    "a score that is dropped": (Score, "choose", no_score, "coins", "Score"),
    "a baseline that depends on the value": (Score, "choose", biased_baseline, "coins", "Score"),
    "two sites with one noise": (Drawing, "key", one_noise, "noises", "Reparameterised"),
    "values without their weight": (Play, "add", no_weight, "coins", "Enumerate"),
    "coefficients that are too large": (measure_valued, "_probability", twice_the_rate, "coins", "MeasureValued"),
    "a scale that is forgotten": (measure_valued, "_normal", one_sided, "normals", "MeasureValued"),
    "a twin that is not antithetic": (disarm, "_uniform", lambda d, key: jnp.full(d.shape(), 0.3), "coins", "DisARM"),
    "noise that is not drawn anew": ("inference.vi.strategies.relax", "_coin", same_noise_again, "coins", "Relax"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found(monkeypatch, bug):
    where, name, wrong, program, strategy = BUGS[bug]
    monkeypatch.setattr(f"{where}.{name}", wrong) if isinstance(where, str) else monkeypatch.setattr(where, name, wrong)
    assert surprise(CASES[program], strategy, NUM, seed=1) > 2 * LIMIT
