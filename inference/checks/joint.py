"""The joint-distribution test: do a program, its target and a kernel agree with one another?

Parameters and data are drawn together from the program. Then, again and again, the kernel moves the parameters given the data,
and the program draws new data given the parameters. Both leave the joint distribution as it is, so what comes out after any
number of rounds is an exact draw from it - unless the density, its Jacobian, or the kernel is wrong (Geweke, JASA 99, 2004).
Geweke ran one long chain; here many short ones run side by side, each from a draw of its own, so that plain tests of
independent samples apply.

```python
verdict = joint(program, inf.NUTS(0.5, inf.metrics.Diagonal(jnp.ones(3)), max_depth=3), key=key)
assert verdict.passed(), verdict
```
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax import lax

import ppl
from ppl.choices import flatten, nest

from ..kernel import CHAINS, Kernel
from .verdict import Verdict


def joint(
    program: Any,
    kernel: Kernel,
    *,
    key: jax.Array,
    replications: int = 10_000,
    rounds: int = 5,
    moves: int = 2,
) -> Verdict:
    """Compare what comes out of rounds of kernel and program with fresh draws of the program.

    - `program`: conditioned; the values of its data are not used, only which sites are data. All priors must be proper.
    - `kernel`: with its settings given, not learned; they need not be good ones. `moves`: how often it moves in a round.
    - `replications`: independent runs, side by side. `rounds`: how often data are drawn anew.

    Raises:
        ValueError: for a kernel that cannot move on the program.

    The p-values are those of Kolmogorov and Smirnov's test of two samples, for every scalar of parameters and data, and for
    products of neighbours, which see how they hang together.
    """
    import scipy.stats

    ks_2samp: Any = scipy.stats.ks_2samp

    kernel.check(ppl.Target(program))
    free, names = program.without(), tuple(program.data)
    key_run, key_fresh = jax.random.split(key)
    run = partial(_run, free, kernel, names=names, replications=replications, moves=moves)
    fresh = _columns(run(key_fresh, rounds=0))
    centre = {name: x.mean() for name, x in fresh.items()}
    found, expected = (_with_products(x, centre) for x in (_columns(run(key_run, rounds=rounds)), fresh))
    return Verdict({name: float(ks_2samp(found[name], x).pvalue) for name, x in expected.items()}, found)


def _run(free, kernel, key, *, names, replications, rounds, moves):
    """All choices by address (replications, ...) after the rounds."""

    def one(key):
        def again(choices, key):
            latent = {name: x for name, x in choices.items() if name not in names}
            target = ppl.Target(free | nest({name: choices[name] for name in names}))
            key_init, key_moves, key_data = jax.random.split(key, 3)
            state = kernel.init(key_init, target, target.unconstrain(nest(latent)))
            # one move more than asked for: the first may only evaluate
            state, _ = lax.scan(
                lambda s, k: (kernel.step(k, s, target)[0], None), state, jax.random.split(key_moves, moves + 1)
            )
            trace, _ = free.generate(key_data, target.constrain(state.position))
            return flatten(trace.choices), None

        key_first, key_rounds = jax.random.split(key)
        choices = flatten(free.simulate(key_first).choices)
        return lax.scan(again, choices, jax.random.split(key_rounds, rounds))[0] if rounds else choices

    # the program is no argument of what is compiled: its arrays may set bounds, which have to be known
    return jax.jit(jax.vmap(one, axis_name=CHAINS))(jax.random.split(key, replications))


def _columns(choices) -> dict[str, np.ndarray]:
    """Every scalar (replications,) by its name."""
    out = {}
    for name, x in choices.items():
        x = np.asarray(x, np.float64)
        for index in np.ndindex(*x.shape[1:]):
            out[f"{name}[{', '.join(map(str, index))}]" if index else name] = x[(slice(None), *index)]
    return out


def _with_products(columns, centre) -> dict[str, np.ndarray]:
    """The columns, and the products of each two neighbours about `centre`."""
    products = {f"{a} * {b}": (columns[a] - centre[a]) * (columns[b] - centre[b]) for a, b in pairwise(columns)}
    return columns | products
