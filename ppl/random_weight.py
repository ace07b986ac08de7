"""Random weights: what no formula normalises, as a distribution whose density is an unbiased estimate.

```python
by = ppl.Importance(5, proposal)                      # an algorithm that draws from a program, and estimates its evidence
ppl.normalize(program | data, by=by)                  # what the algorithm ends with, as a distribution
program.marginal("u", by=by)                          # the program's other sites; u is integrated out
```
Both are `ppl.Generative`s: they are guides, proposals, targets, and proposals of one another, to any depth. A run of an
algorithm on a program of density gamma ends with choices u and an estimate of the evidence Z. As a distribution it has a law
r(u) that nobody can evaluate, and estimates of it, gamma(u) / Z^, with fresh random numbers.

A marginal, p(x) = sum over u of p(u, x), asks the algorithm for r(u), near the posterior of u given x (Lew, Ghavamizadeh,
Rinard and Mansinghka, PLDI 2023):

- drawn: (u, x) from the program; w = log p(u, x) - log r(u), with r(u) estimated from the very u that was drawn. As u is then
  a draw from the posterior, E[exp(-w) | x] = sum over u of p(u | x) r(u) / p(u, x) = 1 / p(x).
- density of a given x: u from r; w = log p(u, x) - log r(u). E[exp(w)] = sum over u of r(u) p(u, x) / r(u) = p(x).

So an ELBO whose guide is a marginal by one draw is the bound of hierarchical variational models (Ranganath, Tran and Blei,
ICML 2016); by several, the importance-weighted one (Sobolev and Vetrov, NeurIPS 2019); and the nearer r is to the posterior of
u, the tighter the bound.
"""

import abc
from typing import Any, cast

import equinox as eqx
from jax import Array

from . import checks
from ._errors import nearest, quote
from ._keys import Shared
from .choices import Choices, flatten, merge, nest
from .drawing import Drawing
from .generative import Generative, draw
from .interpreter import current
from .program import Program
from .site import SiteInfo


class Normaliser(eqx.Module):
    """An algorithm that draws from the posterior of any program, more or less. A finished one defines `normalize`."""

    @abc.abstractmethod
    def normalize(self, program: Program) -> Generative:
        """What a run on the conditioned `program` ends with, as a distribution of its latent sites."""

    def log_evidence(self, program: Program) -> Array:
        """Within a running program: an estimate of the log evidence of `program`, a scalar; its exponential is unbiased."""
        choices, log_r = draw(self.normalize(program))
        return program.log_density(choices) - log_r

    def marginal(self, program: Program, addresses: str | tuple[str, ...]) -> "Marginal":
        """`program` without the latent sites at `addresses` (or those of whole groups): this algorithm integrates them out.

        The same as `program.marginal(*addresses, by=self)`.

        Raises:
            ValueError: for an address that no latent site has.

        Example:
            `guide(phi).marginal("angle", by=ppl.Importance(5)).log_density({"x": 0.3}, key=key)`
        """
        addresses, latent = (addresses,) if isinstance(addresses, str) else tuple(addresses), latent_sites(program)
        for address in addresses:
            if not any(_within(name, (address,)) for name in latent):
                raise ValueError(f"marginal: the program has no latent site '{address}'.{nearest(address, latent)}")
        return Marginal(program, addresses, self)


class Marginal(Generative, eqx.Module):
    """See `Normaliser.marginal`. A program with data has a marginal density, p(x, data); only one without can be drawn."""

    program: Program
    dropped: tuple[str, ...] = eqx.field(static=True)
    by: Normaliser

    def drawn(self) -> tuple[Choices, Array]:
        weighted = likelihood_sites(self.program)
        if weighted:
            raise ValueError(
                f"marginal: the program has data or factors at {quote(weighted)}, so the marginal has a density, but draws do "
                "not follow it. Draw from ppl.normalize(program, by=...), or take the data away with program.without()."
            )
        choices, log_p = draw(self.program)
        kept, dropped = self._split(choices)
        return kept, log_p - self.by.normalize(given(self.program, kept)).log_density(dropped)

    def density(self, choices: Choices) -> Array:
        kept, rest = self.sites(), given(self.program, choices)
        missing, extra = kept.keys() & latent_sites(rest).keys(), flatten(choices).keys() - kept.keys()
        if missing or extra:
            what = f"{quote(sorted(missing or extra))} {'has no value' if missing else 'was given one'}"
            raise ValueError(f"marginal: {what}, but the marginal is that of {quote(kept)}, and of nothing else.")
        return self.by.log_evidence(rest)

    def sites(self) -> dict[str, SiteInfo]:
        """The latent sites that are kept, by address."""
        return {name: row for name, row in latent_sites(self.program).items() if not _within(name, self.dropped)}

    def _split(self, choices: Choices) -> tuple[Choices, Choices]:
        """What is kept, and what is integrated out."""
        flat = flatten(choices)
        dropped = {name: x for name, x in flat.items() if _within(name, self.dropped)}
        return nest({name: x for name, x in flat.items() if name not in dropped}), nest(dropped)


def normalize(program: Program, *, by: Normaliser) -> Generative:
    """What the algorithm `by` makes of a conditioned program, as a distribution of the program's latent sites.

    With the density gamma of the program, and Z^ the estimate of the evidence, a draw x has log w = log gamma(x) - log Z^; so
    with E over draws, E[exp(-w) f(x)] = sum of f(x). The density of a given x comes of a run that is told to hold x.

    Raises:
        ValueError: for a program that is none, or an algorithm that is none.

    Example:
        `guide = ppl.normalize(program | data, by=ppl.Importance(10, guide(phi)))`
    """
    if not isinstance(program, Program):
        hint = " Call the model with its arguments first." if hasattr(program, "fn") else ""
        raise ValueError(f"normalize: expected a program, got {type(program).__name__}.{hint}")
    if not isinstance(by, Normaliser):
        raise ValueError(f"normalize: `by` must be an algorithm such as ppl.Importance(10), got {type(by).__name__}.")
    return by.normalize(program)


def own_key() -> Array:
    """Within a running program: a key that nothing else has. For algorithms that are not made of sites: no strategy knows of
    what they draw, and gradients go through their arithmetic alone.

    Raises:
        ValueError: where no program runs that has random numbers.
    """
    running = current()
    if not isinstance(running, Drawing) or running.inputs.key is None:
        raise ValueError(
            "an estimate needs random numbers, and there are none: give log_density(choices, key=key), or call it in a "
            "function decorated with @inf.expectation."
        )
    key = running.nested(lambda: cast(Drawing, current()).key("run"))
    return key.own() if isinstance(key, Shared) else key


def given(program: Program, choices: Choices) -> Program:
    """The program with these choices for data. Unlike `|` it takes any values: what cannot be has density zero."""
    placed = checks.place(program.table(), choices, "the choices", {"latent"})
    return program._with(data=merge(program._data, placed))


def latent_sites(generative: Any) -> dict[str, SiteInfo]:
    """Those of the sites that are drawn, by address."""
    return {name: row for name, row in generative.sites().items() if row.kind == "latent"}


def likelihood_sites(generative: Any) -> list[str]:
    """Sites whose density counts, though they are not drawn: data and factors."""
    return [name for name, row in generative.sites().items() if row.kind in ("observed", "factor") or row.partial]


def _within(name: str, addresses: tuple[str, ...]) -> bool:
    return any(name == address or name.startswith(f"{address}.") for address in addresses)
