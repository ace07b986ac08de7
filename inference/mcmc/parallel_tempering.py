"""Parallel tempering: replicas between prior and posterior, which swap places, so that chains cross between modes.

A replica sits at each rung of a ladder of inverse temperatures (see `tempering.py`). In every step neighbours are swapped,
even and odd pairs in turn and never at random, then each replica moves: so replicas travel the ladder steadily instead of
diffusing (the non-reversible scheme of Syed, Bouchard-Cote, Deligiannidis and Doucet, JRSS B 84, 2022, arXiv:1905.02939).
Replicas i and i + 1 are swapped with probability min(1, exp((b[i + 1] - b[i]) (l[i] - l[i + 1]))), b their inverse
temperatures and l their log likelihoods. In warm-up every rung learns settings of its own, and the ladder is spread so that
all pairs reject equally often: the sum of the rejection rates, the communication barrier, belongs to the problem, and replicas
climb most often when it is shared out evenly.

```python
posterior = inf.mcmc(program, inf.parallel_tempering(inf.NUTS(), num=8), key=key)
```
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..numerics import finite_or
from .members import Combination, begun, checked, info_type, placed
from .metropolis import State
from .tempering import TemperedTarget, power


class Tally(NamedTuple):
    """What the swaps have shown since the ladder was last changed.

    `rejected`, `tried`, `weight` (num - 1,): of each pair, the sum of its rejection probabilities, how often it was tried, and
    the log of the sum of likelihood^(difference of the two inverse temperatures) at the hotter; `steps` () so far; `seen`
    (num,): which end of the ladder each replica saw last (0: neither, -1: hot, 1: cold); `trips` (): climbs to the cold one.
    """

    rejected: jax.Array
    tried: jax.Array
    weight: jax.Array
    steps: jax.Array
    seen: jax.Array
    trips: jax.Array

    @staticmethod
    def empty(ladder) -> "Tally":
        zeros, count = jnp.zeros_like(ladder[1:]), jnp.int32(0)
        return Tally(zeros, zeros, jnp.full_like(zeros, -jnp.inf), count, jnp.zeros(len(ladder), jnp.int32), count)

    @property
    def rejection(self):
        """The mean rejection probability of each pair (num - 1,)."""
        return self.rejected / jnp.maximum(self.tried, 1)


class ParallelState(NamedTuple):
    """`inner`: the coldest replica's state, whose draws are kept; `hot`: the others' states, stacked, hottest first."""

    inner: Any
    hot: Any
    infos: Any
    ladder: jax.Array
    parity: jax.Array
    tally: Tally

    @property
    def position(self):
        return self.inner.position


class ParallelTempering(Combination):
    """See `parallel_tempering`."""

    kernels: tuple[Kernel]
    ladder: jax.Array
    learned: bool = eqx.field(static=True)
    warmup: jax.Array | int = 1000

    def with_warmup(self, warmup: int) -> "ParallelTempering":
        """The same with another length of warm-up."""
        return dataclasses.replace(self, warmup=jnp.int32(warmup))

    def check(self, target) -> None:
        self.kernels[0].check(target)
        if self.ladder[0] == 0:
            for address, row in target.program.sites().items():
                if row.kind == "latent" and "ImproperUniform" in row.family:
                    raise ValueError(
                        f"parallel_tempering: the prior of site '{address}' is improper, so there is no law at the hot end of "
                        "the ladder. Give the site a proper prior, or end the ladder before: hottest=0.1."
                    )

    def init(self, key, target, position) -> ParallelState:
        ladder = jnp.asarray(self.ladder, position.dtype)

        def begin(key, inverse_temperature):
            view = TemperedTarget(target, inverse_temperature)
            return begun(self.kernels, key, [(view, position)])

        (states,), (infos,) = jax.vmap(begin)(jax.random.split(key, len(ladder)), ladder)
        return ParallelState(*_apart(states), infos, ladder, jnp.int32(0), Tally.empty(ladder))

    def step(self, key, state: ParallelState, target):
        key_swap, key_move = jax.random.split(key)
        ladder, states = state.ladder, _together(state.inner, state.hot)
        log_priors, levels = jax.vmap(target.log_prior_and_likelihood)(states.position)
        levels = finite_or(levels, -jnp.inf)
        probability, source = swap(key_swap, ladder, levels, state.parity)
        tally = taken(state.tally, ladder, levels, state.parity, probability, source)
        log_densities = finite_or(log_priors[source] + power(levels[source], ladder), -jnp.inf)
        points = State(states.position[source], log_densities)

        def move(key, inverse_temperature, own, point):
            view = TemperedTarget(target, inverse_temperature)
            return self.kernels[0].step(key, placed(own, point, view), view)

        states, infos = jax.vmap(move)(jax.random.split(key_move, len(ladder)), ladder, states, points)
        state = ParallelState(*_apart(states), infos, ladder, 1 - state.parity, tally)
        return state, _report(infos, ladder, tally)

    def learn(self, i, state: ParallelState, info) -> ParallelState:
        states = _together(state.inner, state.hot)
        inner, hot = _apart(jax.vmap(lambda own, its: self.kernels[0].learn(i, own, its))(states, state.infos))
        ends = self.warmup // 2 ** jnp.arange(ROUNDS)
        due = (i > 0) & jnp.any(i == ends)
        return lax.cond(due, lambda s: self._next_round(i, s), lambda s: s, state._replace(inner=inner, hot=hot))

    def _next_round(self, i, state: ParallelState) -> ParallelState:
        ladder = state.ladder
        if self.learned:
            ladder = jnp.where(i < self.warmup, spread(ladder, state.tally.rejection), ladder)
        return state._replace(ladder=ladder, tally=Tally.empty(ladder))


# Rounds of warm-up: each twice as long as the one before, the last is the second half. What a round has shown makes the ladder
# of the next.
ROUNDS = 6


def parallel_tempering(
    kernel: Kernel, num: int = 8, *, hottest: float = 0.0, ladder: jax.Array | None = None
) -> ParallelTempering:
    """`num` replicas between prior and posterior, each moved by `kernel`, neighbours swapped; draws are the posterior's.

    - `num`: replicas. Twice the communication barrier and one more is a good number; it multiplies the cost.
    - `hottest`: the least inverse temperature. 0, the prior, must be proper; above 0 it need not be.
    - `ladder` (num,): inverse temperatures, rising to 1, that are kept as they are. By default the ladder is learned, and so
      are settings that `kernel` leaves open, at each rung by itself.

    Statistics: those of the coldest replica, with `n_steps` and `num_evaluations` of all replicas together. And, since the end
    of warm-up, so that the last draw tells most: `swap_rate` and `swap_rate_min`, mean and least acceptance over pairs;
    `barrier`, the sum of the rejection rates; `round_trips`, how often a replica climbed from the hottest to the coldest rung;
    `log_evidence`, of the program's data by stepping stones (Xie et al., Syst. Biol. 60, 2011): its exponential is the product
    of the pairs' means of likelihood^difference. Not a number where the ladder does not begin at the prior. With improper or
    unnormalised densities it means nothing.

    Raises:
        ValueError: for fewer than two replicas, or a ladder that does not rise to 1. From `mcmc`: for an improper prior.

    Example:
        `inf.mcmc(program, inf.parallel_tempering(inf.NUTS(), num=8), key=key)`
    """
    if isinstance(num, bool) or not isinstance(num, int) or num < 2:
        raise ValueError(f"parallel_tempering: num must be a whole number of at least 2, got {num!r}.")
    if not 0 <= hottest < 1:
        raise ValueError(f"parallel_tempering: hottest must lie in [0, 1), got {hottest}.")
    given = ladder is not None
    rungs = jnp.asarray(ladder, float) if given else hottest + (1.0 - hottest) * jnp.linspace(0.0, 1.0, num) ** 3
    if rungs.ndim != 1 or len(rungs) < 2 or rungs[0] < 0 or rungs[-1] != 1 or jnp.any(jnp.diff(rungs) < 0):
        raise ValueError(f"parallel_tempering: a ladder rises from at least 0 to 1 in two steps or more, got {ladder}.")
    return ParallelTempering(checked("parallel_tempering", (kernel,)), rungs, learned=not given)


def swap(key, ladder, levels, parity):
    """For replicas with log likelihoods `levels` (num,): the probability of swapping each pair (num - 1,), and which replica
    comes to each rung (num,) when pairs (0, 1), (2, 3), ... are tried for parity 0, and (1, 2), (3, 4), ... for parity 1."""
    probability = jnp.exp(jnp.minimum(log_swap_ratio(ladder, levels), 0.0))
    probability = jnp.where(jnp.isnan(probability), 0.0, probability)
    drawn = jax.random.uniform(key, probability.shape, probability.dtype) < probability
    swapped = (drawn & _tried(probability, parity)).astype(jnp.int32)
    return probability, jnp.arange(len(ladder)) + jnp.pad(swapped, (0, 1)) - jnp.pad(swapped, (1, 0))


def log_swap_ratio(ladder, levels):
    """log of the tempered densities after over before each swap (num - 1,)."""
    return jnp.diff(ladder) * -jnp.diff(levels)


def spread(ladder, rejection):
    """The ladder (num,) with the same ends on which all pairs reject alike, as far as rates (num - 1,) on the old one tell."""
    barrier = jnp.pad(jnp.cumsum(rejection + 0.01), (1, 0))  # a little each, lest rungs fall together
    levels = jnp.linspace(0.0, 1.0, len(ladder), dtype=ladder.dtype) * barrier[-1]
    return jnp.interp(levels, barrier, ladder).at[0].set(ladder[0]).at[-1].set(1.0)


def taken(tally: Tally, ladder, levels, parity, probability, source) -> Tally:
    """The tally with one more round of swaps in it; arguments as `swap` has them and gives them."""
    tried = _tried(probability, parity).astype(ladder.dtype)
    weight = jnp.logaddexp(tally.weight, power(levels[:-1], jnp.diff(ladder)))
    seen = tally.seen[source].at[0].set(-1)
    trips = tally.trips + (seen[-1] == -1)
    rejected = tally.rejected + tried * (1.0 - probability)
    return Tally(rejected, tally.tried + tried, weight, tally.steps + 1, seen.at[-1].set(1), trips)


def _tried(pairs, parity):
    """Which of the pairs (num - 1,) it is the turn of."""
    return jnp.arange(len(pairs)) % 2 == parity


def _report(infos, ladder, tally: Tally):
    """The statistics of a step; see `parallel_tempering`."""
    named = {
        name: jnp.sum(x, dtype=x.dtype) if name in ("n_steps", "num_evaluations") else x[-1]
        for name, x in infos._asdict().items()
    }
    rejection = tally.rejection
    log_evidence = jnp.sum(tally.weight - jnp.log(tally.steps.astype(ladder.dtype)))
    named |= {
        "swap_rate": 1.0 - jnp.mean(rejection),
        "swap_rate_min": 1.0 - jnp.max(rejection),
        "barrier": jnp.sum(rejection),
        "round_trips": tally.trips,
        "log_evidence": jnp.where(ladder[0] == 0, log_evidence, jnp.nan),
    }
    return info_type("ParallelTempering", tuple(named))(**named)


def _together(inner, hot):
    """All replicas' states, stacked, hottest first."""
    return jax.tree.map(lambda cold, others: jnp.concatenate([others, cold[None]]), inner, hot)


def _apart(states):
    """The coldest replica's state, and the others stacked."""
    return jax.tree.map(lambda x: x[-1], states), jax.tree.map(lambda x: x[:-1], states)
