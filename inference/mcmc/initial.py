"""Where chains begin.

```python
inf.mcmc(..., init=inf.Pathfinder())             # the default of kernels with gradients, for few chains; in `pathfinder.py`
inf.mcmc(..., init=inf.Uniform(radius=2.0))      # uniform on the unconstrained scale, as in Stan
inf.mcmc(..., init=inf.At({"mu": 0.0, "tau": 1.0}, jitter=0.1))
inf.mcmc(..., init=inf.Superchains(16), chains=1024)   # 16 first positions for 64 chains each; the default for many chains
```
"""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..metrics import LowRank


class Start(NamedTuple):
    """Where a chain begins: `position` (dim,), a guess of the `metric` where there is one, and what they cost."""

    position: jax.Array
    metric: LowRank | None = None
    gradients: jax.Array | int = 0


class Initial(eqx.Module):
    """The contract: a position for one chain; every new `key` gives another try."""

    @abc.abstractmethod
    def position(self, key, target) -> jax.Array:
        """A flat unconstrained position (dim,)."""

    def begin(self, key, target) -> Start:
        """The position, with what else is known of it."""
        return Start(self.position(key, target))

    def group(self, chain):
        """Chains of the same number begin at the same position."""
        return chain


class Uniform(Initial):
    """Uniform on [-radius, radius] in every unconstrained coordinate; discrete sites are drawn from their distributions."""

    radius: float = 2.0

    def position(self, key, target):
        position = jax.random.uniform(key, (target.dim,), minval=-self.radius, maxval=self.radius)
        return target.fill(key, position)


def _arrays(choices) -> Any:
    """The nested dict with an array, not a list, for every value."""
    if isinstance(choices, Mapping):
        return {name: _arrays(value) for name, value in choices.items()}
    return jnp.asarray(choices)


class At(Initial):
    """At given values of all latent choices, plus normal jitter on the unconstrained scale (discrete sites get none)."""

    choices: dict = eqx.field(converter=_arrays)
    jitter: float = 0.0

    def position(self, key, target):
        position = jnp.asarray(target.unconstrain(self.choices))
        jitter = self.jitter * jax.random.normal(key, position.shape, position.dtype)
        return position + jnp.where(target.is_discrete, 0.0, jitter)


class Superchains(Initial):
    """`num` first positions, each shared by as many chains as the others: chain c begins at number c modulo `num`.

    Where the chains are still where they began, those of one group agree and groups do not. That is how nested R-hat tells
    whether many short chains have forgotten their beginnings (Margossian et al., Bayesian Analysis, 2024, arXiv:2110.13017).
    Default for 64 chains or more that 16 divides.
    """

    num: int = eqx.field(static=True, default=16)
    init: Initial = Uniform()

    def position(self, key, target):
        return self.init.position(key, target)

    def begin(self, key, target):
        return self.init.begin(key, target)

    def group(self, chain):
        return chain % self.num


class On(Initial):
    """Where chains begin on another target over the same sites, one that is cheaper to ask: a surrogate's."""

    target: Any
    init: Initial

    def position(self, key, target):
        return self.init.position(key, self.target)

    def begin(self, key, target):
        return self.init.begin(key, self.target)

    def group(self, chain):
        return self.init.group(chain)
