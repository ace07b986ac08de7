"""`maximize`: climb an objective by stochastic gradients.

```python
fit = inf.maximize(inf.elbo, program | data, guide(phi), optimizer=optax.adam(1e-2), steps=5_000, key=key)
fit["guide"]                 # the guide with what was learned
fit.posterior                # draws from it, with Pareto's k
inf.importance(program | data, proposal=fit["guide"], key=key)      # corrected
```
Each step estimates the objective and its gradient anew (see `inference.vi`), and hands the gradient to any Optax
transformation. A step where some number is not finite is left out and counted; twenty in a row end the run, with a sentence.
"""

import time
from functools import cache
from typing import Any

import jax
import numpy as np
import optax

from ppl._keys import check_key

from ..placement import Sharded, check_shares, on_one_device
from ..progress import Meter, Progress, Silent
from ..provenance import key_words, versions
from ..run import Goal, Outcome, Route, run, seconds
from ..store import Store
from ..vi.expectation import Expectation
from ..vi.free import Free, named
from .ascent import LENGTH, Row, ascent
from .blame import blame
from .fit import Fit
from .identity import opened
from .share import everywhere
from .until import Until, looks

PATIENCE = 20  # steps in a row that may fail


def maximize(
    objective: Expectation,
    *args: Any,
    key: jax.Array,
    steps: int = 10_000,
    free: str | tuple[str, ...] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    samples: int = 1,
    placement: Sharded | None = None,
    until: Until | None = None,
    progress: bool | Progress = True,
    budget: float | str | None = None,
    store: Store | None = None,
) -> Fit:
    """Find the arguments that make the mean of an objective largest.

    - `objective`: an `@expectation`; to minimise one, return its negative.
    - `args`: its arguments: programs, guides, arrays, pytrees.
    - `free`: names of those that are optimised, as its function calls them; by default `"guide"`. `"model.theta"` is the
      argument `theta` of the program `model`. Of each, the floating-point arrays are free, covariates too where they are
      arguments (say `"model.theta"`, and not `"model"`, to keep them, or wrap them in `inf.vi.Fixed`); a program's data never
      are. The fit prints which arguments were learned.
    - `optimizer`: any Optax transformation, for gradients that it descends (their sign is turned for it); by default
      `optax.adam(0.01)`, its rate falling to zero along a cosine over the last half of the steps. It sees what is free by
      label, as a dictionary such as `{"guide.phi['loc']": ...}`, so masks (`optax.masked`) can go by names. Line
      searches, such as `optax.lbfgs()`, are for objectives without noise, all of whose sites are enumerated; for others see
      `inf.dadvi`.
    - `samples`: estimates that are averaged in a step. With several, score function gradients have a baseline.
    - `placement`: `Sharded()` shares the samples of a step out among devices; see `share.py`.
    - `until`: a rule that ends the run when the objective rises no more, for example `Stalled()`.
    - `progress`, `budget`, `store`: as for `mcmc`; a run that was broken off goes on with the same line. Ctrl-C ends the run
      and returns what is done.

    Raises:
        ValueError: for what is no expectation, a name that is no argument, an argument without numbers to learn, a parameter
            that the objective does not depend on, a line search on a random objective; after 20 steps in a row where the
            objective or its gradient is not finite.

    Example:
        `maximize(elbo, program | data, guide(phi), key=jax.random.key(0)).values[-100:].mean()`
    """
    limit, begun = seconds(budget), time.monotonic()
    _check(objective, key, steps, samples, optimizer, until, store)
    check_shares("maximize", placement, samples, "samples", " a step")
    given = named("maximize", objective, args)
    chosen = Free("maximize", given, free)
    optimizer = default_optimizer(steps) if optimizer is None else optimizer
    advance, begin = ascent(objective, chosen, given, key, samples, optimizer, placement)
    with opened(store, advance.text() if store else "", given, key, advance.shapes, steps, placement) as held:
        advance.wait()
        compile_seconds = time.monotonic() - begun
        saved = None if held is None else held.states()
        outcome = run(
            lambda lane, state, start, num: advance(state, start, num),
            [begin] if saved is None else everywhere(placement, saved),
            _route(steps, until, held),
            most=LENGTH,
            progress=Meter(objective.__name__, now=_now) if progress is True else progress or Silent(),
            budget=limit,
            done=held and held.done,
            keeper=held,
        )
        records = outcome.records if held is None else held.whole(outcome.records, outcome.steps)
    rows = _joined(records[0], outcome.steps)
    numbers = on_one_device(placement, outcome.states[0].numbers)
    found = chosen.put(given, [numbers[label] for label in chosen.labels])
    if outcome.reason == "not finite":
        raise ValueError(_never_finite(objective, found, chosen, key, samples, outcome.steps))
    made = {
        "algorithm": "maximize",
        "objective": objective.__name__,
        "key": key_words(key),
        "steps": len(rows.value),
        "samples": samples,
        "placement": repr(placement),
        "free": list(chosen.names),
        "learned": chosen.sizes,
        "stopped": outcome.reason,
        "compile_seconds": compile_seconds,
        "sampling_seconds": outcome.seconds,
        "versions": versions(),
    }
    return Fit(objective, found, rows.value, int(np.sum(rows.idle > 0)), key, made)


