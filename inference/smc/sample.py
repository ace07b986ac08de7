"""`smc`: from a conditioned program and a method of sequential Monte Carlo to a `Posterior` that knows its evidence.

```python
posterior = inf.smc(program | {"y": y}, inf.tempering(), key=jax.random.key(0))
filtered  = inf.smc(walk(100, 1.0, 2.0) | {"y": y}, inf.particle_filter(), key=jax.random.key(0), particles=10_000)
posterior.log_evidence, posterior.log_evidence_error
```
"""

import time
import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..compiled import compiled
from ..diagnostics import SamplingWarning
from ..findings import OF_PARTICLES, findings
from ..placement import Sharded, check_shares, cores, on_one_device
from ..posterior import Posterior
from ..progress import Meter, Progress, Silent
from ..run import Goal, Outcome, Route, run, seconds
from ..store import Store
from . import spread
from .history import Folding, History, Last, Paths
from .identity import opened
from .loop import Method, Row, State, begin, goes_on, some
from .path import Growing, Path
from .result import Run, joined, posterior_of

ROWS = 1 << 22  # numbers that the rows of a compiled call may hold
MANY_STAGES = 512
KEPT = 1 << 30  # bytes of history, from which on one is asked to choose


def smc(
    program: Any,
    method: Method,
    *,
    key: jax.Array,
    particles: int = 1000,
    islands: int = 1,
    history: History | None = None,
    collect: Any = None,
    progress: bool | Progress = True,
    budget: float | str | None = None,
    store: Store | None = None,
    placement: Sharded | None = None,
    check: bool = True,
) -> Posterior:
    """Carry a population of weighted particles to the posterior of `program`.

    - `program`: a conditioned program; for methods that temper also a `ppl.Target`, and for steering what is steered
      (`inference.steering`).
    - `method`: `tempering(...)`, `particle_filter(...)`, ...; or a `Method` of steps of your own.
    - `particles` in each island; `islands`: populations that do not meet, one a core at a time; they are joined at the end,
      weighted by their evidence.
    - `history`: what is kept of earlier stages: `Last()`, `Paths()` (the default for a program's loop, whose draws are then
      whole paths), `AncestorTree()` for what has descendants of long ones, or `Window(num)`.
    - `collect`: a function from a `Population` to a pytree, called at every stage in the compiled loop; what it returns is
      stacked in `posterior.run.collected`, leading with (stage,), or (island, stage).
    - `placement`: `Sharded()` shares the particles of an island out among devices; see `spread.py`.
    - `progress`, `budget`, `store`, `check`: as for `mcmc`. A run that was broken off goes on with the same line.

    The posterior's draws are (1, islands x particles), equally weighted; `posterior.run.population` has the weighted ones.
    `posterior.stages` has the statistics of every stage, the start counted.

    Raises:
        ValueError: for a program that the method cannot work on; when all particles have weight zero; when the budget was
            spent before the end.
    Warns:
        SamplingWarning: when nearly all weight was on a few particles at some stage, or moves left them where they were.
    """
    limit, begun = seconds(budget), time.monotonic()
    _check(method, key, particles, islands, history, store)
    check_shares("smc", placement, particles, "particles", ask="particles=")
    path = method.way.of(program)
    path.check_islands(islands)
    method.stage.check(path)
    history = _history(method, path, history)
    keep = _kept(history, collect)
    keys = [jax.random.fold_in(key, island) for island in range(islands)]
    settings = {"keep": keep, "particles": particles, "placement": placement}
    name = (particles, history, collect, placement)
    first = compiled(partial(_first, **settings), ("smc", "first", *name), method.stage, path, key)
    state, row = first.shapes
    state = spread.laid_out(placement, state, particles)
    _refuse_size(row.kept, path, islands, history)
    length = _length(path, row)
    stages = compiled(
        partial(_some, **settings, length=length), ("smc", "some", length, *name),
        method.stage, path, key, state, np.int32(0),
    )  # fmt: skip
    whole = first.shapes[0].population
    _last([whole] * islands, key, history.num(particles))  # compiled already, where the last populations are all
    with opened(store, method, path, key, particles, islands, (state, row), stages.text()) as held:
        stages.wait()
        compile_seconds = time.monotonic() - begun
        saved = None if held is None else held.states()
        starts = [first(method.stage, path, k) for k in keys]
        states = [state for state, _ in starts] if saved is None else saved
        for state in states:
            _refuse_death(state, path, None)

        firsts, gathered = zip(*(_folded(history, None, jax.tree.map(_stacked, row)) for _, row in starts), strict=True)
        gathered = list(gathered)

        def advance(lane, state, _, num):
            state, rows = stages(method.stage, path, keys[lane], state, num)
            rows, gathered[lane] = _folded(history, gathered[lane], rows)
            return state, jax.tree.map(lambda x: x[None], rows)

        outcome = run(
            advance,
            states,
            _route(path),
            most=length,
            workers=cores() if jax.default_backend() == "cpu" else 1,
            progress=_meter(progress, particles, islands, path),
            budget=limit,
            done=held and held.done,
            keeper=held,
        )
        records = outcome.records if held is None else held.whole(outcome.records, outcome.steps)
    outcome = outcome._replace(states=on_one_device(placement, outcome.states))
    rows = [_all(row, parts) for row, parts in zip(firsts, records, strict=True)]
    if isinstance(history, Folding):
        rows = [row._replace(kept=(held, row.kept[1])) for row, held in zip(rows, gathered, strict=True)]
    _refuse_end(outcome, path, rows, held is not None)
    parts = zip(outcome.states, rows, strict=True)
    wholes = [history.whole(path, state.population, row.kept[0]) for state, row in parts]
    population, slots = _last(wholes, key, history.num(particles))(wholes, key)
    made = Run(method, path, history, outcome.states, rows, wholes, population)
    posterior = posterior_of(made, slots, program, key, outcome.seconds, compile_seconds)
    if check:
        for finding in findings(posterior, OF_PARTICLES):
            warnings.warn(str(finding), SamplingWarning, stacklevel=2)
    return posterior


