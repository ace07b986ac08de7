"""Minibatches: an objective from a few rows of the data at a time, its mean and its gradient's mean those of all rows.

What belongs to rows is a sum over them: data, factors, and latent sites that there is one of for each row. Of B rows out of N
it counts N/B times; what belongs to all, once. So the mean of every sum of log densities is right (Hoffman, Blei, Wang and
Paisley, "Stochastic variational inference", JMLR 14, 2013), and of nothing else: use `elbo` or `stl`. Where all latent sites
are those of some row, `by_row` takes any objective (an autoencoder; Kingma and Welling, ICLR 2014, arXiv:1312.6114).

```python
batched = minibatch(elbo, size=64)          # of (model, guide, rows); model and guide may be functions of rows
inf.maximize(batched, lambda x, y: regression(x) | {"y": y}, guide(phi), (x, y), key=key)
inf.maximize(by_row(iwelbo(5), size=64), decode, jax.tree_util.Partial(encode, phi), (images,), key=key)
```
In an objective of your own `subsample` draws rows, and `scaled` makes the sites of rows count more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from ppl._errors import nearest
from ppl.choices import flatten
from ppl.interpreters import Assess
from ppl.site import SiteInfo

from ...mcmc.minibatch import num_rows
from ..expectation import Expectation
from ..strategies import Strategy
from .watch import playing


def minibatch(objective: Expectation, *, size: int) -> Expectation:
    """The `objective`, of (model, guide), as one of (model, guide, rows) that looks at `size` rows at a time.

    - `model`, `guide`: programs; or functions from rows to programs, `model(x, y)`, that depend on rows.
    - `rows`: a tuple of arrays (N, ...). A row more, `jnp.arange(N)`, tells a guide with parameters for each row which it has.

    Latent sites belong to the rows where their shape depends on how many there are; data and factors of a function of rows
    always do. With `size` = N it is the objective itself.

    Raises:
        ValueError: when estimated, for rows of different lengths, or fewer than `size`; for an objective that is no sum of log
            densities, such as `iwelbo(5)`.
    """
    _check(objective, "minibatch")
    return Expectation(Minibatch(objective.fn, size), objective.patterns)


def by_row(objective: Expectation, *, size: int) -> Expectation:
    """The sum over rows of an `objective` of (model, guide), as one of (model, guide, rows) that looks at `size` at a time.

    - `model`, `guide`: functions from a single row to a program, `model(x, y)`; all latent sites are that row's own.
    - `rows`: a tuple of arrays (N, ...).

    Each row is averaged by itself: its sites are enumerated apart, and scores multiply its own part alone.

    Raises:
        ValueError: when estimated, for rows of different lengths, or fewer than `size`.
    """
    _check(objective, "by_row")
    return Expectation(ByRow(objective.fn, tuple(objective.patterns.items()), size))


@dataclass(frozen=True, slots=True)
class Minibatch:
    """The function of a minibatch. Equal arguments make equal functions, so that what was compiled for one is found again."""

    fn: Callable[..., Any]
    size: int

    @property
    def __name__(self) -> str:
        return f"minibatch of {self.fn.__name__}"

    def __call__(self, model, guide, rows):
        few, scale = subsample(rows, self.size)
        return self.fn(_part(model, few, scale), _part(guide, few, scale))


@dataclass(frozen=True, slots=True)
class ByRow:
    """The function of a sum over rows, `fn` with the strategies `patterns` of each; equal as those of `Minibatch` are."""

    fn: Callable[..., Any]
    patterns: tuple[tuple[str, Strategy], ...]
    size: int

    @property
    def __name__(self) -> str:
        return f"{self.fn.__name__} by row"

    def __call__(self, model, guide, rows):
        objective = Expectation(self.fn, dict(self.patterns))
        few, scale = subsample(rows, self.size)
        return scale * jnp.sum(ppl.vmap(lambda *row: objective(model(*row), guide(*row)))(*few))


def subsample(rows: tuple, size: int) -> tuple[tuple, float]:
    """Within an expectation: `size` of the rows, drawn anew, and N / size, how many times each counts.

    One from every size-th part of the rows, so that every row is as likely as any other, and all are there if `size` = N.
    """
    num = num_rows("minibatch", rows, size)
    start = np.arange(size) * num  # of the parts, in units of 1/size row
    whole, rest = jnp.asarray(start // size), jnp.asarray(start % size)

    def index(key):
        return whole + (rest + jax.random.randint(key, (size,), 0, num)) // size

    chosen = playing("subsample").apart(index)
    return jax.tree.map(lambda x: jnp.asarray(x)[chosen], rows), num / size


class Densities(Assess):
    """Assess, keeping the log density of every site apart."""

    keeps = ("densities",)


class Scaled(ppl.Generative, eqx.Module):
    """A program, some of whose sites count `scale` times in its log density; see `scaled`."""

    program: ppl.Program
    scale: Any
    addresses: tuple[str, ...] = eqx.field(static=True)

    def drawn(self) -> tuple[ppl.Choices, Array]:
        choices, _ = ppl.draw(self.program)
        return choices, self.density(choices)

    def density(self, choices: ppl.Choices) -> Array:
        given = self.program.complete(choices)
        densities = flatten(self.program.interpret(Densities, given=given)[0].record.trees.get("densities", {}))
        parts = [jnp.sum(x) * (self.scale if name in self.addresses else 1.0) for name, x in densities.items()]
        return sum(parts, jnp.zeros(()))

    def sites(self) -> dict[str, SiteInfo]:
        """Those of the program."""
        return self.program.sites()


def scaled(program: ppl.Program, scale, of: tuple[str, ...]) -> Scaled:
    """The program with the log densities of the sites `of` multiplied by `scale`; draws are those of the program.

    For objectives that are sums of log densities: then with N/B for `scale` they have the mean that all N rows give.

    Raises:
        ValueError: for an address that no site has.

    Example:
        `scaled(regression(x_few) | {"y": y_few}, scale, of=("y",))`
    """
    known = program.sites()
    for address in of:
        if address not in known:
            raise ValueError(f"scaled: the program has no site '{address}'.{nearest(address, known)}")
    return Scaled(program, scale, tuple(of))


def _part(build: Any, few: tuple, scale: float) -> Any:
    """What a function of rows makes of few of them, scaled; a program is of no rows, and stays."""
    if isinstance(build, ppl.Program | ppl.Generative) or not callable(build):
        return build
    program = build(*few)
    if not isinstance(program, ppl.Program):
        raise ValueError(
            f"minibatch: a function of rows must return a program, whose sites can be counted apart; got "
            f"{type(program).__name__}."
        )
    found: list[dict[str, SiteInfo]] = []

    def look(rows):
        twice: Any = build(*jax.tree.map(lambda x: jnp.concatenate([x, x]), rows))
        found.append(twice.sites())

    jax.eval_shape(look, few)
    sites = found[-1]
    local = [
        name
        for name, row in program.sites().items()
        if row.kind in ("observed", "factor") or name not in sites or row.shape != sites[name].shape
    ]
    return Scaled(program, scale, tuple(local))


def _check(objective: Any, who: str) -> None:
    if not isinstance(objective, Expectation):
        what = getattr(objective, "__name__", type(objective).__name__)
        raise ValueError(f"{who}: expected an objective such as elbo, got {what}.")
