"""diagnose: all checks of an amortised posterior, in one call.

```python
report = sur.diagnose(net.given, program | data, key=key)
print(report)
assert report.passed(), report.findings
```
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

import ppl
from ppl._keys import check_key

from .check import Check
from .classifier import Classifier
from .coverage import Coverage
from .finite import Finite
from .gap import EXACT, Gap
from .random_points import RandomPoints
from .ranks import Ranks
from .report import Report
from .study import Study
from .weights import Weights

CHECKS: tuple[Check, ...] = (Finite(), Ranks(), RandomPoints(), Coverage(), Gap(), Weights(), Classifier())


def diagnose(
    given: Callable[[ppl.Program], Any],
    program: ppl.Program,
    *,
    key: jax.Array,
    simulations: int = 1000,
    draws: int = 100,
    checks: tuple[Check, ...] = CHECKS,
    exact: Callable[[ppl.Program], Any] | None = None,
    floors: Mapping[str, Callable[[ppl.Program], Any]] | None = None,
) -> Report:
    """Can an amortised posterior be trusted, on data that its program makes?

    - `given`: from a conditioned program to its posterior, a `ppl.Generative` or a program over the latent sites: `net.given`,
      a conjugate formula. It is traced by JAX.
    - `program`: with data, whose values do not matter: they say which sites are data.
    - `simulations`: data sets from the program; `draws` of the posterior for each.
    - `checks`: what to look at; see `CHECKS`.
    - `exact`: like `given`: the exact posterior, or a better one, to measure the gap to. `floors`: by name, the best within
      some limits, each within those of the ones before, to split the gap along (see `gap.py`).

    All is judged at a false alarm of one in a thousand for the whole report. More simulations see smaller errors.

    Raises:
        ValueError: for a program without data, or with factors; for a posterior over other sites; for numbers and checks that
            make no sense; for floors without an exact posterior.

    Example:
        `print(diagnose(net.given, program | data, key=jax.random.key(0)))`
    """
    key = check_key(key, "diagnose")
    for name, num, least in (("simulations", simulations, 50), ("draws", draws, 10)):
        if isinstance(num, bool) or not isinstance(num, int) or num < least:
            raise ValueError(f"diagnose: {name} must be a whole number of at least {least}, got {num!r}.")
    wrong = [x for x in checks if not isinstance(x, Check)]
    if wrong or not checks:
        what = repr(wrong[0]) if wrong else "none"
        raise ValueError(f"diagnose: checks must be some such as Ranks(), with the brackets; got {what}.")
    if floors and (exact is None or EXACT in floors):
        what = "an exact posterior, exact=, that they lie below" if exact is None else f"other names than '{EXACT}'"
        raise ValueError(f"diagnose: floors need {what}.")
    others = {} if exact is None else {EXACT: exact, **(floors or {})}
    study = Study.of(given, program, others)
    key_simulate, *keys = jax.random.split(key, 1 + len(checks))
    simulated = study.simulate(key_simulate, simulations, draws)
    outcomes = tuple(check(study, simulated, key) for check, key in zip(checks, keys, strict=True))
    return Report(outcomes, simulated.shape)
