"""Gate: is a surrogate of the likelihood right where the posterior is? In nats, at fresh draws of its own posterior.

    e_i = s(x_i) - L(x_i), less its median,    x_i drawn from prior x exp(s)

An emulator whose curves err by a third of the noise can make a posterior twice too wide: errors of outputs are no measure of
that. What counts is the error e of the log likelihood, up to a constant, at draws that had no part in the fit. It may be the
larger the less likely a point is: the allowance is 0.1 + 0.05 D nats, D how far log likelihood lies below the best. The gate
passes where a conformal bound of |e| / allowance is at most 1, and the standard deviation of e at most 0.3. Of weights it
leaves a share exp(-sd^2), where errors are normal; where they have tails, less: `correct` looks at those.

```python
verdict = accuracy(program, program.intervene({"voltage": emu}), key=key, calls=32)
print(verdict); bool(verdict); verdict.bound                     # of |e|, in nats, that a fresh draw keeps with 95 %
```
The bound: split conformal prediction, Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005. That more is
allowed farther from the best is how OLE, a library of emulators that learn online, judges its own.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

import ppl
from inference.compiled import compiled

from ..conformal import conformal_quantile
from ..powered import Powers, Tempered

LEVEL = 0.95
ALLOWED, SLOPE, SPREAD = 0.1, 0.05, 0.3  # nats; nats for each nat below the best; nats


class Verdict(NamedTuple):
    """What the gate found. True where the surrogate passes.

    - `bound`: of |e| in nats, which a fresh draw of the surrogate's posterior keeps with 95 %; infinite with fewer than 19.
    - `scaled`: the same of |e| / allowance. `sd`: of e. `share`: of an effective sample size that weights would leave.
    - `calls`: true calls that it took. `failed`: of them, how many had no likelihood.
    """

    bound: float
    scaled: float
    sd: float
    share: float
    calls: int
    failed: int

    def __bool__(self) -> bool:
        return self.scaled <= 1.0 and self.sd <= SPREAD

    def __repr__(self) -> str:
        said = "passes" if self else "does not pass"
        failed = f", {self.failed} of which failed" if self.failed else ""
        return (
            f"The surrogate {said}: by {self.calls} true calls at its own posterior{failed}, the error of log likelihood has "
            f"sd {self.sd:.2g} nats (at most {SPREAD:g}), and is below {self.bound:.2g} nats with {LEVEL:.0%}, "
            f"{self.scaled:.2g} of what is allowed; weights would leave {self.share:.0%} of the draws"
        )


def accuracy(program: Any, cheap: Any, *, key: jax.Array, calls: int = 32, powers: Powers = Tempered()) -> Verdict:  # noqa: B008
    """Whether a surrogate of the likelihood is right at `calls` fresh draws of its own posterior.

    - `program`: a conditioned program, or a `ppl.Target`. `cheap`: the same, with an emulator in place of the costly call.
    - `powers`: how the surrogate's posterior is drawn from.

    Raises:
        ValueError: for fewer than 19 calls, with which no bound would hold at 95 %.

    Example:
        `bool(accuracy(program, program.intervene({"voltage": emulator}), key=jax.random.key(1)))`
    """
    if isinstance(calls, bool) or not isinstance(calls, int) or calls < 19:
        raise ValueError(f"accuracy: calls must be a whole number of at least 19, for a bound at 95 %, got {calls!r}.")
    target, surrogate = ppl.as_target(program), ppl.as_target(cheap)
    key_draw, key_pick = jax.random.split(key)
    (drawn,) = powers(key_draw, surrogate, (1.0,))
    slots = jax.random.choice(key_pick, len(drawn.positions), (calls,), replace=False)
    positions = drawn.positions[slots]

    def likelihoods(target, surrogate, positions):
        return [jax.vmap(t.log_prior_and_likelihood)(positions)[1] for t in (target, surrogate)]

    program_of = compiled(likelihoods, ("emulate", "gate"), target, surrogate, positions)
    return judged(*program_of(target, surrogate, positions))


def judged(truth: Any, surrogate: Any) -> Verdict:
    """From log likelihoods (n,) at draws of the surrogate's posterior. What the truth calls impossible errs without bound."""
    truth, surrogate = (np.asarray(x, np.float64) for x in (truth, surrogate))
    alive = np.isfinite(truth) & np.isfinite(surrogate)
    failed = int(np.sum(~alive))
    if not alive.any():
        return Verdict(math.inf, math.inf, math.inf, 0.0, len(truth), failed)
    error = np.where(alive, np.where(alive, surrogate, 0.0) - np.where(alive, truth, 0.0), np.inf)
    error = error - np.median(error[alive])
    below = np.where(alive, np.max(truth[alive]) - np.where(alive, truth, 0.0), 0.0)
    size = np.abs(error)
    sd = float(np.std(error[alive])) if failed == 0 else math.inf
    return Verdict(
        conformal_quantile(size, LEVEL), conformal_quantile(size / (ALLOWED + SLOPE * below), LEVEL), sd,
        math.exp(-min(sd, 30.0) ** 2), len(truth), failed,
    )  # fmt: skip
