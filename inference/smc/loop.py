"""The loop of sequential Monte Carlo: a population goes a path, stage by stage, in one compiled program.

```python
method = Method(Tempering(), sequence(Reweight(ByESS(0.5)), Resample(Systematic()), Move(RandomWalk())))
path = method.way.of(program)
state = begin(method.stage, path, key, num=1000)
state = finish(method.stage, path, key, state)                # to the end of the path, in one loop: may be nested, mapped
state, rows = some(method.stage, path, key, state, ...)       # so many stages, with what they left: for the run on the host
```
Stage number s draws from fold_in(key, s): how stages are shared out among calls changes nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..population import Population
from .history import History
from .step import Step


class Method(eqx.Module):
    """A method of sequential Monte Carlo: which `way` to go (its `of(program)` is a path), what a `stage` does, and the
    `history` that it needs, where the last population is not all that its posterior is made of."""

    way: Any
    stage: Step
    history: History | None = None


class State(NamedTuple):
    """A run between two stages: `num` is the number of stages so far, the start counted."""

    population: Population
    memory: Any
    num: jax.Array


class Row(NamedTuple):
    """What a stage leaves: statistics, choices, what was to be kept of the population; `taken` is False where there was no
    stage, for the path had ended."""

    taken: jax.Array
    info: dict[str, jax.Array]
    choice: Any
    kept: Any


def begin(stage: Step, path, key, num: int) -> State:
    """The population at the first level."""
    population = path.start(jax.random.fold_in(key, 0), num)
    return State(population, stage.init(population, path), jnp.int32(1))


def goes_on(path, state: State) -> jax.Array:
    """Whether there is a stage to come: the path has not ended, and some particle is alive."""
    return ~path.ended(state.population.level) & jnp.any(state.population.log_weights > -jnp.inf)


def next_stage(stage: Step, path, key, state: State) -> tuple[State, dict[str, jax.Array], Any]:
    """One stage: the state, statistics and choices."""
    key = jax.random.fold_in(key, state.num)
    population, memory, info, choice = stage(key, state.population, state.memory, path)
    info = info | {"log_evidence": population.log_evidence, "log_evidence_error": population.log_evidence_error}
    return State(population, memory, state.num + 1), info, choice


def finish(stage: Step, path, key, state: State) -> State:
    """All stages to the end of the path. Where their number is known the loop has no condition that `vmap` could spread."""

    def one(state):
        return next_stage(stage, path, key, state)[0]

    if path.length is None:
        return lax.while_loop(lambda state: goes_on(path, state), one, state)
    return lax.fori_loop(1, path.length, lambda _, state: one(state), state)


def some(stage: Step, path, keep: Callable, key, state: State, num, *, length: int) -> tuple[State, Row]:
    """At most `num` stages: the state, and `length` rows of which the first `num` are filled. `keep(population)`: a pytree."""

    @jax.jit
    def one(state):
        state, info, choice = next_stage(stage, path, key, state)
        return state, Row(jnp.array(True), info, choice, keep(state.population))

    def body(carry):
        i, state, rows = carry
        state, row = one(state)
        return i + 1, state, jax.tree.map(lambda rows, row: rows.at[i].set(row), rows, row)

    _, row = jax.eval_shape(one, state)
    rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
    _, state, rows = lax.while_loop(
        lambda carry: (carry[0] < num) & goes_on(path, carry[1]), body, (jnp.zeros_like(num), state, rows)
    )
    return state, rows
