"""STL: sticking the landing. The ELBO, with the parameters of q stopped in log q, so that its gradient goes along draws.

What is left out is the gradient of log q(x) by the parameters with x held, whose mean is zero; the gradient that goes through
x stays. (Roeder, Wu and Duvenaud, "Sticking the landing", NeurIPS 2017, arXiv:1703.09194.)

```python
inf.maximize(stl, program | data, guide(phi), key=key)
```
Only what is a leaf of the guide can be stopped: hand parameters to it as arguments.
"""

from typing import TypeVar

import equinox as eqx
import jax
from jax import lax

import ppl

from ..expectation import expectation
from .match import same_sites
from .watch import drew

T = TypeVar("T")


@expectation
def stl(model, guide):
    """The ELBO, its gradient along the draws alone; the guide's density must be known exactly."""
    same_sites(model, guide)
    choices, _ = ppl.draw(guide)
    return model.log_density(choices) - exact("stl", stopped(guide), choices)


def stopped(tree: T) -> T:
    """A program, or any pytree, that no gradient goes into: its arrays of floating point are constants.

    Example:
        `stopped(guide).log_density(choices)`
    """
    return jax.tree.map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


def exact(who: str, program, choices) -> jax.Array:
    """The log density of `choices`.

    Raises:
        ValueError: where it is an estimate: one from fresh random numbers is not that of the draw, and no bound holds.
    """
    log_p, sites = drew(lambda: program.log_density(choices))
    if sites:
        raise ValueError(
            f"{who} needs densities that are known, but that of the {type(program).__name__} is an estimate, for which "
            f"'{next(iter(sites))}' is drawn. Use elbo or iwelbo."
        )
    return log_p
