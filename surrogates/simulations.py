"""Simulations: a program that is run a stated number of times, and no more. Networks learn from the cases that it made.

```python
table = Simulations.of(Cases.of(simulator() | data), 10_000, key=key)     # all that is ever simulated
net, fit, scores = settled(log_score, table, net, key=key)                # until what was held out says that it is enough
```
Where a draw costs nothing, train on fresh ones: they cannot be learned by heart. Where it does, cases are drawn from the
table, with replacement, and a network begins to know them. So a share of them is held out, and only scored:

    mean over held-out cases of log q(answer | what is told)

is an estimate, without bias, of what training climbs. Training goes in rounds, in each of which the learning rate rises and
falls to zero, and ends when a round made that score no better. (Rounds: Loshchilov and Hutter, "SGDR", ICLR 2017. A held-out
tenth: Greenberg, Nonnenmacher and Macke, ICML 2019, and the `sbi` package.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import inference as inf
import ppl
from ppl import dist

from .cases import Source
from .heads.head import count
from .training import trained

LEAST = 20  # cases held out, and cases trained on


class Simulations(Source):
    """A table of cases as a source: a case is one of its rows, each with the same chance.

    - `program`: what they were drawn from. `cases`: leaves (num, ...).
    """

    program: ppl.Program
    cases: dict[str, Any]

    @staticmethod
    def of(source: Source, num: int, *, key: Array) -> "Simulations":
        """`num` cases of a source, drawn now.

        Raises:
            ValueError: for a number that is not whole and positive.

        Example:
            `Simulations.of(Cases.of(simulator() | {"x": x}), 10_000, key=jax.random.key(0)).num`
        """
        count("Simulations.of", "num", num)
        return Simulations(source.program, source.looked_at(key, num))

    @property
    def num(self) -> int:
        """How many cases there are."""
        return len(jax.tree.leaves(self.cases)[0])

    def drawn(self):
        row: Any = ppl.sample("row", dist.DiscreteUniform(0, self.num - 1))
        return jax.tree.map(lambda x: jnp.asarray(x)[row], self.cases), -jnp.log(float(self.num))

    def rows(self, which: Any) -> "Simulations":
        """Those `which`, an index or a slice, as a source of their own."""
        return Simulations(self.program, jax.tree.map(lambda x: x[which], self.cases))

    def score(self, objective: inf.vi.Expectation, net: Any) -> float:
        """The mean of an `@expectation` of (source, net) over all cases, each once; nothing random in it."""
        each = jax.tree.map(lambda x: jnp.asarray(x)[:, None], self.cases)  # sources of a single case
        return float(np.mean(_scores(objective, Simulations(self.program, each), net)))


def settled(
    objective: inf.vi.Expectation,
    simulations: Simulations,
    net: Any,
    *,
    key: Array,
    held: float = 0.1,
    steps: int = 1000,
    most: int = 20,
    **training: Any,
) -> tuple[Any, inf.optimise.Fit, np.ndarray]:
    """The network of the round after which held-out cases scored best; that round's fit; the scores after every round, the
    first before any.

    - `objective`: an `@expectation` of (source, net). `held`: the share of the cases that is held out.
    - `steps`: of a round. `most`: rounds, at the most. `training`: as of `surrogates.training.trained`.

    Raises:
        ValueError: for a share that leaves too few cases on either side; if not even the first round was of use.

    Example:
        `settled(log_score, Simulations.of(cases, 10_000, key=one), net, key=two, batch=128)[2]`
    """
    aside = round(held * simulations.num) if 0.0 < held < 1.0 else 0
    if min(aside, simulations.num - aside) < LEAST:
        raise ValueError(
            f"settled: held={held!r} of {simulations.num} cases must leave at least {LEAST} to be scored, and as many to "
            "train on. Give a share such as 0.1, or more simulations."
        )
    apart, shown = simulations.rows(slice(aside)), simulations.rows(slice(aside, None))
    scores, best = [apart.score(objective, net)], None
    for i in range(most):
        net, fit = trained(objective, shown, net, key=jax.random.fold_in(key, i), steps=steps, **training)
        scores.append(apart.score(objective, net))
        if not scores[-1] > max(scores[:-1]):
            break
        best = net, fit
    if best is None:
        raise ValueError(
            f"settled: a round of {steps} steps took the score of {aside} held-out cases from {scores[0]:.3g} to "
            f"{scores[-1]:.3g}. Give more cases, fewer steps a round, or a smaller network."
        )
    return *best, np.array(scores)


def _scores(objective, sources: Simulations, net: Any) -> Array:
    key = jax.random.key(0)  # each source has one row to draw
    return jax.jit(jax.vmap(lambda source: objective.estimate(key, source, net)))(sources)
