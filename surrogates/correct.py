"""Correct: from an approximate posterior to an exact one, by the first way whose own diagnostic says that it worked.

```python
q = net.given(program | data)                            # or a fitted guide: any ppl.Generative over the latent sites
posterior = sur.correct(program | data, q, key=key)
posterior.provenance["rung"], posterior.log_evidence
for tried in posterior.provenance["ladder"]: print(tried)

cheap = program.intervene({"voltage": emulator})         # or a surrogate of the likelihood: a program with data
posterior = sur.correct(program, cheap, key=key, calls=1000)
print(posterior.ledger)
```
The rungs, in order: importance weights; tempered sequential Monte Carlo that begins at q; Markov chains that begin where that
ended (see `rungs.py`). A good q costs a few thousand densities; a bad one costs more, and the posterior is right all the same.
All start at q with a share of the prior mixed in, which bounds the weights (see `defensive.py`).

A `gate` says whether the data are like those that q was made for. If not, importance weights are not tried, for their k could
be fooled by a q that is confident and elsewhere, and half of what the other rungs begin with is the prior. Weights tell when q
is not the posterior of this program. That the program is not the one that made the data, they do not: only a gate does. (Li,
Vehtari, Bürkner, Radev, Acerbi and Schmitt, "Amortized Bayesian Workflow", arXiv:2409.04332: a ladder without its middle.)

*Surrogates of likelihoods* are known up to a constant, and cannot be drawn from. Their rungs are in `likelihood_rungs.py`: a
pilot finds the power of the surrogate that the truth agrees with, and what is drawn there is weighed, tempered, or walked on.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning
from inference.ledger import Ledger, spent_on
from inference.progress import Meter, Progress, Silent

from .defensive import defended, fit_of
from .likelihood_rungs import ByDelayedAcceptance, ByPower, Pilot, Piloted
from .rungs import Attempt, ByImportance, ByMCMC, ByTempering, Rung, Task

RUNGS = (ByImportance(), ByTempering(), ByMCMC())
LIKELIHOOD_RUNGS = (ByPower(), ByDelayedAcceptance())
DISTRUSTED = 0.5  # the share of the prior, where the gate says no
PROBE = 0xF17  # folded into the key: rungs have the small numbers


def correct(
    program: Any,
    q: ppl.Generative | ppl.Program | ppl.Target,
    *,
    key: jax.Array,
    rungs: tuple[Rung, ...] | None = None,
    share: float = 0.05,
    gate: Callable[[ppl.Program], Any] | None = None,
    calls: int | None = None,
    pilot: Pilot = Pilot(),  # noqa: B008
    progress: bool | Progress = True,
) -> inf.Posterior:
    """The exact posterior of `program`, from an approximation q of it.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `q`: a `ppl.Generative` (a trained net given the data, a guide), or a program without data, over the same latent sites;
      or, for its likelihood, a cheaper program with data, or a target: that is known up to a constant.
    - `rungs`: what to try, in order, such as `(ByImportance(2000), ByMCMC())`; rungs of your own may be among them. By default
      those three; for a likelihood `(ByPower(), ByDelayedAcceptance())`.
    - `share`: of the prior in what the rungs begin with; left out where the prior is improper, or with 0.0.
    - `gate`: a function of the program whose answer is true where its data are like those q was made for, such as
      `lambda program: gate(features(program)) > 0.01`. What the answer prints is kept, so that it may say why not.
    - `calls`: of the true density, at most, in all; `pilot`: how the first of them are used; `progress`: True, False, or an
      object (see `inference.progress`) that is told of true calls used and left. For likelihoods.

    The posterior's `provenance` has, beside what its algorithm writes: `rung`, the name of the one that was used, or None;
    `ladder`, what each rung did: `rung`, `refused` (why it was not used, or None), `evaluations` of the log density (or its
    gradient), and the numbers it was judged by; `ledger`, as values; `gate`, what it said. Of a q that can be drawn:
    `defensive`, the share of the prior, and `undefended`, why there is none; `q_outside`, the share of draws of q outside the
    program's supports, and `q_misses`, of the prior's where q has no density. Of a likelihood: `power`, and `shares`, what the
    pilot found. Of Markov chains there is no evidence.

    Raises:
        ValueError: where q has other sites, types or supports; where no rung has any draws, as when the data are impossible.
    Warns:
        SamplingWarning: where no rung was satisfied: what the last one has is returned, with `rung` None. Where `calls` were
            too few for any of them, that is the surrogate's own answer.

    Example:
        `correct(program | data, inf.guide_for(program | data), key=jax.random.key(0)).provenance["rung"]`
    """
    unnormalised = _is_unnormalised(q)
    rungs = (LIKELIHOOD_RUNGS if unnormalised else RUNGS) if rungs is None else rungs
    _check(key, rungs, share, gate, calls, pilot, unnormalised)
    target = ppl.as_target(program)
    said = None if gate is None else gate(target.program)
    doubt = None if gate is None or bool(said) else f"the gate says that the data are unlike those q was made for: {said}"
    made: dict[str, Any] = {"gate": None if gate is None else str(said), "ladder": []}
    if unnormalised:
        bar = Meter("true calls", now=_left) if progress is True else progress or Silent()
        climb = _on_powers(target, q, key, pilot, calls, doubt, made, bar)
    else:
        climb = _on_draws(target, q, key, share, doubt, made)
    try:
        found, rung = _climbed(key, target, rungs, climb)
    finally:
        climb.bar.end()
    if rung is not None:
        return _told(found, made, rung)
    ladder = " ".join(f"{row['rung']}: {row['refused']}." for row in made["ladder"])
    if found is None and climb.instead is None:
        raise ValueError(
            f"correct: no rung has any draws. {ladder} Look at the model's supports and scales for these data; if they are "
            "possible, give rungs with more draws."
        )
    which = "the draws of the last one" if found is not None else "the surrogate's own draws, which nothing has corrected"
    warnings.warn(
        f"No rung was satisfied; these are {which}. {ladder} Give rungs with more draws, or a better q.",
        SamplingWarning,
        stacklevel=2,
    )
    if found is None:
        assert climb.instead is not None  # or it was raised
        found = climb.instead()
    return _told(found, made, None)


class _Climb(NamedTuple):
    """What the rungs begin with: a reference, why it is not to be trusted, how many calls are left, what is written down of
    all; a posterior for where none of them has one; and who is told of calls."""

    reference: Any
    doubt: str | None
    calls: int | None
    made: dict[str, Any]
    instead: Callable[[], inf.Posterior] | None = None
    bar: Progress = Silent()


def _climbed(key, target: ppl.Target, rungs, climb: _Climb) -> tuple[inf.Posterior | None, Rung | None]:
    """The posterior, and the rung that is satisfied with it."""
    found, left, used = None, climb.calls, climb.made["calls"].get("pilot", 0)
    for i, rung in enumerate(rungs):
        if rung.trusts and climb.doubt is not None:
            attempt = Attempt(None, climb.doubt, 0, {})
        else:
            attempt = rung.attempt(jax.random.fold_in(key, i), Task(target, climb.reference, found, left))
        found = found if attempt.posterior is None else attempt.posterior
        row = {"rung": type(rung).__name__, "refused": attempt.refused, "evaluations": attempt.evaluations}
        climb.made["ladder"].append(row | attempt.numbers)
        purposes = climb.made["calls"]
        purposes[rung.purpose] = purposes.get(rung.purpose, 0) + attempt.evaluations
        before, used = used, used + attempt.evaluations
        left = None if left is None else left - attempt.evaluations
        if left is None:
            climb.bar.change(used)
        climb.bar.update(attempt.evaluations, left, before)
        if left is not None and left < 0:
            raise ValueError(f"correct: {type(rung).__name__} took {-left} more true calls than its task allowed.")
        if attempt.refused is None:
            return found, rung
    return found, None


def _on_draws(target, q, key, share: float, doubt: str | None, made: dict[str, Any]) -> _Climb:
    """Of a q that can be drawn and weighed."""
    fit = fit_of("correct", target, q, jax.random.fold_in(key, PROBE))
    if share == 0.0 and fit.missed > 0.0:
        raise ValueError(
            f"correct: q has no density at {fit.missed:.0%} of the prior's draws, so nothing built on it alone could reach a "
            "posterior there, and share=0.0 leaves the prior out. Give a share such as 0.05, or a q of full support."
        )
    reference, undefended = defended(target, q, share if doubt is None else max(share, DISTRUSTED))
    made |= {
        "defensive": None if undefended else float(reference.share),
        "undefended": undefended,
        "q_outside": fit.outside,
        "q_misses": fit.missed,
        "calls": {},
        "plain": None,
    }
    return _Climb(reference, doubt, None, made)


def _on_powers(target, q, key, pilot: Pilot, calls: int | None, doubt, made: dict[str, Any], bar: Progress) -> _Climb:
    """Of a surrogate of the likelihood."""
    cheap = ppl.as_target(q)
    inf.delayed_acceptance(inf.RandomWalk(), cheap).check(target)  # the same sites, or a sentence
    piloted = pilot(jax.random.fold_in(key, PROBE), target, cheap, calls)
    refused = piloted.refused if piloted.calls else f"{calls} true calls are too few for a pilot"
    shares = dict(zip(map(str, pilot.ladder), map(float, piloted.shares), strict=True))
    design = spent_on(cheap.program)
    whole = piloted.powers[-1]
    made |= {
        "power": piloted.power,
        "shares": shares,
        "calls": ({"design": design} if design else {}) | {"pilot": piloted.calls},
        "plain": whole.evaluations / len(whole.positions),
    }
    made["ladder"].append({"rung": "Pilot", "refused": refused, "evaluations": piloted.calls, "share": piloted.share})
    left = None if calls is None else calls - piloted.calls
    bar.begin(piloted.calls if calls is None else calls, 0)
    bar.update(piloted.calls, left, 0)
    return _Climb(piloted, doubt or refused, left, made, lambda: _of_surrogate(piloted), bar)


def _left(left: int | None) -> dict[str, Any]:
    return {} if left is None else {"left": left}


def _of_surrogate(piloted: Piloted) -> inf.Posterior:
    """The surrogate's own answer."""
    last = piloted.powers[-1]
    draws = jax.jit(jax.vmap(lambda target, x: target.record(x), (None, 0)))(piloted.cheap, last.positions)
    known = (float(last.log_evidence), float(last.log_evidence_error))
    return inf.Posterior(
        jax.tree.map(lambda x: np.asarray(x)[None], draws), {}, {}, {}, {"algorithm": "surrogate"}, None, *known
    )


