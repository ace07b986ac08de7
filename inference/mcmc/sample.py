"""`mcmc`: from a program (or a target) and a kernel to a `Posterior`.

```python
posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

import dataclasses
import time
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl

from ..compiled import compiled
from ..diagnostics import SamplingWarning
from ..findings import AFTER_A_RUN, findings
from ..kernel import CHAINS, UNEVALUATED, Kernel
from ..placement import Placement, default_placement
from ..posterior import Posterior
from ..progress import Meter, Progress, Silent
from ..run import Outcome, run, seconds
from ..store import Store
from .adaptation.warmup import Adapted, adapted, open_to_learning
from .chain import buffer_length, chunk
from .combine import Combination, Mixture
from .identity import opened
from .initial import Initial, Uniform

ATTEMPTS = 100  # first positions tried per chain


def mcmc(
    program: Any,
    kernel: Kernel,
    *,
    key: jax.Array,
    chains: int = 4,
    draws: int = 1000,
    warmup: int = 1000,
    init: Initial | None = None,
    placement: Placement | None = None,
    progress: bool | Progress = True,
    budget: float | str | None = None,
    store: Store | None = None,
    keep_warmup: bool = False,
    check: bool = True,
) -> Posterior:
    """Draw from the posterior of `program` with Markov chains.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `kernel`: how to move, for example `NUTS()`; step size and metric that it leaves open are learned in warm-up.
    - `key`: a typed key. The same key gives the same draws on every placement, up to rounding.
    - `chains`, `draws` per chain, `warmup` steps per chain.
    - `init`: where chains begin; `Uniform(radius=2.0)` on the unconstrained scale.
    - `placement`: `Threads()` (default on CPUs) or `Vectorized()` (default on accelerators).
    - `progress`: True, False, or an object with begin, update and end (see `inference.progress`).
    - `budget`: seconds of sampling, or text such as "60s": stop then, and return what is done.
    - `store`: a `Store("directory")` that keeps the run: the same line again continues it, with more `draws` extends it.
    - `keep_warmup`: keep the warm-up's draws too; its statistics are always kept.
    - `check`: False looks at no diagnostics and warns of nothing.

    Ctrl-C stops the run and returns the draws made so far, with a warning.

    Raises:
        ValueError: for zero chains or draws, a discrete latent site, a first position that cannot be found, a store that
            holds another run, ...
    Warns:
        SamplingWarning: when the run stopped early, or the draws should not be trusted.
    """
    limit = seconds(budget)
    began = time.monotonic()
    target = ppl.as_target(program)
    placement = _check(target, kernel, key, chains, draws, warmup, store, placement)
    kernel = _ready(kernel, warmup)
    init = Uniform() if init is None else init

    lanes = [np.array(lane, np.int32) for lane in placement.lanes(chains)]
    length = buffer_length(target.dim)
    with opened(store, kernel, target, init, placement, key, lanes, warmup, draws) as kept:
        begin, advance, record = _programs(kernel, target, init, placement, key, lanes[0], length)
        advance.wait()
        compile_seconds = time.monotonic() - began

        def step(lane: int, state, start, num):
            return advance(kernel, target, state, key, lanes[lane], start, num)

        def first(lane: int):
            def evaluated(attempt: int):
                return step(lane, begin(kernel, target, init, key, lanes[lane], _int(attempt)), _int(0), _int(1))

            return _first(target, lanes[lane], evaluated)

        states = None if kept is None else kept.states()
        outcome = run(
            step,
            [first(lane) for lane in range(len(lanes))] if states is None else states,
            warmup + draws,
            start=1,  # step 0 evaluated the first position
            most=length,
            workers=placement.workers(),
            progress=_progress(progress, chains),
            budget=limit,
            done=None if kept is None else kept.done,
            keeper=kept,
        )
        if kept is not None:
            outcome = kept.whole(outcome)
    positions, info = _join(outcome, warmup, draws)
    posterior = Posterior(
        draws=_named(record, target, positions[:, warmup:], length),
        stats={name: x[:, warmup:] for name, x in info.items()},
        warmup_stats={name: x[:, :warmup] for name, x in info.items()} if warmup else {},
        warmup_draws=_named(record, target, positions[:, :warmup], length) if keep_warmup and warmup else {},
        provenance=_provenance(key, kernel, placement, chains, draws, warmup, info, outcome, compile_seconds),
        program=getattr(target, "program", None),
    )
    if check:
        _warn(posterior, outcome, draws, store)
    return posterior


# -- at the door ---------------------------------------------------------------------------------------------------------


def _check(target, kernel, key, chains, draws, warmup, store, placement) -> Placement:
    if isinstance(kernel, type) and issubclass(kernel, Kernel):
        raise ValueError(f"mcmc: the kernel is the class {kernel.__name__}; make one: {kernel.__name__}().")
    if not isinstance(kernel, Kernel):
        raise ValueError(f"mcmc: expected a kernel such as NUTS() as second argument, got {type(kernel).__name__}.")
    for name, value, least in (("chains", chains, 1), ("draws", draws, 1), ("warmup", warmup, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"mcmc: {name} must be a whole number of at least {least}, got {value!r}.")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError("mcmc: key must be one typed key, for example jax.random.key(0).")
    if not (store is None or isinstance(store, Store)):
        raise ValueError(f'mcmc: store must be a Store, for example Store("runs/schools"), got {type(store).__name__}.')
    if warmup == 0 and _open(kernel):
        name, settings = _first_open(kernel)
        given = ", ".join(f"{setting}=..." for setting in settings)
        raise ValueError(
            f"mcmc: warmup=0 leaves the {' and '.join(settings).replace('_', ' ')} of {name} unlearned; give them, "
            f"{name}({given}), or allow a warm-up."
        )
    kernel.check(target)
    placement = default_placement(kernel) if placement is None else placement
    if kernel.together and not placement.together:
        raise ValueError(
            f"mcmc: {type(kernel).__name__} looks at all chains at once, and {placement!r} runs each by itself. Leave the "
            "placement out, or give Vectorized()."
        )
    return placement


def _open(kernel) -> bool:
    """Whether the kernel leaves settings to be learned."""
    if isinstance(kernel, Combination):
        return any(_open(member) for member in kernel.kernels)
    return isinstance(kernel, Adapted) or bool(open_to_learning(kernel))


def _first_open(kernel) -> tuple[str, tuple[str, ...]]:
    """The name of the first kernel inside that leaves settings to be learned, and those settings."""
    if isinstance(kernel, Combination):
        return _first_open(next(member for member in kernel.kernels if _open(member)))
    inner = getattr(kernel, "kernel", kernel)
    return type(inner).__name__, open_to_learning(inner)


def _ready(kernel: Kernel, warmup: int) -> Kernel:
    """The kernel that runs: wrapped if it has something to learn, its numbers as arrays (changing one compiles nothing)."""
    if isinstance(kernel, Combination):
        kernel = dataclasses.replace(kernel, kernels=tuple(_ready(member, warmup) for member in kernel.kernels))
    elif _open(kernel) and not isinstance(kernel, Adapted):
        kernel = adapted(kernel)
    if isinstance(kernel, Adapted | Mixture):
        kernel = kernel.with_warmup(warmup)
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, kernel)


def _progress(progress, chains: int) -> Progress:
    if progress is True:
        return Meter(f"{chains} chains", count=_divergences)
    return Silent() if progress is False or progress is None else progress


def _divergences(record) -> dict[str, int]:
    _, info = record
    return {"divergences": int(np.sum(info.diverging))} if hasattr(info, "diverging") else {}


# -- compiled programs ---------------------------------------------------------------------------------------------------


def _programs(kernel, target, init, placement, key, lane, length):
    """Three compiled programs: begin a lane, advance a lane, turn positions into named draws."""

    def begin(kernel, target, init, key, lane, attempt):
        def one(chain):
            chain_key = jax.random.fold_in(jax.random.fold_in(key, chain), -1 - attempt)  # steps count from 0 upward
            return kernel.init(chain_key, target, init.position(chain_key, target))

        return jax.vmap(one, axis_name=CHAINS)(lane)

    def advance(kernel, target, state, key, chain, start, num):
        return chunk(kernel, target, state, key, chain, start, num, length=length)

    def record(target, positions):
        return jax.vmap(target.record)(positions)

    zero = _int(0)
    state = jax.eval_shape(begin, kernel, target, init, key, lane, zero)
    rows = jax.ShapeDtypeStruct((length, target.dim), state.position.dtype)
    name = ("mcmc", "advance", placement, length)
    longest = compiled(placement.program(advance), name, kernel, target, state, key, lane, zero, zero)
    return (
        compiled(begin, ("mcmc", "begin"), kernel, target, init, key, lane, zero),
        longest,
        compiled(record, ("mcmc", "record"), target, rows),
    )


def _first(target, lane, evaluated):
    """The lane's state at first positions of finite density: evaluated, and drawn anew where it is not finite."""
    state, (positions, info) = evaluated(0)
    for attempt in range(1, ATTEMPTS + 1):
        found = np.asarray(info.lp[:, 0]) > 0.5 * UNEVALUATED
        if found.all():
            return state
        if attempt < ATTEMPTS:
            keep = (state, (positions, info))
            state, (positions, info) = jax.tree.map(partial(_pick, found), keep, evaluated(attempt))
    bad = int(np.argmin(found))
    raise ValueError(
        f"mcmc: no first position found for chain {lane[bad]} in {ATTEMPTS} tries: {target.explain(positions[bad, 0])}. "
        "Check the model there, or say where to begin: init=At({...})."
    )


