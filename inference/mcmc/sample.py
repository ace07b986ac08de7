"""`mcmc`: from a program (or a target) and a kernel to a `Posterior`.

```python
posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

import ppl

from ..findings import array_stats
from ..kernel import Kernel
from ..placement import Placement
from ..posterior import Posterior
from ..progress import Meter, Progress, Silent
from ..run import run, seconds
from ..stopping import Rule
from ..store import Store
from .adaptation.stable import UntilStable
from .door import begin, place, ready
from .door import check as checked
from .identity import opened
from .initial import Initial
from .minibatch import Minibatches
from .plan import Plan
from .programs import Lanes, programs
from .result import provenance, warn


def mcmc(
    program: Any,
    kernel: Kernel,
    *,
    key: jax.Array,
    chains: int = 4,
    draws: int = 1000,
    warmup: int | UntilStable = UntilStable(),  # noqa: B008
    init: Initial | None = None,
    placement: Placement | None = None,
    progress: bool | Progress = True,
    budget: float | str | None = None,
    until: Rule | None = None,
    store: Store | None = None,
    keep_warmup: bool = False,
    check: bool = True,
) -> Posterior:
    """Draw from the posterior of `program` with Markov chains.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `kernel`: how to move, for example `NUTS()`; step size and metric that it leaves open are learned in warm-up.
    - `key`: a typed key. The same key gives the same draws on every placement, up to rounding.
    - `chains`, `draws` per chain.
    - `warmup`: steps per chain. By default `UntilStable()`: at most 1000, fewer where the chains agree earlier.
    - `init`: where chains begin: by default `Pathfinder()`, for kernels without gradients `Uniform()`, for many chains
      `Superchains()`; `At({...})` says it by value.
    - `placement`: `Threads()` (default on CPUs), `Vectorized()` (default on accelerators, and where a `ppl.call` runs on the
      host) or `Sharded()` (several devices).
    - `progress`: True, False, or an object with begin, update, change and end (see `inference.progress`).
    - `budget`: seconds of sampling, or text such as "60s": stop then, and return what is done.
    - `until`: a rule that stops the run when its draws are good enough, for example `TargetESS(1000)`; `draws` is then the
      most that are made. Why a run stopped is `posterior.provenance["stopped"]`.
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
    limit, began = seconds(budget), time.monotonic()
    target = program if isinstance(program, Minibatches) else ppl.as_target(program)
    checked(kernel, key, chains, draws, warmup, store, until)
    kernel.check(target)
    most = warmup.most if isinstance(warmup, UntilStable) else warmup
    placement = place(kernel, placement, target)
    kernel = ready(kernel, most)
    init = begin(kernel, target, chains, init)
    numbers = [np.array(lane, np.int32) for lane in placement.lanes(chains)]
    with opened(store, kernel, target, init, placement, key, numbers, warmup, most, draws) as kept:
        made = programs(kernel, target, init, placement, key, numbers[0])
        lanes = Lanes(made, kernel, target, init, key, numbers, most)
        plan = Plan(lanes, warmup, draws, until, placement, kept, keep_warmup)
        array_stats()  # to be imported while the compiler works
        made.advance.wait()
        compile_seconds = time.monotonic() - began
        saved = None if kept is None else kept.states()
        states, spent = lanes.first() if saved is None else (saved, (None, None))
        outcome = run(
            plan.step,
            states,
            plan.route(),
            start=1,  # step 0 evaluated the first position
            most=made.length,
            workers=placement.workers(),
            pace=made.pace,
            progress=_progress(progress, chains, plan),
            budget=limit,
            done=kept and kept.done,
            keeper=kept,
        )
        posterior = plan.posterior(outcome)
    posterior = dataclasses.replace(posterior, provenance=provenance(
        posterior, key=key, kernel=kernel, init=init, placement=placement, draws=draws, warmup=plan.warmup,
        stopped=outcome.reason, seconds=outcome.seconds + (kept.seconds if kept else 0.0), compile_seconds=compile_seconds,
        spent=spent,
    ))  # fmt: skip
    if check:
        warn(posterior, outcome, draws, store)
    return posterior


def _progress(progress, chains: int, plan: Plan) -> Progress:
    if progress is True:
        return Meter(f"{chains} chains", count=lambda record, first: _counts(plan.warmup, record, first))
    return Silent() if progress is False or progress is None else progress


def _counts(warmup: int, record, first: int) -> dict[str, int]:
    """Divergences, after the warm-up and in it; of delayed acceptance, how often the truth was asked."""
    _, info = record
    if hasattr(info, "acceptance_rate_surrogate"):
        return {"true calls": int(info.num_evaluations.sum())}
    if not hasattr(info, "diverging"):
        return {}
    border = max(0, warmup - first)
    return {"divergences": int(info.diverging[:, border:].sum()), "in warm-up": int(info.diverging[:, :border].sum())}
