"""Simulation-based calibration: does the sampler draw from the posterior of the model that was written?

Parameters are drawn from the prior and data from the model; the posterior of those data is then sampled. If all is right,
the rank of the true parameter among the draws is uniform, whatever the model (Talts et al., arXiv:1804.06788). The log
density is ranked too: it depends on the data, and sees errors that the parameters' own ranks cannot (Modrak et al.,
Bayesian Analysis 2023).

```python
result = sbc(program, key=key, replications=200)      # program: conditioned; its data only say which sites are data
assert result.passed(), result
```
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import ppl
from ppl.choices import flatten

from ..mcmc.nuts import NUTS
from ..mcmc.sample import mcmc
from .verdict import Verdict


def sbc(
    program: Any,
    *,
    key: jax.Array,
    kernel: Any = None,
    replications: int = 200,
    ranks: int = 20,
    thin: int = 10,
    warmup: int = 300,
    target: Callable = ppl.as_target,
) -> Verdict:
    """Calibrate `kernel` (default: `NUTS()`) on `program`.

    - `program`: conditioned; the values of its data are not used, only which sites are data.
    - `replications`: simulated data sets; each is sampled with one chain of `ranks * thin` draws after `warmup`.
    - `ranks`: draws kept, every `thin`-th; so ranks run from 0 to `ranks`. Thin until they are nearly independent.
    - `target`: from a program to the target that is sampled.

    The verdict's `values` are the ranks, from 0 to `ranks`, by scalar.
    """
    kernel = NUTS() if kernel is None else kernel
    free = program.without()
    simulate = jax.jit(lambda key: free.simulate(key).choices)
    addresses = list(program.data)
    found: dict[str, list[int]] = {}
    for i in range(replications):
        key_truth, key_chain = jax.random.split(jax.random.fold_in(key, i))
        choices = flatten(simulate(key_truth))
        data = ppl.choices.nest({name: choices.pop(name) for name in addresses})
        truth = ppl.choices.nest(choices)
        at = target(free | data)
        posterior = mcmc(at, kernel, key=key_chain, chains=1, draws=ranks * thin, warmup=warmup, progress=False, check=False)
        log_density = float(_log_density(at, truth))
        quantities = {name: (posterior[name][0], np.asarray(value)) for name, value in flatten(truth).items()}
        quantities["log_density"] = (posterior.stats["lp"][0], np.asarray(log_density))
        for name, (draws, value) in quantities.items():
            rank = (draws[thin - 1 :: thin] < value).sum(axis=0)
            for index in np.ndindex(value.shape):
                label = f"{name}[{', '.join(map(str, index))}]" if index else name
                found.setdefault(label, []).append(int(rank[index]))
    table = {name: np.array(values) for name, values in found.items()}
    return Verdict({name: uniformity(values, ranks) for name, values in table.items()}, table)


@jax.jit
def _log_density(target, choices):
    return target.log_density(target.unconstrain(choices))


def uniformity(values: np.ndarray, largest: int) -> float:
    """A p-value that `values` are uniform on 0, ..., largest: twice the smaller of a chi-square test's, in bins of at
    least ten expected (any shape), and of a test of their mean (a shift, with more power)."""
    from scipy.stats import chi2, norm

    bins = int(max(2, min(largest + 1, len(values) // 10)))
    edges = np.linspace(0, largest + 1, bins + 1).round().astype(int)
    counts = np.histogram(values, bins=edges - 0.5)[0]
    expected = np.diff(edges) / (largest + 1) * len(values)
    shape = chi2.sf(((counts - expected) ** 2 / expected).sum(), bins - 1)
    error = np.sqrt(((largest + 1) ** 2 - 1) / 12 / len(values))
    shift = 2 * norm.sf(abs(values.mean() - largest / 2) / error)
    return float(min(1.0, 2 * min(shape, shift)))
