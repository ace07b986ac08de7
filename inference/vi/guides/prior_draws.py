"""Prior draws: a guide begins where the prior is, and about as wide.

```python
guide = inf.guide_for(program | data, init=inf.vi.PriorDraws())
```
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from ...mcmc.initial import Initial, Start
from ...metrics import LowRank


class PriorDraws(Initial):
    """At the median of `num` draws from the program, in unconstrained space; with their quartiles for scales."""

    num: int = eqx.field(static=True, default=200)

    def position(self, key, target):
        return self.begin(key, target).position

    def begin(self, key, target):
        for address, row in target.program.sites().items():
            if row.kind == "latent" and "ImproperUniform" in row.family:
                raise ValueError(f"PriorDraws: the prior of site '{address}' is improper, so it cannot be drawn from.")
        draws = jax.vmap(target.draw)(jax.random.split(key, self.num))
        low, middle, high = jnp.quantile(draws, jnp.array([0.25, 0.5, 0.75]), axis=0)
        scale = jnp.maximum((high - low) / 1.349, 1e-3)  # that of a Normal with such quartiles
        return Start(middle, LowRank(scale, jnp.zeros((target.dim, 1), scale.dtype), jnp.ones(1, scale.dtype)))
