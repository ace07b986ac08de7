"""ParticleGibbs: the sites in a program's loop are moved together, by a particle filter that knows where they are.

```python
inf.mcmc(program | data, inf.gibbs({"theta": inf.NUTS(), "z": ParticleGibbs(particles=50)}), key=key)
inf.mcmc(program | data, ParticleGibbs(), key=key)                     # where there are no other sites
```
Conditional SMC leaves the law of the path, given all other sites, as it is; so it is a kernel like any other, for continuous
and discrete sites alike. With ancestor sampling few particles serve long series (Andrieu, Doucet and Holenstein, JRSSB 72,
2010; Lindsten, Jordan and Schon, JMLR 15, 2014). A step costs as many densities of a path as there are particles, and as many
again for the ancestors.
"""

import math
from functools import reduce
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl

from ..kernel import Kernel
from ..mcmc.metropolis import State, at
from ..numerics import select
from .conditional import conditional_smc
from .loop import Method
from .loop_sites import LoopSites
from .particle_filter import particle_filter
from .renewal import AncestorSampling, Renewal


class ParticleGibbsInfo(NamedTuple):
    """Statistics of one transition; scalars. `share_renewed`: of the steps of the loop, where some choice changed."""

    lp: jax.Array
    share_renewed: jax.Array


class ParticleGibbs(Kernel):
    """Particle Gibbs for the sites in a program's `ppl.scan`; nothing is learned.

    - `particles`: at least 2; with ancestor sampling some 20 to 100 do for long series.
    - `method`: the filter, such as `particle_filter(proposal=guide)`.
    - `renewal`: how the new path is drawn: `AncestorSampling()`, `BackwardSampling()` or `Traced()`.

    Raises:
        ValueError: for fewer than two particles. From `mcmc`: for a program without a loop, and a site that is not in it.

    Example:
        `inf.gibbs({"theta": inf.NUTS(), "z": ParticleGibbs(particles=50)})`
    """

    particles: int = eqx.field(static=True, default=50)
    method: Method = particle_filter()  # noqa: RUF009
    renewal: Renewal = AncestorSampling()  # noqa: RUF009

    def __check_init__(self):
        if self.particles < 2:
            raise ValueError(f"ParticleGibbs: particles must be at least 2, the present path counted, got {self.particles}.")

    def check(self, target) -> None:
        sites = LoopSites.of("ParticleGibbs", target)
        inside = ppl.Stepwise(sites.target.program).latent
        for address in sites.addresses:
            if address.split(".")[0] not in inside:
                raise ValueError(
                    f"ParticleGibbs: site '{address}' is not in the program's ppl.scan. Give it a kernel of its own: "
                    f'inf.gibbs({{"{inside[0] if inside else "z"}": ParticleGibbs(), ...: inf.NUTS()}}).'
                )

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, ParticleGibbsInfo]:
        sites = LoopSites.of("ParticleGibbs", target)
        path, choices = sites.seen(self.method.way, state.position)
        new = conditional_smc(key, path, self.method, choices, particles=self.particles, renewal=self.renewal)
        alive = jnp.isfinite(new.log_evidence)  # else the chain began where the density is zero
        there = select(alive, new.choices, choices)
        state = at(target, sites.moved(state.position, choices, there))
        return state, ParticleGibbsInfo(state.log_density, share_changed(choices, there).astype(state.log_density.dtype))


def share_changed(old, new) -> jax.Array:
    """The share of the steps of two paths, leaves (step, ...), that differ."""
    differ = jax.tree.map(lambda a, b: jnp.any((a != b).reshape(len(a), math.prod(a.shape[1:])), axis=1), old, new)
    return jnp.mean(reduce(jnp.logical_or, jax.tree.leaves(differ)))