@cache  # one for a number of steps, so that what was compiled for it is found again
def default_optimizer(steps: int) -> optax.GradientTransformation:
    """Adam at 0.01, and in the last half of the steps along a cosine to zero: so that the end is not noise alone."""
    half = max(1, steps // 2)
    rate = optax.join_schedules([optax.constant_schedule(0.01), optax.cosine_decay_schedule(0.01, steps - half + 1)], [half])
    return optax.adam(rate)


def _route(steps: int, until: Until | None, held) -> Route:
    for goal in [*looks(steps), steps]:
        outcome: Outcome = yield Goal(goal, steps)
        records = outcome.records if held is None else held.whole(outcome.records, goal)
        rows = _joined(records[0], goal)
        if np.max(rows.idle) >= PATIENCE:
            return "not finite"
        if until is not None and goal < steps and (why := until.reached(rows.value)):
            return why
    return None


def _joined(parts, num: int) -> Row:
    """The rows of the first `num` steps."""
    if not parts:
        return Row(np.zeros(0), np.zeros(0, int))
    return jax.tree.map(lambda *xs: np.concatenate([x[0] for x in xs])[:num], *parts)


def _now(record: Row) -> dict[str, str]:
    """What the meter shows: the objective of late, and how many steps were left out."""
    values = record.value[np.isfinite(record.value)]
    left_out = int(np.sum(record.idle > 0))
    shown = {"objective": f"{np.mean(values):.4g}" if len(values) else "not finite"}
    return shown | ({"steps left out": str(left_out)} if left_out else {})


def _never_finite(objective, found, chosen: Free, key, samples: int, steps: int) -> str:
    why = blame(objective, found, jax.random.fold_in(key, steps - 1))
    return (
        f"maximize: {PATIENCE} steps in a row, up to step {steps}, the objective {objective.__name__} or its gradient was not "
        f"finite: {why}. Begin elsewhere, take smaller steps, or look at the supports there."
    )


def _check(objective, key, steps, samples, optimizer, until, store) -> None:
    check_key(key, "maximize")
    if not isinstance(objective, Expectation):
        hint = " Decorate it with @inf.expectation." if callable(objective) else ""
        raise ValueError(f"maximize: expected an expectation such as inf.elbo, got {type(objective).__name__}.{hint}")
    for name, value in (("steps", steps), ("samples", samples)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"maximize: {name} must be a whole number of at least 1, got {value!r}.")
    if not (optimizer is None or hasattr(optimizer, "update")):
        raise ValueError(f"maximize: the optimizer must be an Optax transformation, got {type(optimizer).__name__}.")
    if not (until is None or hasattr(until, "reached")) or isinstance(until, type):
        raise ValueError("maximize: until must be a rule with a method reached, for example Stalled().")
    if not (store is None or isinstance(store, Store)):
        raise ValueError(f'maximize: store must be a Store, for example Store("runs/fit"), got {type(store).__name__}.')
