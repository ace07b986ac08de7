"""Ascent: the steps of `maximize`, compiled: each plays the objective and hands its gradient to the optimiser.

The objective is traced once, before anything is compiled: so what cannot be learned is found at once, and a second run of the
same program compiles nothing.
"""

import zlib
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ppl.graph import flow

from ..compiled import OPTIONS, compiled
from ..placement import Sharded
from ..vi.expectation import Expectation
from ..vi.free import Free
from .share import apart, everywhere

LENGTH = 1 << 12  # steps that a compiled call may take
MANY = 32  # samples of a step that make a long run likely: then it pays to wait for the compiler's best (CPUs: a tenth)
_ZERO = np.int32(0)


class Climb(NamedTuple):
    """Where an optimisation is: the free numbers by label, the optimiser's state, how many steps in a row were left out."""

    numbers: dict[str, jax.Array]
    optimizer: Any
    idle: jax.Array


class Row(NamedTuple):
    """Of steps: the objective, and how many steps in a row had been left out after each."""

    value: Any
    idle: Any


def ascent(
    objective: Expectation,
    chosen: Free,
    given: dict[str, Any],
    key,
    samples: int,
    optimizer,
    placement: Sharded | None = None,
) -> tuple[Any, Climb]:
    """What takes steps, `advance(state, start, num)` -> (state, rows), and the state to begin with.

    - `advance.wait`, `.text`, `.shapes`: as of `inference.compiled`.

    Raises:
        ValueError: for numbers that the objective does not depend on, and a line search on a random objective.
    """
    numbers = chosen.by_label(given)
    arrays, rest = eqx.partition(given, eqx.is_array)

    def estimate(key, numbers, arrays):
        new = chosen.put(eqx.combine(arrays, rest), [numbers[label] for label in chosen.labels])
        args = [new[name] for name in given]  # JAX sorts dictionaries
        if samples == 1:
            return objective.estimate(key, *args)
        return objective.estimate_from(apart(placement, jax.random.split(key, samples)), *args)

    numbers, arrays, key = everywhere(placement, (numbers, arrays, key))
    traced = jax.make_jaxpr(estimate)(key, numbers, arrays)
    begin = everywhere(placement, Climb(numbers, optimizer.init(numbers), jnp.int32(0)))
    consts = everywhere(placement, traced.consts)
    _refuse_useless(objective, chosen, traced, arrays, _searches(optimizer, begin))
    patterns = tuple(objective.patterns.items())
    text = zlib.crc32(str(traced.jaxpr).encode())  # what the function finds outside its arguments may have changed
    steps = (type(optimizer), optimizer.update)  # its first state is made here, and no part of the program
    name = ("maximize", objective.fn, patterns, chosen.names, samples, placement, steps, text, _constants(rest))
    some = partial(_some, traced.jaxpr, optimizer, placement)
    options = OPTIONS if samples < MANY else {}
    program = compiled(some, name, begin, arrays, consts, key, _ZERO, _ZERO, options=options)

    def advance(state, start, num):
        return program(state, arrays, consts, key, start, num)

    advance.wait, advance.text, advance.shapes = program.wait, program.text, program.shapes
    return advance, begin


def _some(jaxpr, optimizer, placement, state: Climb, arrays, consts, key, start, num):
    """`num` steps, the first of them number `start`."""
    objective = jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))
    rest = jax.tree.leaves(arrays)

    def step(i, carry):
        state, rows = carry
        key_i = jax.random.fold_in(key, start + i)

        def cost(numbers):
            return -objective(key_i, *jax.tree.leaves(numbers), *rest)[0]

        value, slope = jax.value_and_grad(cost)(state.numbers)
        # line searches ask for the rest: they look at the same noise again
        more = {"value": value, "grad": slope, "value_fn": cost}
        updates, optimizer_state = optax.with_extra_args_support(optimizer).update(
            slope, state.optimizer, state.numbers, **more
        )
        numbers = optax.apply_updates(state.numbers, updates)
        fine = jnp.isfinite(value) & jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(slope)]))
        keep = partial(jax.tree.map, lambda new, old: jnp.where(fine, new, old))
        new = Climb(keep(numbers, state.numbers), keep(optimizer_state, state.optimizer), jnp.where(fine, 0, state.idle + 1))
        return new, Row(rows.value.at[i].set(-value), rows.idle.at[i].set(new.idle))

    rows = Row(jnp.zeros(LENGTH, jaxpr.outvars[0].aval.dtype), jnp.zeros(LENGTH, jnp.int32))
    state, rows = lax.fori_loop(0, num, step, (state, rows))
    return everywhere(placement, (state, jax.tree.map(lambda x: x[None], rows)))


def _searches(optimizer, state: Climb) -> bool:
    """Whether an optimiser evaluates the objective itself, as line searches do."""
    known = {"value": jnp.zeros(()), "grad": state.numbers}
    update = optax.with_extra_args_support(optimizer).update
    try:
        jax.eval_shape(lambda: update(state.numbers, state.optimizer, state.numbers, **known))
    except TypeError as error:
        return "value_fn" in str(error)
    return False


def _refuse_useless(objective: Expectation, chosen: Free, traced, arrays, searches: bool) -> None:
    """Refuse numbers that the objective does not depend on: they would stay where they are, and nobody would know. And a line
    search on a random objective, whose noise it would climb."""
    sources = [{"key"}, *({label} for label in sorted(chosen.labels)), *({""} for _ in jax.tree.leaves(arrays))]
    reached = flow(traced.jaxpr, sources)[0]
    ignored = [label for label in chosen.labels if label not in reached]
    if ignored:
        more = f" (nor on {len(ignored) - 1} more)" if len(ignored) > 1 else ""
        raise ValueError(
            f"maximize: {objective.__name__} does not depend on {ignored[0]}{more}, so it cannot be learned. Use it in the "
            "program, keep it out of `free`, or wrap it in Fixed(...)."
        )
    if searches and "key" in reached:
        raise ValueError(
            f"maximize: the optimizer searches along lines, which needs an exact objective, and the estimate of "
            f"{objective.__name__} is random: each search would climb the noise of one step. Use inf.dadvi, whose noise is "
            "fixed, inf.find_mode for a mode, or an optimizer of stochastic gradients such as optax.adam(0.01)."
        )


def _constants(rest) -> tuple:
    """The leaves of the arguments that are no arrays: constants of the compiled step."""
    return tuple((type(x), x) for x in jax.tree.leaves(rest))
