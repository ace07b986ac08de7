"""Finite hidden Markov models: forward-backward, the best path, and paths drawn, all in log space.

    x_0 ~ initial,  x_{t+1} | x_t ~ transition[x_t],  log p(y_t | x_t = i) = log_emissions[t, i]

The emissions come as a table, so any will do: `dist.Poisson(rates).log_prob(y[:, None])`. A row of zeros is a missing value.
Numbers are normalised at every step, so long series lose no digits. Backwards in time, a state given the next one and the data
until now is a Markov chain too; smoothing follows it, and paths are drawn along it. (Baum, Petrie, Soules and Weiss, Annals of
Math. Statistics 41, 1970; Viterbi, IEEE Trans. Information Theory 13, 1967; Scott, JASA 97, 2002.)

```python
emissions = dist.Poisson(jnp.array([15.472, 26.125])).log_prob(quakes[:, None])     # (T, 2)
found = forward_backward(initial, transition, emissions)
found.log_evidence, found.smoothed
viterbi(initial, transition, emissions).path
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl.distributions import is_traced


class HiddenStates(NamedTuple):
    """Laws of the hidden states; probabilities.

    - `log_evidence`: (), the log density of all data.
    - `log_increments`: (T,), that of y[t] given y[:t].
    - `filtered`: (T, K), of x_t given y[:t + 1].
    - `smoothed`: (T, K), of x_t given all data.
    - `pairwise`: (T-1, K, K), of (x_t, x_{t+1}) given all data.

    Where the data are impossible the log evidence is -inf, and the smoothed probabilities are all zero.
    """

    log_evidence: jax.Array
    log_increments: jax.Array
    filtered: jax.Array
    smoothed: jax.Array
    pairwise: jax.Array


class BestPath(NamedTuple):
    """`path`: (T,), states 0 to K - 1; `log_density`: (), of this path and the data together."""

    path: jax.Array
    log_density: jax.Array


def forward_backward(initial, transition, log_emissions) -> HiddenStates:
    """The exact log evidence, and the laws of the states and of neighbours in time.

    Args:
        initial: (K,), probabilities of the state at the first observation.
        transition: (K, K), probabilities from row to column; (T-1, K, K) where they change with time.
        log_emissions: (T, K), log density of y[t] in each state; zeros where y[t] is missing, -inf where it is impossible.

    Returns:
        `HiddenStates`. Differentiable in all arguments; an entry of `initial` or `transition` that is exactly zero is a
        structural zero, and no gradient flows to it.

    Raises:
        ValueError: where shapes disagree, or probabilities do not sum to one.

    Example:
        `jax.grad(lambda r: forward_backward(start, moves, dist.Poisson(r).log_prob(y[:, None])).log_evidence)(rates)`
    """
    return _forward_backward(*_prepared(initial, transition, log_emissions))


def viterbi(initial, transition, log_emissions) -> BestPath:
    """The most probable path of states, given all data; of several the one with the smallest states at the end.

    Args, errors: as those of `forward_backward`.

    Example:
        `viterbi(initial, transition, log_emissions).path`
    """
    return _viterbi(*_prepared(initial, transition, log_emissions))


def sample_hidden_path(key, initial, transition, log_emissions) -> jax.Array:
    """A path of states (T,) from its law given all data, by backward simulation.

    Args:
        key: one typed key; `jax.vmap` over several for independent paths.
        initial, transition, log_emissions: as those of `forward_backward`.

    Example:
        `jax.vmap(lambda key: sample_hidden_path(key, initial, transition, log_emissions))(keys)`
    """
    return _sample(key, *_prepared(initial, transition, log_emissions))


@jax.jit
def _forward_backward(start, moves, log_emissions) -> HiddenStates:
    filtered, log_increments = _forward(start, moves, log_emissions)

    def step(later, now):
        t, here = now
        pair = here[:, None] + _at(moves, t)  # of x_t and x_{t+1}, given the data until t
        pair = pair + later - _bounded(_logsumexp(pair))
        here = _logsumexp(pair, 1)
        return here, (here, pair)

    _, (smoothed, pairwise) = lax.scan(step, filtered[-1], (_steps(filtered), filtered[:-1]), reverse=True)
    smoothed = jnp.concatenate([smoothed, filtered[-1:]])
    return HiddenStates(jnp.sum(log_increments), log_increments, jnp.exp(filtered), jnp.exp(smoothed), jnp.exp(pairwise))


@jax.jit
def _viterbi(start, moves, log_emissions) -> BestPath:
    def forth(best, now):
        """`best`: log density of the best path to each state, less that of the best of all."""
        t, emission = now
        ways = best[:, None] + _at(moves, t)
        best, level = _relative(jnp.max(ways, 0) + emission, jnp.max)
        return best, (jnp.argmax(ways, 0), level)

    best, level = _relative(start + log_emissions[0], jnp.max)
    best, (came_from, levels) = lax.scan(forth, best, (_steps(log_emissions), log_emissions[1:]))
    end = jnp.argmax(best)
    _, path = lax.scan(lambda state, ways: (ways[state], ways[state]), end, came_from, reverse=True)
    return BestPath(jnp.append(path, end), level + jnp.sum(levels))


@jax.jit
def _sample(key, start, moves, log_emissions) -> jax.Array:
    filtered, _ = _forward(start, moves, log_emissions)
    keys = jax.random.split(key, len(log_emissions))
    end = jax.random.categorical(keys[-1], filtered[-1])

    def step(later, now):
        t, key, here = now
        state = jax.random.categorical(key, here + _at(moves, t)[:, later])
        return state, state

    _, path = lax.scan(step, end, (_steps(filtered), keys[:-1], filtered[:-1]), reverse=True)
    return jnp.append(path, end)


def _forward(start, moves, log_emissions):
    """Log probabilities of x_t given y[:t + 1] (T, K), and the increments of the log evidence (T,)."""

    def step(filtered, now):
        t, emission = now
        filtered, level = _relative(_logsumexp(filtered[:, None] + _at(moves, t)) + emission, _logsumexp)
        return filtered, (filtered, level)

    first, level = _relative(start + log_emissions[0], _logsumexp)
    _, (filtered, levels) = lax.scan(step, first, (_steps(log_emissions), log_emissions[1:]))
    return jnp.concatenate([first[None], filtered]), jnp.append(level, levels)


def _relative(log_weights, measure):
    """`log_weights` less their level, and the level."""
    level = measure(log_weights)
    return log_weights - _bounded(level), level


def _bounded(level):
    """Zero where it is -inf: what is impossible stays so, whatever is subtracted."""
    return jnp.where(level == -jnp.inf, 0, level)


def _steps(rows):
    """The times from which there is a next one (T-1,)."""
    return jnp.arange(len(rows) - 1)


def _at(moves, t):
    """The move from time `t` to the next."""
    return moves[t] if moves.ndim == 3 else moves


def _logsumexp(x, axis: int = 0):
    """log sum exp, whose gradient is finite also where all is -inf."""
    top = _bounded(lax.stop_gradient(jnp.max(x, axis, keepdims=True)))
    total = jnp.sum(jnp.exp(x - top), axis)
    return jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1, total)) + jnp.squeeze(top, axis))


def _prepared(initial, transition, log_emissions):
    """Logs of the probabilities, and the emissions, of one floating type."""
    initial, transition, log_emissions = map(jnp.asarray, (initial, transition, log_emissions))
    if log_emissions.ndim != 2 or not log_emissions.size:
        raise ValueError(
            f"the log emissions must have shape (T, K), a row for each time and a column for each state; they have shape "
            f"{log_emissions.shape}."
        )
    num_times, num = log_emissions.shape
    if initial.shape != (num,):
        raise ValueError(f"the initial probabilities must have shape ({num},), as the emissions have, not {initial.shape}.")
    if transition.shape not in ((num, num), (num_times - 1, num, num)):
        raise ValueError(
            f"the transition probabilities must have shape ({num}, {num}), or ({num_times - 1}, {num}, {num}) where they "
            f"change with time: one matrix between neighbours of {num_times} observations. They have {transition.shape}."
        )
    _check_sums(initial, "the initial probabilities")
    _check_sums(transition, "the rows of the transition")
    dtype = jnp.result_type(float, initial, transition, log_emissions)
    start, moves = (jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -jnp.inf).astype(dtype) for p in (initial, transition))
    return start, moves, log_emissions.astype(dtype)


def _check_sums(p, what: str) -> None:
    if is_traced(p):
        return
    sums, least = np.ravel(np.sum(np.asarray(p), axis=-1)), np.min(np.asarray(p), initial=0)
    if least < 0 or not np.allclose(sums, 1, atol=1e-3):
        worst = sums[np.argmax(np.abs(sums - 1))]
        raise ValueError(
            f"{what} must be probabilities that sum to one: the least of them is {least:.3g}, and one sum is {worst:.3g}."
        )
