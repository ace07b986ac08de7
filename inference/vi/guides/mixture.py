"""Mixture: several laws of a family, one of which is drawn; for posteriors with several modes, or no simple shape.

The random number of the component is a site, `index`, of a strategy: by default every component is tried, weighted by its
probability, so that the gradient has no noise from it. (Morningstar, Vikram, Ham, Gallagher and Dillon, "Automatic
Differentiation Variational Inference with Mixtures", AISTATS 2021.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from ppl import dist

from ..strategies import Enumerate, Strategy
from .apart import Apart
from .law import Family, Law, Positions, Transport
from .mean_field import MeanField


class Components(Law):
    """`logits` (num,) of the weights, and `members`: a transport whose arrays lead with (num,)."""

    logits: jax.Array
    members: Transport
    strategy: Strategy

    @property
    def dim(self) -> int:
        return self.members.dim

    def drawn(self):
        index = ppl.sample("index", dist.Categorical(logits=self.logits), strategy=self.strategy)
        position, _ = jax.tree.map(lambda x: x[index], self.members).drawn()
        return position, self.density(position)

    def density(self, position):
        log_densities = jax.vmap(lambda member: member.density(position))(self.members)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + log_densities)

    def placed(self):
        """One continuous site: which component it came from is summed out."""
        return ppl.sample("flat", Positions(self, self.dim))


class Mixture(Family):
    """See the file's docstring.

    - `num`: of components, each of the family `of`. They begin far apart, on climbs from random places (see `apart.py`); or,
      where `guide_for` is given an `init`, at random places about that. Modes are missed less with more components than modes.
    - `strategy`: of the component's number; `Score()` draws one where trying all costs too much.
    """

    num: int = eqx.field(static=True, default=3)
    of: Family = MeanField()
    strategy: Strategy = Enumerate()

    def __check_init__(self):
        if isinstance(self.num, bool) or not isinstance(self.num, int) or self.num < 1:
            raise ValueError(f"Mixture: num must be a whole number of at least 1, got {self.num!r}.")
        if not isinstance(self.of, Family) or isinstance(self.of, Mixture):
            raise ValueError("Mixture: of must be a family that moves noise, such as MeanField(): not the class, no mixture.")
        if not isinstance(self.strategy, Strategy):
            raise ValueError("Mixture: strategy must be one such as Enumerate() or Score().")

    def begins(self):
        return Apart(self.num)

    def law(self, key, target, location, scale):
        key_place, key_law = jax.random.split(key)
        if jnp.ndim(location) == 1:
            location, scale = (jnp.broadcast_to(x, (self.num, target.dim)) for x in (location, scale))
            location = location + scale * jax.random.normal(key_place, location.shape, location.dtype)
        every = jax.vmap(lambda key, location, scale: self.of.law(key, target, location, scale))
        members: Any = every(jax.random.split(key_law, self.num), location, scale)
        return Components(jnp.zeros(self.num, location.dtype), members, self.strategy)