def _told(posterior: Any, made: dict[str, Any], rung: Rung | None) -> inf.Posterior:
    calls, plain = made.pop("calls"), made.pop("plain")
    last = next((row for row in reversed(made["ladder"]) if "ess" in row), made["ladder"][-1])
    if posterior.provenance.get("algorithm") == "surrogate":
        guarantee = "None: the surrogate's own answer, which the truth has not corrected"
    elif rung is None:
        guarantee = f"None: no rung was satisfied. {last['rung']}: {last['refused']}"
    else:
        told = {"pareto_k": "Pareto k {:.2f}", "rhat": "R-hat {:.3f}", "log_evidence_error": "log evidence to {:.2g}"}
        numbers = ", ".join(text.format(last[name]) for name, text in told.items() if name in last)
        guarantee = f"{rung.guarantee}; {numbers}" if numbers else rung.guarantee
    ess = last.get("ess")
    own = posterior.ledger.plain
    ledger = Ledger(
        {purpose: num for purpose, num in calls.items() if num},
        plain=own if own is not None else None if plain is None or ess is None else round(plain * ess),
        plain_known="what chains asked of the surrogate"
        if own is not None
        else "what as many effective draws of the surrogate took"
        if plain is not None and ess is not None
        else "",
        ess=ess,
        pareto_k=last.get("pareto_k"),
        acceptance=last.get("acceptance"),
        guarantee=guarantee,
    )
    more = made | {"rung": None if rung is None else type(rung).__name__, "ledger": ledger.plainly()}
    return dataclasses.replace(posterior, provenance=posterior.provenance | more)


def _is_unnormalised(q: Any) -> bool:
    """Whether q is a density known up to a constant: a target, or a program with data or factors."""
    if isinstance(q, ppl.Program):
        return any(row.kind in ("observed", "factor") or row.partial for row in q.sites().values())
    return isinstance(q, ppl.Target)


def _check(key, rungs, share, gate, calls, pilot, unnormalised: bool) -> None:
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
    if not isinstance(pilot, Pilot):
        raise ValueError(f"correct: pilot must be a Pilot(...), got {type(pilot).__name__}.")
    if calls is None:
        return
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 0:
        raise ValueError(f"correct: calls must be a whole number of true calls, got {calls!r}.")
    if not unnormalised:
        raise ValueError(
            "correct: calls is a cap for surrogates of a likelihood (q a program with data), and this q can be drawn: say how "
            "much each rung may do, such as rungs=(ByImportance(1000),)."
        )
