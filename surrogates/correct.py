"""Correct: from an approximate posterior to an exact one, by the first way whose own diagnostic says that it worked.

```python
q = net.given(program | data)                            # or a fitted guide: any ppl.Generative over the latent sites
posterior = sur.correct(program | data, q, key=key)
posterior.provenance["rung"], posterior.log_evidence
for tried in posterior.provenance["ladder"]: print(tried)
```
The rungs, in order: importance weights; tempered sequential Monte Carlo that begins at q; Markov chains that begin where that
ended (see `rungs.py`). A good q costs a few thousand densities; a bad one costs more, and the posterior is right all the same.
All start at q with a share of the prior mixed in, which bounds the weights (see `defensive.py`).

A `gate` says whether the data are like those that q was made for. If not, importance weights are not tried, for their k could
be fooled by a q that is confident and elsewhere, and half of what the other rungs begin with is the prior. Weights tell when q
is not the posterior of this program. That the program is not the one that made the data, they do not: only a gate does. (Li,
Vehtari, Bürkner, Radev, Acerbi and Schmitt, "Amortized Bayesian Workflow", arXiv:2409.04332: a ladder without its middle.)
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning

from .defensive import defended, fit_of
from .rungs import Attempt, ByImportance, ByMCMC, ByTempering, Rung, Task

RUNGS = (ByImportance(), ByTempering(), ByMCMC())
DISTRUSTED = 0.5  # the share of the prior, where the gate says no
PROBE = 0xF17  # folded into the key: rungs have the small numbers


def correct(
    program: Any,
    q: ppl.Generative | ppl.Program,
    *,
    key: jax.Array,
    rungs: tuple[Rung, ...] = RUNGS,
    share: float = 0.05,
    gate: Callable[[ppl.Program], Any] | None = None,
) -> inf.Posterior:
    """The exact posterior of `program`, from an approximation q of it.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `q`: a `ppl.Generative` (a trained net given the data, a guide), or a program without data, over the same latent sites.
    - `rungs`: what to try, in order, such as `(ByImportance(2000), ByMCMC())`; rungs of your own may be among them.
    - `share`: of the prior in what the rungs begin with; left out where the prior is improper, or with 0.0.
    - `gate`: a function of the program whose answer is true where its data are like those q was made for, such as
      `lambda program: gate(features(program)) > 0.01`. What the answer prints is kept, so that it may say why not.

    The posterior's `provenance` has, beside what its algorithm writes: `rung`, the name of the one that was used, or None;
    `ladder`, what each rung did: `rung`, `refused` (why it was not used, or None), `evaluations` of the log density (or its
    gradient), and the numbers it was judged by; `defensive`, the share of the prior, and `undefended`, why there is none;
    `gate`, what it said; `q_outside`, the share of draws of q outside the program's supports, and `q_misses`, of the prior's
    where q has no density. Of Markov chains there is no evidence.

    Raises:
        ValueError: where q has other sites, types or supports; where no rung has any draws, as when the data are impossible.
    Warns:
        SamplingWarning: where no rung was satisfied: what the last one has is returned, with `rung` None.

    Example:
        `correct(program | data, inf.guide_for(program | data), key=jax.random.key(0)).provenance["rung"]`
    """
    _check(key, rungs, share, gate)
    target = ppl.as_target(program)
    fit = fit_of("correct", target, q, jax.random.fold_in(key, PROBE))
    said = None if gate is None else gate(target.program)
    trusted = gate is None or bool(said)
    if share == 0.0 and fit.missed > 0.0:
        raise ValueError(
            f"correct: q has no density at {fit.missed:.0%} of the prior's draws, so nothing built on it alone could reach a "
            "posterior there, and share=0.0 leaves the prior out. Give a share such as 0.05, or a q of full support."
        )
    reference, undefended = defended(target, q, share if trusted else max(share, DISTRUSTED))
    made: dict[str, Any] = {
        "defensive": None if undefended else float(reference.share),
        "undefended": undefended,
        "gate": None if gate is None else str(said),
        "q_outside": fit.outside,
        "q_misses": fit.missed,
        "ladder": [],
    }
    found: inf.Posterior | None = None
    for i, rung in enumerate(rungs):
        if rung.trusts and not trusted:
            attempt = Attempt(None, f"the gate says that the data are unlike those q was made for: {said}", 0, {})
        else:
            attempt = rung.attempt(jax.random.fold_in(key, i), Task(target, reference, found))
        found = found if attempt.posterior is None else attempt.posterior
        row = {"rung": type(rung).__name__, "refused": attempt.refused, "evaluations": attempt.evaluations}
        made["ladder"].append(row | attempt.numbers)
        if attempt.refused is None:
            return _told(found, made, type(rung).__name__)
    ladder = " ".join(f"{row['rung']}: {row['refused']}." for row in made["ladder"])
    if found is None:
        raise ValueError(
            f"correct: no rung has any draws. {ladder} Look at the model's supports and scales for these data; if they are "
            "possible, give rungs with more draws."
        )
    warnings.warn(
        f"No rung was satisfied; these are the draws of the last one. {ladder} Give rungs with more draws, or a better q.",
        SamplingWarning,
        stacklevel=2,
    )
    return _told(found, made, None)


def _told(posterior: Any, made: dict[str, Any], rung: str | None) -> inf.Posterior:
    return dataclasses.replace(posterior, provenance=posterior.provenance | made | {"rung": rung})


def _check(key, rungs, share, gate) -> None:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError("correct: key must be one typed key, for example jax.random.key(0).")
    wrong = [rung for rung in rungs if not isinstance(rung, Rung)] if isinstance(rungs, tuple) else [rungs]
    if wrong or not rungs:
        got = "an empty tuple" if not rungs else f"{getattr(wrong[0], '__name__', type(wrong[0]).__name__)}"
        raise ValueError(f"correct: rungs must be a tuple such as (ByImportance(2000), ByMCMC()), got {got}.")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share < 1.0:
        raise ValueError(f"correct: share must be a number from 0 to below 1, got {share!r}.")
    if not (gate is None or callable(gate)):
        raise ValueError(f"correct: gate must be a function of the program, got {type(gate).__name__}.")
