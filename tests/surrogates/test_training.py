"""Training: how the rate falls, and that a budget of seconds compiles once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from inference import compiled
from ppl import dist, sample
from surrogates.training import annealed, trained

KEY = jax.random.key(0)


@ppl.model
def source():
    return sample("x", dist.Normal(2.0, 1.0))


@inf.expectation
def log_score(cases, net):
    choices, _ = ppl.draw(cases)
    return dist.Normal(net, 1.0).log_prob(choices["x"])


def test_the_rate_rises_for_a_twentieth_and_ends_at_zero():
    optimizer = annealed(100, optax.sgd(1.0))
    state, rates = optimizer.init(jnp.zeros(())), []
    for _ in range(100):
        update, state = optimizer.update(jnp.ones(()), state)
        rates.append(-float(update))
    assert np.argmax(rates) in (4, 5, 6) and max(rates) > 0.95
    assert rates[0] < 0.05 and rates[-1] < 0.01 and (np.diff(rates[6:]) < 0.0).all()


def test_a_budget_compiles_one_program():
    before = set(compiled._programs)
    net, fit = trained(log_score, source(), jnp.zeros(()), key=KEY, budget=1.0, batch=8, progress=False)
    assert len(set(compiled._programs) - before) == 1
    assert len(fit.values) > 20 and abs(net - 2.0) < 1.5


def test_steps_and_budget_are_one_or_the_other():
    with pytest.raises(ValueError, match="say steps=, or a budget="):
        trained(log_score, source(), jnp.zeros(()), key=KEY, steps=10, budget="1s")
