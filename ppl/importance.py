"""Importance: several draws from a proposal, weighted, and one picked by its weight.

```python
ppl.normalize(program | data, by=ppl.Importance(10, guide(phi)))    # the guide, drawn nearer to the posterior
program.marginal("u", by=ppl.Importance(5))                         # u integrated out, by draws from its prior
program.marginal("u", by=ppl.Importance(5, lambda kept: encoder(kept["x"])))
```
With gamma the program's density, q the proposal's, and weights gamma / q (Rubin, 1988; conditional runs: Andrieu, Doucet and
Holenstein, JRSSB 72, 2010):

- drawn: K draws from q, and one of them, x, by its weight; log w = log gamma(x) - log mean of the weights.
- density of a given x: x, and K - 1 draws from q; log w = log gamma(x) - log mean of their weights.

All random numbers are sites of the running program, so gradients of objectives go through: the proposal's own sites, and the
site `index`, which of the draws was picked. Its gradient is a score by default; `objective.using({"index": Enumerate()})` has
less noise, and costs the rest of the program K times. With one draw the output is the proposal itself.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._errors import quote
from .choices import Choices, nest
from .combinators import vmap
from .distributions import bounds, dist
from .generative import Generative, draw
from .interpreters import Assess
from .log_sums import log_mean
from .primitives import sample
from .program import Program
from .random_weight import Normaliser, latent_sites, likelihood_sites
from .site import SiteInfo

REAL = ("real", "real vector")


def leaves_out(wanted: SiteInfo, proposed: SiteInfo) -> bool:
    """Whether a proposal of a site never proposes some of what the site can be, as far as supports tell."""
    mine, theirs = bounds(wanted.support), bounds(proposed.support)
    narrower = mine and theirs and not (np.all(theirs[0] <= mine[0]) and np.all(mine[1] <= theirs[1]))
    real = wanted.support_name in REAL and proposed.support_name not in REAL
    return wanted.discrete != proposed.discrete or bool(narrower) or real


class Importance(Normaliser):
    """Sampling-importance-resampling with `num` draws from a `proposal`; see the file's docstring.

    - `proposal`: over all latent sites of the program that it is used on: a program; a Generative; or a function of that
      program's data (a nested dict; for a marginal, the choices that are kept are among them) that returns one of these. By
      default the program's prior.

    Raises:
        ValueError: for fewer than one draw, or a proposal that is none of these. When used: for a proposal with other sites
            than the program's, with data of its own, or with values that the program's sites cannot have.
    """

    num: int = eqx.field(static=True)
    proposal: Any = None

    def __init__(self, num: int, proposal: Program | Generative | Callable | None = None) -> None:
        if isinstance(num, bool) or not isinstance(num, int) or num < 1:
            raise ValueError(f"Importance: the number of draws must be a whole number of at least 1, got {num!r}.")
        if not (proposal is None or callable(proposal) or isinstance(proposal, Program | Generative)):
            raise ValueError(
                "Importance: the proposal must be a program, a Generative, or a function of the data that returns one, got "
                f"{type(proposal).__name__}."
            )
        plain = callable(proposal) and not isinstance(proposal, Generative | eqx.Module)
        self.num, self.proposal = num, jax.tree_util.Partial(proposal) if plain else proposal

    def normalize(self, program: Program) -> "Picked":
        return Picked(program, self._proposal(program), self.num)

    def log_evidence(self, program: Program) -> Array:
        _, _, log_weights = _weighted(program, self._proposal(program), self.num)
        return log_mean(log_weights)

    def _proposal(self, program: Program) -> Program | Generative:
        """The proposal for this program."""
        proposal = self.proposal
        if proposal is None:
            return Prior(program)
        if not isinstance(proposal, Program | Generative):
            proposal = proposal(nest(program.data))
        if not isinstance(proposal, Program | Generative):
            raise ValueError(
                "Importance: the proposal's function must return a program or a Generative, but returned "
                f"{type(proposal).__name__}."
            )
        if hasattr(proposal, "sites"):  # of what has no table nothing is known before it runs
            _check(program, proposal)
        return proposal


class Picked(Generative, eqx.Module):
    """What `Importance` ends with on a program."""

    program: Program
    proposal: Program | Generative
    num: int = eqx.field(static=True)

    def drawn(self) -> tuple[Choices, Array]:
        if self.num == 1:
            return draw(self.proposal)
        every, log_p, log_weights = _weighted(self.program, self.proposal, self.num)
        level = log_mean(log_weights)
        alive = level > -jnp.inf
        index = sample("index", dist.Categorical(logits=jnp.where(alive, log_weights, 0.0)))
        choices = jax.tree.map(lambda x: x[index], every)
        return choices, jnp.where(alive, log_p[index] - level, jnp.inf)  # a draw of no weight counts as none

    def density(self, choices: Choices) -> Array:
        log_q = self.proposal.log_density(choices)
        if self.num == 1:
            return log_q
        log_p = self.program.log_density(choices)
        _, _, log_weights = _weighted(self.program, self.proposal, self.num - 1)
        level = log_mean(jnp.append(log_weights, log_p - log_q))
        return jnp.where(log_p > -jnp.inf, log_p - level, -jnp.inf)

    def sites(self) -> dict[str, SiteInfo]:
        """The program's latent sites, by address."""
        return latent_sites(self.program)


class Prior(Generative, eqx.Module):
    """The latent sites of a conditioned program, drawn from their distributions as if no data depended on them."""

    program: Program

    def drawn(self) -> tuple[Choices, Array]:
        choices, _ = draw(self.program)
        return choices, self.density(choices)

    def density(self, choices: Choices) -> Array:
        return self.program.interpret(Assess, given=self.program.complete(choices))[0].total("log_prior")


def _weighted(program: Program, proposal: Any, num: int) -> tuple[Choices, Array, Array]:
    """`num` draws from the proposal (leading axis), the log density of the program, and log weights (num,)."""

    def one() -> tuple[Choices, Array, Array]:
        choices, log_q = draw(proposal)
        log_p = program.log_density(choices)
        return choices, log_p, log_p - log_q

    return vmap(one, axis_size=num)()


def _check(program: Program, proposal: Any) -> None:
    """Refuse a proposal of other sites, with data of its own, or that can take values where the program has none."""
    weighted = likelihood_sites(proposal)
    if weighted:
        raise ValueError(
            f"Importance: the proposal has data or factors at {quote(weighted)}, so its draws do not follow its density. Give "
            "ppl.normalize(proposal, by=...) in its place."
        )
    rows, there = latent_sites(program), latent_sites(proposal)
    if rows.keys() != there.keys():
        raise ValueError(
            f"Importance: the proposal has the latent sites {quote(there)}, but those to be proposed are {quote(rows)}. They "
            "must be the same."
        )
    for address, row in rows.items():
        other = there[address]
        if other.shape != row.shape:
            raise ValueError(
                f"Importance: site '{address}' has shape {row.shape}, but {other.shape} in the proposal; they must agree."
            )
        if leaves_out(row, other):
            raise ValueError(
                f"Importance: site '{address}' is {row.support_name}, but {other.support_name} in the proposal, which never "
                "proposes what the site can be."
            )
