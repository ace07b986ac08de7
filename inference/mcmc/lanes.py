"""A chunk of many chains side by side, none of which waits for the others' longer trajectories.

Under `vmap` a loop runs until the last chain is done, so that in every draw all chains pay for the longest trajectory of all.
Here an iteration takes one gradient of every chain, wherever each of them is in its transition; a chain whose transition has
ended records it and begins the next. Chains wait for each other at the end of the chunk only.

To end a transition and begin the next costs more than a cheap gradient, mostly for random numbers, and under `vmap` it is
done for all chains whoever needs it. So those that have landed wait until they are one in `WAVE`.

Law: the draws and statistics of `chunk`, step by step; for kernels that can be taken apart (`Kernel.flies`) and learn nothing
more. (Finite state machines: Dance et al., arXiv:2503.17405, 2025. Batching control flow: Radul et al., MLSys 2020,
arXiv:1910.11141.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import select
from .adaptation.warmup import Adapted

WAVE = 4  # 2 serves cheap gradients, 8 costly ones, by a tenth


class Journey(NamedTuple):
    """Where all chains are; every leaf leads with their axis."""

    states: Any  # before the flight
    flights: Any
    done: jax.Array  # draws made; -1 before the first flight
    record: Any

    def waiting(self, num):
        """The chains that have landed, or not begun, and have draws to make."""
        return (self.done < num) & ((self.done < 0) | self.flights.landed)


def side_by_side(kernel, target, state, key, chain, start, num, *, length: int):
    """Steps `start` to `start + num` of the chains numbered `chain` (chains,), whose states lead with that axis: their states
    and (positions, info), `length` rows for each chain, of which the first `num` are filled."""
    if isinstance(kernel, Adapted):
        settled = jax.vmap(kernel.settled)(state)
        inner, record = _flown(settled, target, state.inner, key, chain, start, num, length)
        return state._replace(inner=inner), record
    return _flown(jax.vmap(lambda _: kernel)(chain), target, state, key, chain, start, num, length)


def _flown(kernels, target, states, key, chain, start, num, length: int):
    """The same for a kernel of each chain's own."""
    chains = len(chain)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, chain)

    @jax.vmap
    def launch(kernel, key, i, state):
        return kernel.launch(jax.random.fold_in(key, i), state, target)

    @jax.vmap
    def fly(kernel, flight):
        return kernel.fly(flight, target)

    @jax.vmap
    def land(kernel, flight):
        state, info = kernel.land(flight)
        return state, (state.position, info)

    def begin_and_end(journey: Journey) -> Journey:
        states, flights, done, record = journey
        now = journey.waiting(num)
        ended = now & (done >= 0)
        new, row = land(kernels, flights)
        states = jax.vmap(select)(ended, new, states)
        place = (jnp.arange(chains), jnp.where(ended, done, length))  # past the end: nothing is written
        record = jax.tree.map(lambda rows, x: rows.at[place].set(x, mode="drop"), record, row)
        done = done + now
        flights = jax.vmap(select)(now, launch(kernels, keys, start + done, states), flights)
        return Journey(states, flights, done, record)

    def few(journey: Journey):
        return WAVE * jnp.sum(journey.waiting(num)) < jnp.sum(journey.done < num)

    def go_on(journey: Journey) -> Journey:
        onward = lambda j: j._replace(flights=fly(kernels, j.flights))  # noqa: E731
        return lax.while_loop(few, onward, begin_and_end(journey))

    flights = jax.eval_shape(launch, kernels, keys, jnp.full_like(chain, start), states)
    _, row = jax.eval_shape(land, kernels, flights)
    flights = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), flights)
    record = jax.tree.map(lambda x: jnp.zeros((chains, length, *x.shape[1:]), x.dtype), row)
    journey = Journey(states, flights, jnp.full_like(chain, -1), record)
    journey = lax.while_loop(lambda j: jnp.any(j.done < num), go_on, journey)
    return journey.states, journey.record
