"""From a finished run of sequential Monte Carlo to a `Posterior`, and what the run has beside it."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.choices import flatten, merge

from ..population import Population
from ..posterior import Posterior
from ..provenance import key_words, versions
from ..resampling import Systematic, logmeanexp
from .history import History, Kept, weighted_quantiles
from .loop import Method, Row, State
from .path import Bridge, Path

SLOTS = 0x5EED  # folded into the key: stages have the small numbers


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Run:
    """What a run was and left: `posterior.run`."""

    method: Method
    path: Path
    history: History
    states: list[State]  # one an island
    rows: list[Row]  # one an island, leading with (stage,)
    wholes: list[Population]  # one an island: what its posterior is made of
    population: Population  # the weighted particles of all islands, each island weighted by its evidence

    @property
    def collected(self):
        """What `collect` returned at each stage: leaves lead with (stage,), or (island, stage)."""
        return _stacked([row.kept[1] for row in self.rows])

    def frozen(self) -> Method:
        """The method with the choices that this run (its first island) made: its evidence estimate is unbiased, but for
        methods that say otherwise (`persistent`).

        `inf.smc(program, posterior.run.frozen(), key=another_key)`
        """
        choices = jax.tree.map(lambda x: jnp.asarray(x[1:]), self.rows[0].choice)
        return dataclasses.replace(self.method, stage=self.method.stage.frozen(choices))

    def filtered(self, site: str, quantiles=(0.05, 0.5, 0.95)) -> np.ndarray:
        """Of a program's loop, run with `history=Paths()`: quantiles of a site given the data up to each step,
        (stage, len(quantiles), ...). Of the first island."""
        kept = self.rows[0].kept[0]
        if not isinstance(kept, Kept):
            raise ValueError("filtered: this run did not keep its earlier stages; run it with history=Paths().")
        flat = flatten(kept.choices)
        if site not in flat:
            raise ValueError(f"filtered: no site '{site}' in the loop; it has {', '.join(flat)}.")
        return np.stack([weighted_quantiles(x, w, quantiles) for x, w in zip(flat[site], kept.log_weights, strict=True)])


def joined(populations: list[Population], key, *, num: int) -> tuple[Population, jax.Array]:
    """The particles of all islands, each island weighted by its evidence; and slots (num,) of draws of equal weight."""
    whole = populations[0] if len(populations) == 1 else _one(populations)
    return whole, Systematic().ancestors(jax.random.fold_in(key, SLOTS), whole.log_weights, num)


def _one(islands: list[Population]) -> Population:
    starts, total = _starts(islands)
    particles = jax.tree.map(lambda *xs: jnp.concatenate(xs), *(p.particles for p in islands))
    # islands count alike, however many particles they have
    log_weights = [p.log_divided + p.log_weights + jnp.log(total / len(islands) / len(p.log_weights)) for p in islands]
    log_weights = jnp.concatenate(log_weights)
    level = logmeanexp(log_weights)
    whole = Population.of(particles, log_weights - level, islands[0].level)._replace(log_divided=level)
    families = jnp.concatenate([p.families + start for start, p in zip(starts, islands, strict=True)])
    shares = jax.nn.softmax(jnp.stack([p.log_evidence for p in islands]))
    variance = jnp.sum(shares**2 * jnp.stack([p.log_evidence_error for p in islands]) ** 2)
    whole = whole._replace(families=families, settled=variance)
    return whole._replace(log_apart=-jnp.log(whole._apart))


def posterior_of(run: Run, slots, program, key, sampling_seconds: float, compile_seconds: float) -> Posterior:
    """Equally weighted draws from the joined population, and where they came from."""
    whole = run.population
    draws = _draws(run, np.asarray(slots))
    program = program if isinstance(program, ppl.Program) else getattr(program, "program", None)
    if program is not None and not isinstance(run.path, Bridge):
        program, draws = (program, with_values(program, draws)) if _are_whole(program, draws) else (None, draws)
    stats = {"slot": np.asarray(slots)}
    if isinstance(run.path, Bridge):
        log_density = jax.jit(jax.vmap(run.path.log_density, in_axes=(0, None)))
        stats["lp"] = np.asarray(log_density(jax.tree.map(lambda x: x[slots], whole.particles), whole.level))
    stages = {name: x if len(run.rows) > 1 else x[0] for name, x in _statistics(run.rows).items()}
    made = {
        "algorithm": "smc",
        "method": repr(run.method.way).split("(")[0],
        "key": key_words(key),
        "particles": len(run.states[0].population.log_weights),
        "islands": len(run.rows),
        "stages": [len(row.taken) for row in run.rows],
        "dtype": str(whole.log_weights.dtype),
        "compile_seconds": compile_seconds,
        "sampling_seconds": sampling_seconds,
        "versions": versions(),
    }
    return Posterior(
        jax.tree.map(lambda x: np.asarray(x)[None], draws),
        {name: x[None] for name, x in stats.items()},
        provenance=made,
        program=program,
        log_evidence=float(whole.log_evidence),
        log_evidence_error=float(whole.log_evidence_error),
        stages=stages,
        run=run,
    )


def _starts(islands: list[Population]) -> tuple[list[int], int]:
    """The slot where each island begins when they are joined, and their number of particles."""
    *starts, total = itertools.accumulate((len(p.log_weights) for p in islands), initial=0)
    return starts, total


def _draws(run: Run, slots) -> dict[str, Any]:
    parts = []
    for start, whole, row in zip(_starts(run.wholes)[0], run.wholes, run.rows, strict=True):
        own = slots[(slots >= start) & (slots < start + len(whole.log_weights))] - start
        parts.append(run.history.draws(run.path, whole, row.kept[0], own))
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *parts)


def _are_whole(program, draws) -> bool:
    """Whether these are all the choices of the program, and not of its last steps alone."""
    latent = {name: row.shape for name, row in program.sites().items() if row.kind == "latent"}
    return {name: x.shape[1:] for name, x in flatten(draws).items()} == latent


def with_values(program, draws) -> dict[str, Any]:
    """The draws with the values of the deterministic sites."""
    deterministic = [name for name, row in program.sites().items() if row.kind == "deterministic"]
    if not deterministic:
        return draws
    values = jax.jit(jax.vmap(lambda program, choices: program.values(choices), (None, 0)))(program, draws)
    return merge(draws, ppl.choices.nest({name: x for name, x in flatten(values).items() if name in deterministic}))


def _statistics(rows: list[Row]) -> dict[str, np.ndarray]:
    """(island, stage), shorter islands filled with NaN or zeros."""
    most = max(len(row.taken) for row in rows)

    def padded(x):
        fill = np.nan if np.issubdtype(x.dtype, np.floating) else 0
        return np.concatenate([x, np.full((most - len(x), *x.shape[1:]), fill, x.dtype)])

    return {name: np.stack([padded(row.info[name]) for row in rows]) for name in rows[0].info}


def _stacked(trees):
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *xs: np.stack(xs), *trees)