def _pick(found, old, new):
    """Row by row: `old` where it was found, `new` elsewhere."""
    return np.where(found.reshape(-1, *[1] * (np.ndim(old) - 1)), old, new)


# -- what comes back -----------------------------------------------------------------------------------------------------


def _join(outcome: Outcome, warmup: int, draws: int):
    """Positions (chain, step, dim) and statistics by name (chain, step), cut to what every chain has and what was asked."""
    done = min(*outcome.done, warmup + draws)
    if done <= warmup:
        raise (
            KeyboardInterrupt
            if outcome.reason == "interrupted"
            else ValueError(
                f"mcmc: the budget was spent after {done} of {warmup} warm-up steps, before the first draw. Allow more."
            )
        )
    lanes = [jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, :done], *parts) for parts in outcome.records]
    positions, info = jax.tree.map(lambda *parts: np.concatenate(parts, axis=0), *lanes)
    return positions, info._asdict()


def _named(record, target, positions, length: int) -> dict[str, Any]:
    """Named draws (chain, draw, ...) of positions (chain, draw, dim), in blocks of the compiled length."""
    chains, draws, dim = positions.shape
    rows = positions.reshape(chains * draws, dim)
    blocks = []
    for start in range(0, len(rows), length):
        block = rows[start : start + length]
        padded = np.concatenate([block, np.repeat(block[-1:], length - len(block), axis=0)])
        blocks.append(jax.tree.map(np.asarray, record(target, padded)))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *blocks)
    return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), joined)


