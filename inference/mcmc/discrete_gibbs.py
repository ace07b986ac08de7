"""DiscreteGibbs: each discrete entry is drawn anew from its exact conditional distribution, by trying all its values.

For entries of finite support (Bernoulli, Categorical, Binomial with a known total, DiscreteUniform): K densities for K values.
Entries in different lanes of a `ppl.vmap` are drawn at the same time, from K densities in all, where that is the same as one
after the other: when nothing outside the vmap depends on the site, as with the assignments of a mixture. It is found by
tracing the program (`Target.log_density_apart`), not by looking at numbers. Other entries are visited one after the other.
(Geman and Geman, IEEE Trans. Pattern Anal. Mach. Intell. 6, 1984.)

```python
inf.mcmc(mixture(x), inf.gibbs({"z": inf.DiscreteGibbs(), ...: inf.NUTS()}), key=key)
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..numerics import finite_or
from .metropolis import State, at
from .visits import Visits, visits


class DiscreteGibbsInfo(NamedTuple):
    """Statistics of one transition; all scalars. `num_evaluations`: of the density; `num_changed`: entries that changed."""

    lp: jax.Array
    num_evaluations: jax.Array
    num_changed: jax.Array


class DiscreteGibbs(Kernel):
    """Gibbs sampling of discrete sites of finite support, by enumeration; nothing to set, nothing to learn."""

    def check(self, target) -> None:
        target.refuse_continuous("DiscreteGibbs")
        for slot in target.slots:
            if slot.bounds is None:
                raise ValueError(
                    f"site '{slot.address}' can take infinitely many values, or their number is not known before the run, and "
                    "DiscreteGibbs tries them all. Use IntegerWalk(), or a distribution whose bounds depend on no other site."
                )

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, DiscreteGibbsInfo]:
        position, num = state.position, 1
        for site in visits(key, target):
            values = possible_values(site.slot, position.dtype)
            position = swept(site, values, position)
            num += len(values) * len(site.entries)
        changed = jnp.sum(position != state.position, dtype=jnp.int32)
        state = at(target, position)
        return state, DiscreteGibbsInfo(state.log_density, jnp.int32(num), changed)


def possible_values(slot, dtype) -> jax.Array:
    """Every number that an entry of the site can take (num_values,); for some entries perhaps more."""
    low, high = slot.bounds
    return jnp.arange(low, high + 1, dtype=dtype)


def swept(site: Visits, values, position):
    """The position after every entry of a site has been drawn from its conditional distribution, in turn."""

    def visit(i, position):
        entries = jnp.asarray(site.entries)[i]
        levels = conditional(site, values, position, entries)
        drawn = values[jax.random.categorical(jax.random.fold_in(site.key, i), levels, axis=0)]
        kept = position.at[entries].get(mode="fill", fill_value=0)
        drawn = jnp.where(jnp.any(levels > -jnp.inf, axis=0), drawn, kept)
        return position.at[entries].set(drawn, mode="drop")

    return lax.fori_loop(0, len(site.entries), visit, position)


def conditional(site: Visits, values, position, entries):
    """Log probability, up to a constant, of each value for each of the entries visited (num_values, lane)."""
    levels = jax.vmap(lambda value: site.levels(position.at[entries].set(value, mode="drop")))(values)
    return finite_or(levels, -jnp.inf)