def _first(stage, path, key, *, particles: int, keep, placement):
    """The start of an island: its state, and its row, in which what only later stages tell is zero or NaN."""
    state = spread.spread(placement, begin(stage, path, key, particles), particles)
    population = state.population
    row = jax.eval_shape(lambda: some(stage, path, keep, key, state, jnp.int32(0), length=1)[1])
    row = jax.tree.map(lambda x: jnp.full(x.shape[1:], jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 0, x.dtype), row)
    known = {
        path.level_name: population.level,
        "ess": population.ess,
        "log_evidence": population.log_evidence,
        "log_evidence_error": population.log_evidence_error,
    }
    known = {name: x for name, x in known.items() if name in row.info}
    return state, row._replace(taken=jnp.array(True), info=row.info | known, kept=keep(population))


def _stacked(x):
    return np.asarray(x)[None]


def _folded(history: History, held: Any, rows: Row) -> tuple[Row, Any]:
    """Rows without what a history that folds has taken from them, and what it holds now."""
    if not isinstance(history, Folding):
        return rows, held
    kept, collected = rows.kept
    taken = int(np.sum(rows.taken))
    own = jax.tree.map(lambda x: np.asarray(x)[:taken].copy(), kept)  # what looks at a part of a block holds all of it
    return rows._replace(kept=((), collected)), history.fold(held, own)


def _some(stage, path, key, state, num, *, keep, length, particles: int, placement):
    state, rows = some(stage, path, keep, key, state, num, length=length)
    return spread.spread(placement, state, particles), rows


def _last(wholes, key, particles: int):
    num = particles * len(wholes)
    return compiled(partial(joined, num=num), ("smc", "joined", num), wholes, key)


def _history(method: Method, path: Path, history: History | None) -> History:
    if method.history is None:
        return (Paths() if isinstance(path, Growing) else Last()) if history is None else history
    if history is not None:
        raise ValueError(
            f"smc: this method keeps what its posterior is made of itself, in {method.history}: leave out history."
        )
    return method.history