def _provenance(key, kernel, placement, chains, draws, warmup, info, outcome, compile_seconds) -> dict[str, Any]:
    try:
        ours = version("evidentia")
    except PackageNotFoundError:
        ours = "not installed"
    return {
        "algorithm": "mcmc",
        "kernel": type(getattr(kernel, "kernel", kernel)).__name__,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "chains": int(chains),
        "draws": int(draws),
        "warmup": int(warmup),
        "placement": repr(placement),
        "dtype": str(info["lp"].dtype),
        "gradients": int(info["n_steps"].sum()) if "n_steps" in info else None,
        "compile_seconds": compile_seconds,
        "sampling_seconds": outcome.seconds,
        "versions": {"evidentia": ours, "jax": jax.__version__, "numpy": np.__version__},
    }


def _warn(posterior: Posterior, outcome: Outcome, draws: int, store: Store | None) -> None:
    if outcome.reason is not None:
        why = {"interrupted": "Interrupted", "budget": "The budget was spent"}[outcome.reason]
        said = f"{why}: {posterior.shape[1]} of {draws} draws per chain were made."
        said += "" if store is None else " Run the same line again to continue."
        warnings.warn(said, SamplingWarning, stacklevel=3)
    for finding in findings(posterior, AFTER_A_RUN):
        warnings.warn(str(finding), SamplingWarning, stacklevel=3)


def _int(n: int):
    return np.int32(n)
