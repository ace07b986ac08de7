"""Which strategy is best at a site? `diagnose_gradients` tries those that its distribution allows, and measures.

```python
report = inf.vi.diagnose_gradients(elbo, program | data, guide(phi), key=key)
print(report)                                  # a table: variance and cost by site and strategy
elbo.using(report.best)
```
The noise that is left after a given time of averaging is the variance of one estimate times what one costs: the product is
what is compared. Sites are tried one at a time, all others are left as they are; what is best for each alone need not be the
best together, so look again after a change.
"""

import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl._keys import check_key

from .expectation import Expectation
from .free import Free, named, with_numbers
from .strategies import DisARM, Enumerate, MeasureValued, Reparameterised, Score, Strategy, default_strategy

CANDIDATES: tuple[Strategy, ...] = (Reparameterised(), Score(), Enumerate(), MeasureValued(), DisARM())


class Tried(NamedTuple):
    """A strategy at a site: `variance` of the gradient estimate, summed over its entries; `seconds` an estimate takes."""

    site: str
    strategy: Strategy | None
    variance: float
    seconds: float

    @property
    def product(self) -> float:
        """Variance times cost: the smaller the better."""
        return self.variance * self.seconds


class Gradients(NamedTuple):
    """What `diagnose_gradients` found. `now`: of the objective as it is; `tried`: of every strategy at every site."""

    now: Tried
    tried: tuple[Tried, ...]

    @property
    def best(self) -> dict[str, Strategy]:
        """Of each site the unbiased strategy with the smallest variance x cost; for `objective.using(...)`."""
        out: dict[str, Tried] = {}
        for row in self.tried:
            fair = row.strategy is not None and not row.strategy.biased and np.isfinite(row.product)
            if fair and (row.site not in out or row.product < out[row.site].product):
                out[row.site] = row
        return {site: row.strategy for site, row in out.items() if row.strategy is not None}

    def __str__(self) -> str:
        best = self.best
        lines = [("site", "strategy", "variance", "time", "product", "")]
        for row in (self.now, *self.tried):
            words = "as it is" if row.strategy is None else type(row.strategy).__name__
            note = "best" if row.strategy is not None and best.get(row.site) is row.strategy else ""
            note = "biased" if row.strategy is not None and row.strategy.biased else note
            lines.append((row.site, words, f"{row.variance:.3g}", f"{1e6 * row.seconds:.3g} us", f"{row.product:.3g}", note))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join("  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def diagnose_gradients(
    objective: Expectation,
    *args: Any,
    key: jax.Array,
    samples: int = 500,
    free: str | Sequence[str] | None = None,
    strategies: Sequence[Strategy] = CANDIDATES,
) -> Gradients:
    """Variance and cost of the gradient of an objective, under each strategy that a site's distribution allows.

    - `objective`: an `@expectation`; `args`: its arguments.
    - `samples`: gradients that a variance is computed from; its relative error is about sqrt(2 / samples) where they are
      normal, more where some are large.
    - `free`: names of the arguments the gradient is by, as the objective's function calls them; by default `"guide"` where it
      has one, else all. In them the floating-point arrays count, but neither a program's data nor what is in a `Fixed`.
    - `strategies`: to be tried: by default all that need no settings. What a site does not allow is left out.

    Each of them is compiled, and the gradients are computed one after the other, so the time is that of a single estimate.

    Raises:
        ValueError: for an objective without sites, a name that is no argument, or where there is no number to differentiate.

    Example:
        `print(inf.vi.diagnose_gradients(elbo, program | data, guide(phi), key=key))`
    """
    key = check_key(key, "diagnose_gradients")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ValueError(f"diagnose_gradients: samples must be a whole number of at least 2, got {samples!r}.")
    who = "diagnose_gradients"
    given = named(who, objective, args)
    chosen = Free(who, given, with_numbers(given) if free is None and "guide" not in given else free)
    numbers = chosen.take(given)

    def put(numbers):
        return chosen.put(given, numbers).values()

    sites = _sites(objective, key, args)
    if not sites:
        raise ValueError(f"diagnose_gradients: {objective.__name__} draws nothing, so that its gradient has no variance.")
    now = Tried("(all)", None, *_measure(objective, key, numbers, put, samples))
    tried = []
    for site in sites:
        for strategy in strategies:
            changed = _instead(objective, sites, site, strategy)
            try:
                jax.eval_shape(lambda k, e=changed: e.estimate(k, *args), key)
            except ValueError:
                continue  # not for this distribution; or too many joint values
            tried.append(Tried(site, strategy, *_measure(changed, key, numbers, put, samples)))
    return Gradients(now, tuple(tried))


class _Look(Strategy):
    """The default, with the address of every site written down; of expectations that are called, too."""

    found: ClassVar[list[str]]

    def check(self, address, d):
        if address not in self.found:
            self.found.append(address)

    def choose(self, d, key):
        return default_strategy(d).choose(d, key)


def _sites(objective: Expectation, key, args: tuple) -> list[str]:
    """The addresses of all sites, in order of execution."""

    class Look(_Look):
        found: ClassVar[list[str]] = []

    jax.eval_shape(lambda k: objective.estimate(k, *args), key)  # what is wrong with it is said before anything else
    try:
        jax.eval_shape(lambda k: Expectation(objective.fn, {"*": Look()}).estimate(k, *args), key)
    except ValueError:  # "*" fits no site
        if Look.found:
            raise
    return Look.found


def _instead(objective: Expectation, sites: list[str], site: str, strategy: Strategy) -> Expectation:
    """The objective with another strategy at a site, and without the patterns that then fit no site."""
    others = [next((p for p in objective.patterns if fnmatchcase(other, p)), None) for other in sites if other != site]
    kept = {p: s for p, s in objective.patterns.items() if p in others}
    return Expectation(objective.fn, {site: strategy, **kept})


def _measure(objective: Expectation, key, numbers: tuple, put, samples: int) -> tuple[float, float]:
    """The variance of the gradient, summed over its entries, and the seconds that one takes."""

    def one(numbers, key):
        gradient = jax.grad(lambda numbers: objective.estimate(key, *put(numbers)))(numbers)
        return jnp.concatenate([jnp.ravel(g) for g in gradient])

    keys = jax.random.split(key, samples)
    every = jax.jit(lambda numbers: jax.lax.map(lambda k: one(numbers, k), keys))
    gradients = np.asarray(every(numbers), float)  # compiles
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(every(numbers))
        took.append(time.perf_counter() - begin)
    return float(gradients.var(0, ddof=1).sum()), min(took) / samples
