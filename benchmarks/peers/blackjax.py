"""BlackJAX's NUTS with its window adaptation: a diagonal metric, or a low-rank one.

Draws begin where the warm-up ends: the low-rank adaptation proposes another point, from which chains may never move. (With its
growing windows instead of the default ones it needs a tenth of the gradients on a linear regression, but loses chains.)
"""

import time
from collections.abc import Callable
from functools import partial

import blackjax
import jax
import numpy as np
from blackjax.adaptation.low_rank_adaptation import window_adaptation_low_rank

from benchmarks.peers.density import parameters, starts, target
from benchmarks.peers.devices import keys, per_device, twice
from benchmarks.peers.measure import DRAWS, WARMUP, Run


def run(name: str, seed: int, adaptation: Callable) -> Run:
    """A step's gradients are its integration steps."""
    begun = time.perf_counter()
    density = target(name)
    first = starts(density, jax.random.key(seed + 1000))

    def chain(own, density):
        (key, position), log_density = own, density.log_density
        warm, draw = jax.random.split(key)
        (_, settings), warmup = adaptation(blackjax.nuts, log_density).run(warm, position, num_steps=WARMUP)
        state = jax.tree.map(lambda x: x[-1], warmup.state)
        step = blackjax.nuts(log_density, **settings).step

        def one(state, key):
            state, info = step(key, state)
            return state, (state.position, info.num_integration_steps)

        _, (positions, steps) = jax.lax.scan(one, state, jax.random.split(draw, DRAWS))
        return positions, warmup.info.num_integration_steps.sum() + steps.sum()

    before = time.perf_counter() - begun
    (positions, steps), compiling, again = twice(per_device(chain), (keys(seed), first), density)
    begun = time.perf_counter()
    draws = parameters(density, np.asarray(positions))
    return Run(before + compiling + time.perf_counter() - begun, again, int(steps.sum()), draws)


diagonal = partial(run, adaptation=blackjax.window_adaptation)
low_rank = partial(run, adaptation=window_adaptation_low_rank)
