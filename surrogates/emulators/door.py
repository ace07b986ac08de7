"""`emulate`: from a costly function to a cheap one, with as few runs as possible, and never more than were allowed.

```python
emu = sur.emulate(program, "voltage", budget=64, key=key)         # of a call in a model: runs where the posterior is
emu = sur.emulate(fn, over={"x": dist.Uniform(0.0, 1.0)}, budget=200, key=key)      # of a plain function
emu = sur.emulate((X, Y), key=key)                                # of runs that somebody else made
cheap = program.intervene({"voltage": emu})
posterior = sur.correct(program, cheap, key=key)                  # exact again
```
A function is a JAX function, or one on the host by `sur.simulator`. Runs that fail are left out, and counted. Ctrl-C stops,
and returns the emulator of the runs so far; a simulator's cache has all of them, so the same line goes on where it was.
(See `design.py` for where runs are made, `gate.py` for whether they were enough.)
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from inference.diagnostics import SamplingWarning
from inference.progress import Meter, Progress, Silent
from ppl.choices import Choices

from ..powered import Powers, Tempered
from .design import CallSite, fresh, laws, quantiles, spread
from .emulator import Emulator, Family, Known
from .gaussian_process import GaussianProcess
from .runs import Runs
from .table import tabulated

LEAST = 8  # runs before the first fit


class Emulated(Known):
    """An emulator, with the runs that it was made of, failed ones among them."""

    runs: Runs

    @property
    def true_calls(self) -> int:
        """How many runs were made for it."""
        return int(np.sum(np.asarray(self.runs.tried)))

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self.true_calls - self.runs.num

    def __repr__(self) -> str:
        failed = f", {self.failed} of which failed" if self.failed else ""
        return f"Emulated: {self.true_calls} true calls{failed}\n{self.report()}"


class Plan(NamedTuple):
    """What is run: a function `fn` of arguments with `names` and `shapes`, whose output has the shape `out`; `many` rows of
    them at once. Where it begins, from probabilities (num, d) to rows; and the `site` in a program with data, where there is
    one."""

    fn: Callable[..., Any]
    many: Callable[..., Any]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    quantile: Callable[[np.ndarray], np.ndarray]
    site: CallSite | None

    @property
    def d(self) -> int:
        """Numbers in a row."""
        return sum(int(np.prod(shape, dtype=int)) for shape in self.shapes)


def emulate(
    what: Any,
    site: str | None = None,
    *,
    over: Mapping[str, Any] | None = None,
    budget: int | None = None,
    key: Array,
    family: Family | None = None,
    first: int | None = None,
    batch: int = 4,
    power: float = 0.25,
    powers: Powers = Tempered(particles=400),  # noqa: B008
    progress: bool | Progress = True,
) -> Emulator:
    """A cheap function in the place of a costly one.

    - `what`: a program, of whose `ppl.call` named `site` (the only one need not be named) an emulator is made; with data, runs
      go where the posterior is. Or a function, with `over`, a distribution for each argument. Or a table, (inputs, outputs).
    - `budget`: true calls, at most; failed ones count.
    - `family`: what kind of emulator; by default `GaussianProcess()`.
    - `first`: how many runs are spread over the prior, by default 4 for each number that goes in, and at least 8; then `batch`
      at a time are drawn from prior x surrogate likelihood^`power`, as `powers` draws.
    - `progress`: True, False, or an object (see `inference.progress`): true calls used and left.

    Returns:
        An `Emulator`; of runs made here an `Emulated`, which has the `runs`, and how many `true_calls` there were.

    Raises:
        ValueError: for what is none of these, a call that is not there, a budget that is no number of runs, and where so many
            runs failed that nothing can be fitted.
    Warns:
        SamplingWarning: where it was interrupted.

    Example:
        `emulate(jnp.sin, over={"x": dist.Uniform(0.0, 3.0)}, budget=12, key=jax.random.key(0))(1.0)`

    Reference:
        Sacks, Welch, Mitchell and Wynn, "Design and analysis of computer experiments", Statistical Science 4, 1989.
    """
    if isinstance(what, tuple | list):
        return tabulated((*what,), key=key, family=family)  # pyright: ignore[reportArgumentType]
    budget = _checked(what, over, budget, key, batch, power)
    key_plan, key_begin, key_rounds = jax.random.split(key, 3)
    plan = _plan(what, site, over, key_plan)
    family = GaussianProcess() if family is None else family
    focused = plan.site is not None and _has_data(plan.site.program)
    first = min(budget, max(LEAST, 4 * plan.d)) if first is None and focused else min(budget, first or budget)
    bar = Meter(f"true calls of '{_name(what, site)}'", now=lambda left: {"left": left}) if progress is True else progress
    bar, runs = bar or Silent(), Runs.none(plan.names, plan.shapes, plan.out, budget)
    bar.begin(budget, 0)
    emulator, number, anew = None, 0, 0
    try:
        runs = _run(plan, runs, fresh(key_begin, spread(key_begin, first, plan.quantile, plan.d), runs.x[:0], first), bar)
        while _tried(runs) < budget:
            key_fit, key_draw, key_pick = jax.random.split(jax.random.fold_in(key_rounds, number), 3)
            num, number = min(batch if focused else budget, budget - _tried(runs)), number + 1
            if plan.site is not None and focused:
                emulator, anew = _refitted(family, key_fit, runs, emulator, anew)
                x = _drawn(key_draw, plan.site, emulator, power, powers)
            else:  # the points asked for were not all different
                x = spread(key_draw, 4 * num, plan.quantile, plan.d)
            x = fresh(key_pick, x, runs.x[np.asarray(runs.tried)], num)
            if not len(x):
                break
            runs = _run(plan, runs, x, bar)
    except KeyboardInterrupt:
        if runs.num < LEAST:
            raise
        warnings.warn(
            f"Interrupted: {_tried(runs)} of {budget} runs were made. A simulator's cache has them: the same line goes on.",
            SamplingWarning,
            stacklevel=2,
        )
    finally:
        bar.end()
    return Emulated(_fitted(family, jax.random.fold_in(key, 0), runs), runs)


# -- rounds --------------------------------------------------------------------------------------------------------------


def _run(plan: Plan, runs: Runs, x: np.ndarray, bar: Progress) -> Runs:
    """The runs, with those at the rows of x (m, d)."""
    kept = jnp.asarray(x, float)
    args = jax.vmap(runs.unpack)(kept)
    answer = getattr(plan.fn, "answer", None)  # of a simulator: on the host, where Ctrl-C is what it is
    y = np.asarray(plan.many(*args) if answer is None else answer([np.asarray(a) for a in args])[0])
    before, runs = _tried(runs), runs.add(np.asarray(kept, np.float64), y)
    bar.update(len(x), len(runs.tried) - _tried(runs), before)
    return runs


def _batched(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of many rows. Made once: JAX knows a compiled function by the object, and would compile it in every round."""
    return jax.jit(jax.vmap(fn))


