"""Reparameterisations: the same distribution, other coordinates. Posteriors with funnels need them.

A reparameterisation is a function `(name, distribution) -> value` written with `sample` and `deterministic`, so users write
their own. Law: it gives `value` the distribution it was handed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array

from . import distributions
from .primitives import deterministic, sample


@dataclass(frozen=True)
class NonCentered:
    """Sample a standard `name_base`, and shift and scale it (Papaspiliopoulos, Roberts and Skoeld 2007).

    For Normal, LogNormal, StudentT, Cauchy, Laplace, Logistic, Gumbel and MultivariateNormal sites of any shape.

    Raises:
        ValueError: for a distribution that has no location and scale.

    Example:
        `program.reparam({"theta": ppl.NonCentered()})`
    """

    def __call__(self, name: str, d: Any) -> Array:
        parts = distributions.standardise(d)
        if parts is None:
            raise ValueError(
                f"site '{name}' cannot be non-centred: {distributions.family(d)} is not a location-scale family. "
                "Write your own function (name, distribution) -> value."
            )
        base, restore = parts
        return deterministic(name, restore(sample(f"{name}_base", base)))


_LOCATION_SCALE = {"Normal", "LogNormal", "StudentT", "Cauchy", "Laplace", "Logistic", "Gumbel", "MultivariateNormal"}


def non_centred_sites(program: Any) -> Mapping[str, Any]:
    """The automatic choice: latent location-scale sites whose parameters depend on other latent sites.

    A Markov chain's sites are left alone: in `z[t] ~ Normal(z[t-1], s)` the site depends on itself.
    """
    from .graph import parents

    rows, edges = program.sites(), parents(program)
    return {
        name: NonCentered()
        for name, row in rows.items()
        if row.kind == "latent"
        and row.family in _LOCATION_SCALE
        and any(rows[p].kind == "latent" for p in edges[name])
        and name not in edges[name]
    }