def _kept(history: History, collect):
    def keep(population):
        return history.keep(population), () if collect is None else collect(population)

    return keep


def _length(path: Path, row: Row) -> int:
    """How many rows a compiled call may fill."""
    numbers = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(row))
    most = MANY_STAGES if path.length is None else max(1, path.length - 1)
    return max(1, min(most, ROWS // numbers))


def _route(path: Path) -> Route:
    if path.length is not None:
        yield Goal(path.length - 1, path.length - 1)
        return None
    goal, ended = 16, jax.jit(lambda state: ~goes_on(path, state))
    while True:
        outcome: Outcome = yield Goal(goal, 2 * goal)
        if all(bool(ended(state)) for state in outcome.states):
            return "ended"
        goal *= 2


def _all(first: Row, parts: list[Row]) -> Row:
    """All rows of an island, NumPy arrays leading with (stage,). `first` leads so, `parts` with (1, stage)."""
    rows = jax.tree.map(lambda *xs: np.concatenate([xs[0], *(x[0] for x in xs[1:])]), first, *parts)
    return jax.tree.map(lambda x: x[rows.taken], rows)


def _meter(progress, particles: int, islands: int, path: Path) -> Progress:
    if progress is not True:
        return progress or Silent()
    what = f"{particles} particles" + (f" in each of {islands} islands" if islands > 1 else "")
    return Meter(what, count=lambda record, first: {"stages": int(np.sum(record.taken))})


# -- what cannot go on -----------------------------------------------------------------------------------------------------


def _check(method, key, particles, islands, history, store) -> None:
    if not isinstance(method, Method):
        raise ValueError(f"smc: expected a method such as tempering() as second argument, got {type(method).__name__}.")
    for name, value, least in (("particles", particles, 2), ("islands", islands, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"smc: {name} must be a whole number of at least {least}, got {value!r}.")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError("smc: key must be one typed key, for example jax.random.key(0).")
    if store is not None and isinstance(history, Folding):
        raise ValueError(
            f"smc: {history} is held in memory alone, so the run cannot be kept in a store. Leave one of them out."
        )
    if not (store is None or isinstance(store, Store)):
        raise ValueError(f'smc: store must be a Store, for example Store("runs/nile"), got {type(store).__name__}.')


def _refuse_size(kept, path: Path, islands: int, history: History) -> None:
    size = sum(x.dtype.itemsize * int(np.prod(x.shape)) for x in jax.tree.leaves(kept))
    if path.length is not None and size * path.length * islands > KEPT and isinstance(history, Paths):
        raise ValueError(
            f"smc: to keep what every particle chose at all {path.length} steps takes "
            f"{size * path.length * islands / 2**30:.1f} GiB. Keep what has descendants, history=AncestorTree(), or the last "
            "step, history=Last()."
        )


def _refuse_death(state: State, path: Path, rows: Row | None) -> None:
    """Say where all weights became zero."""
    population = state.population
    if np.isfinite(population.log_evidence):
        return
    num = len(population.log_weights)
    bad = 0 if rows is None or "num_nonfinite" not in rows.info else int(rows.info["num_nonfinite"][-1])
    not_numbers = f" ({bad} of them were NaN or infinite)" if bad else ""
    raise ValueError(
        f"smc: at {path.told(population.level)} all {num} particles have weight zero{not_numbers}, so nothing is left to go "
        "on with. The data there are impossible under every particle: look at the model's supports and scales, take more "
        "particles, or propose nearer to the data."
    )


def _refuse_end(outcome: Outcome, path: Path, rows: list[Row], kept: bool) -> None:
    for state, own in zip(outcome.states, rows, strict=True):
        _refuse_death(state, path, own)
        if bool(path.ended(state.population.level)):
            continue
        if outcome.reason == "interrupted":
            raise KeyboardInterrupt
        after = (
            "The store keeps what was done: run the same line again to continue." if kept else "Allow more, or give a store."
        )
        raise ValueError(f"smc: the budget was spent at {path.told(state.population.level)}, before the end. {after}")