def _refitted(family: Family, key: Array, runs: Runs, before: Emulator | None, anew: int) -> tuple[Emulator, int]:
    """A fit on the way, and the number of runs of the last one from nothing. Where the family can, a fit begins at the one
    before until the runs have doubled: it is quick, and nothing is compiled anew."""
    refit = getattr(family, "refit", None)
    if before is not None and refit is not None and runs.num < 2 * anew:
        return refit(before, runs, key=key), anew
    return _fitted(family, key, runs), runs.num


def _fitted(family: Family, key: Array, runs: Runs) -> Emulator:
    if runs.num == 0:
        raise ValueError(f"emulate: all {_tried(runs)} runs failed: nothing can be fitted. Run the function at one of them.")
    return family.fit(key, runs)


def _drawn(key: Array, site: CallSite, emulator: Emulator, power: float, powers: Powers) -> Array:
    """Arguments (num, d) at draws of prior x surrogate likelihood^power."""
    cheap = ppl.as_target(site.program.intervene({site.address: emulator}))
    (drawn,) = powers(key, cheap, (power,))
    return site.rows(_constrained(cheap, drawn.positions))


@jax.jit
def _constrained(target: ppl.Target, positions: Array) -> Choices:
    return jax.vmap(target.constrain)(positions)


def _tried(runs: Runs) -> int:
    return int(np.sum(np.asarray(runs.tried)))


# -- the door ------------------------------------------------------------------------------------------------------------


def _plan(what: Any, site: str | None, over: Mapping[str, Any] | None, key: Array) -> Plan:
    if isinstance(what, ppl.Program):
        found = CallSite.of(what, site)
        return Plan(
            found.fn, _batched(found.fn), found.names, found.shapes, found.out, quantiles(found.prior_rows(key)), found
        )
    assert over is not None
    names, shapes, quantile = laws(over, key)
    forms = [jax.ShapeDtypeStruct(shape, jnp.result_type(float)) for shape in shapes]
    try:
        out = jax.eval_shape(what, *forms)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            "emulate: the function cannot be run by JAX, so it is one for the host: wrap it, sur.simulator(fn, "
            f"jax.ShapeDtypeStruct(shape, float)). ({type(error).__name__})"
        ) from None
    if len(jax.tree.leaves(out)) != 1 or jax.tree.leaves(out)[0] is not out:
        raise ValueError(f"emulate: the function must return one array, got {out}.")
    return Plan(what, _batched(what), names, shapes, out.shape, quantile, None)


def _has_data(program: ppl.Program) -> bool:
    return any(row.kind in ("observed", "factor") or row.partial for row in program.sites().values())


def _name(what: Any, site: str | None) -> str:
    return site or getattr(what, "name", None) or getattr(what, "__name__", None) or type(what).__name__


def _checked(what: Any, over: Any, budget: Any, key: Any, batch: Any, power: Any) -> int:
    if not isinstance(what, ppl.Program) and not callable(what):
        raise ValueError(f"emulate: expected a program, a function or a table (inputs, outputs), got {type(what).__name__}.")
    if isinstance(what, ppl.Program) and over is not None:
        raise ValueError("emulate: a program says how the arguments of its call vary. Leave out over=.")
    if not isinstance(what, ppl.Program) and over is None:
        hint = " Call the model with its arguments first." if hasattr(what, "fn") and not hasattr(what, "may_fail") else ""
        raise ValueError(f'emulate: say how the arguments vary: over={{"x": dist.Uniform(0.0, 1.0)}}.{hint}')
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError("emulate: key must be one typed key, for example jax.random.key(0).")
    for name, value in (("budget", budget), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"emulate: {name} must be a whole number of runs, at least 1, got {value!r}.")
    if not 0.0 < power <= 1.0:
        raise ValueError(f"emulate: power must be above 0 and at most 1, got {power!r}.")
    return budget
