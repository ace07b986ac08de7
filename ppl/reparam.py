"""Reparameterisations: the same distribution, other coordinates. Posteriors with funnels need them.

A reparameterisation is a function `(name, distribution) -> value` written with `sample` and `deterministic`, so users write
their own. Law: it gives `value` the distribution it was handed.

A reparameterisation that is a pytree of arrays has settings: they are arguments of the program like its data, and those whose
leading axes are a plate's are sliced with it. If it has a method `spread(address, shape)`, it is asked to give its arrays the
site's shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
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
        return _through_base(name, d, distributions.standardise(d))


class PartlyCentered(eqx.Module):
    """Between centred (1) and non-centred (0): sample a `name_base` of location c * loc and scale scale**c, and move it to
    loc and scale (Papaspiliopoulos, Roberts and Skoeld 2003; Gorinova, Moore and Hoffman, ICML 2020, arXiv:1906.03028).

    How far to go for each entry follows from how much the data say of it; `inference.learn_centering` finds out.

    - `centring`: c in [0, 1], one number or an array of the whole site's shape (axes of an enclosing `vmap` first).

    For Normal, LogNormal, StudentT, Cauchy, Laplace, Logistic and Gumbel sites.

    Raises:
        ValueError: for another distribution, or a shape that does not fit.

    Example:
        `program.reparam({"theta": ppl.PartlyCentered(0.3)})`
    """

    centring: Array | float

    def __call__(self, name: str, d: Any) -> Array:
        return _through_base(name, d, distributions.standardise(d, self.centring))

    def spread(self, address: str, shape: tuple[int, ...]) -> "PartlyCentered":
        """The same with one number for each entry of the site."""
        try:
            return PartlyCentered(jnp.broadcast_to(jnp.asarray(self.centring, float), shape))
        except ValueError:
            raise ValueError(
                f"the centring of site '{address}' has shape {jnp.shape(self.centring)}, but the site has {shape}. "
                "Give one number, or one for each entry."
            ) from None


def _through_base(name: str, d: Any, parts: Any) -> Array:
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
