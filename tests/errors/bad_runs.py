"""Mistakes in asking for a posterior, as thunks by name; `test_runs.py` holds what each must be told."""

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
from ppl import dist, sample

from .bad_input import DATA, KEY, body, branches, counts, normal, schools


def mcmc(program=None, kernel=None, **changes):
    """A run that never begins."""
    program = schools() | DATA if program is None else program
    settings = {"key": KEY, "chains": 2, "draws": 2, "warmup": 2, "progress": False, **changes}
    return inf.mcmc(program, inf.NUTS() if kernel is None else kernel, **settings)


@ppl.model
def impossible():
    """A data point that no value of the parameters allows."""
    rate = sample("rate", dist.HalfNormal(1.0))
    ppl.vmap(lambda y: sample("t", dist.Uniform(0.0, rate), obs=y))(jnp.array([0.1, -1.0]))


@ppl.model
def not_a_number():
    x = sample("x", dist.Normal(0.0, 1.0))
    ppl.factor("penalty", jnp.log(-1.0 - x**2))


CASES = {
    "no chains": lambda: mcmc(chains=0),
    "no draws": lambda: mcmc(draws=0),
    "half a draw": lambda: mcmc(draws=10.5),
    "less than no warm-up": lambda: mcmc(warmup=-1),
    "no warm-up": lambda: mcmc(warmup=0),
    "a number as key": lambda: mcmc(key=0),
    "an old key": lambda: mcmc(key=jax.random.PRNGKey(0)),
    "the kernel's class": lambda: mcmc(kernel=inf.NUTS),
    "no kernel": lambda: mcmc(kernel="nuts"),
    "a model": lambda: mcmc(schools),
    "a function": lambda: mcmc(lambda x: x),
    "a discrete latent site": lambda: mcmc(counts()),
    "nothing latent": lambda: mcmc(body(normal) | {"x": 1.0}),
    "a site in one branch": lambda: mcmc(body(branches(normal, lambda: 0.0))),
    "no first position: impossible data": lambda: mcmc(impossible()),
    "no first position: NaN": lambda: mcmc(not_a_number()),
    "a first position that misses a site": lambda: mcmc(init=inf.At({"mu": 0.0, "tau": 1.0})),
    "a first position of an unknown site": lambda: mcmc(init=inf.At({"mu": 0.0, "tau": 1.0, "theta": np.ones(3), "m": 1.0})),
    "a first position outside the support": lambda: mcmc(init=inf.At({"mu": 0.0, "tau": -1.0, "theta": np.ones(3)})),
    "a budget in no unit": lambda: mcmc(budget="a while"),
    "a budget of nothing": lambda: mcmc(budget=0),
    "no warm-up for a combination": lambda: mcmc(kernel=inf.cycle(inf.NUTS(), inf.RandomWalk()), warmup=0),
    "a combination to adapt": lambda: inf.adapted(inf.cycle(inf.NUTS(), inf.RandomWalk())),
    "a tree too deep": lambda: inf.NUTS(max_depth=50),
    "an acceptance of one": lambda: inf.adapted(inf.NUTS(), target_acceptance=1.0),
}
