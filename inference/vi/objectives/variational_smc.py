"""Variational SMC: the log evidence that a particle filter estimates, climbed in the model and in the filter's proposal.

Its mean bounds the log evidence, the tighter the more particles there are. The gradient goes through the particles, and leaves
out how resampling depends on parameters, as is usual: its terms are nearly all noise. (Naesseth, Linderman, Ranganath and
Blei, "Variational sequential Monte Carlo", AISTATS 2018, arXiv:1705.11140; also Maddison and others, and Le and others.)

`nasmc` makes a guide follow the paths that a filter ends with: forward KL, for guides over a whole series, at the filter's
accuracy. (Gu, Ghahramani and Turner, "Neural adaptive sequential Monte Carlo", NeurIPS 2015, arXiv:1506.03338.)

```python
def guided(phi):
    return inf.particle_filter(proposal=lambda carry, x, data: step_guide(phi, carry, data["y"]))

inf.maximize(variational_smc(guided, particles=10), walk(100, q, r) | data, phi, key=key)
```
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax import lax

from ...smc.collapse import collapse
from ...smc.loop import Method
from ..expectation import Expectation, expectation
from .match import same_sites
from .stl import stopped
from .watch import playing


def variational_smc(method: Callable[[Any], Method], *, particles: int) -> Expectation:
    """The log evidence by so many particles, an objective of (model, guide).

    - `method`: from the guide, a pytree of parameters, to a particle filter, or to another method that `collapse` takes.
    """
    if not callable(method):
        raise ValueError(f"variational_smc: expected a function from the guide to a method, got {type(method).__name__}.")
    return expectation(VariationalSMC(method, particles))


def nasmc(method: Method, *, particles: int) -> Expectation:
    """E log guide(path) over paths that a run of `method` ends with, of (model, guide); a gradient for the guide alone.

    - `method`: a particle filter, or another method that `collapse` takes.
    """
    return expectation(NASMC(method, particles))


@dataclass(frozen=True, slots=True)
class VariationalSMC:
    """The function of `variational_smc`. Of equal settings it is equal, so that what was compiled for it is found again."""

    method: Callable[[Any], Method]
    particles: int

    @property
    def __name__(self) -> str:
        return "variational_smc"

    def __call__(self, model, guide):
        run = collapse(model, self.method(guide), particles=self.particles)
        return playing("variational_smc").apart(run.log_evidence)


@dataclass(frozen=True, slots=True)
class NASMC:
    """The function of `nasmc`; equal as those of `VariationalSMC` are."""

    method: Method
    particles: int

    @property
    def __name__(self) -> str:
        return "nasmc"

    def __call__(self, model, guide):
        same_sites(model, guide)
        run = collapse(stopped(model), self.method, particles=self.particles)
        return guide.log_density(lax.stop_gradient(playing("nasmc").apart(run.simulate).choices))
