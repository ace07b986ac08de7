"""Posterior as prior: what was learned of one program is the prior of the next.

```python
prior = inf.vi.prior_of(posterior.run.guide)           # a program; it returns the choices of the one that was fitted

@ppl.model
def tomorrow(prior, x):
    theta = ppl.sample("theta", prior)
    ppl.sample("y", dist.Normal(theta["slope"] * x, 1.0))
```
Its random choice is that of the guide's law: `whitened`, standard normal numbers, one a coordinate, which every algorithm
moves easily (or `flat`, the position, where the law is a mixture). The sites of the program that was fitted are deterministic
sites of it.

A stream of data goes on without growing: with `prior_of(guide, prior)` the new law takes the place of the old one, where the
guide is of a program that had `prior` for all its choices. Normal laws stay Normal, other laws are put one behind the other.

Law: for linear Gaussian models, and `laplace`, which is exact there, data one after the other are data all at once.
"""

from typing import Any

import jax
import jax.numpy as jnp

import ppl

from .full_rank import Triangular
from .guide import Guide
from .law import Law, Transport
from .low_rank import Factors
from .mean_field import Diagonal

NORMAL = (Diagonal, Triangular, Factors)  # the transports that are affine


def prior_of(guide: Any, prior: ppl.Program | None = None) -> ppl.Program:
    """A fitted guide as a program without data, to be sampled in the next one. It returns the choices, a nested dict.

    - `guide`: made by `guide_for`; or a posterior that has one, of `fit.posterior`, `laplace`, `dadvi` or `pathfinder`.
    - `prior`: what this function returned before, where the guide's program had no other latent sites than those of it.

    Raises:
        ValueError: for what has no such guide; a `prior` with other sites than the guide's.

    Example:
        `tomorrow(prior_of(posterior), x) | {"y": y}`
    """
    guide = getattr(getattr(guide, "run", None), "guide", guide)
    if not isinstance(guide, Guide):
        raise ValueError(
            f"prior_of: expected a guide made by guide_for, or a posterior that has one, got {type(guide).__name__}. A guide "
            "that is a program is a prior as it stands; draws alone have no density: fit a guide to them."
        )
    if prior is None:
        return ppl.Program(_placed, (guide.law, guide.target))
    if not (isinstance(prior, ppl.Program) and prior.fn is _placed):
        raise ValueError("prior_of: prior must be what prior_of returned before.")
    law, target = prior.args
    slots, before = guide.target.slots, ppl.Target(prior).slots
    if len(slots) != 1 or slots[0].path[-1:] != before[0].path or slots[0].shape != before[0].shape:
        raise ValueError(
            f"prior_of: the guide is for {', '.join(slot.address for slot in slots)}, and not for the site "
            f"'{before[0].address}' of the prior alone. Leave the prior out: then the new one keeps the program in it."
        )
    return ppl.Program(_placed, (_after(law, guide.law), target))


class Behind(Transport):
    """First one transport, then another."""

    first: Transport
    then: Transport

    @property
    def dim(self):
        return self.first.dim

    def forward(self, noise):
        between, log_first = self.first.forward(noise)
        position, log_then = self.then.forward(between)
        return position, log_first + log_then

    def inverse(self, position):
        between, log_then = self.then.inverse(position)
        noise, log_first = self.first.inverse(between)
        return noise, log_first + log_then


def _placed(law: Law, target: ppl.Target):
    return _named(target.constrain(law.placed()))


def _named(choices):
    """The choices, each a deterministic site."""
    return {
        name: ppl.sample(name, ppl.Program(_named, (x,))) if isinstance(x, dict) else ppl.deterministic(name, x)
        for name, x in choices.items()
    }


def _after(law: Law, new: Law) -> Law:
    """The law of positions, when its noise (or they themselves, of a mixture) has the law `new`."""
    if not isinstance(law, Transport):
        return new
    if isinstance(law, NORMAL) and isinstance(new, NORMAL):
        location = law.forward(new.location)[0]
        mixed = jax.jacobian(lambda noise: law.forward(new.forward(noise)[0])[0])(jnp.zeros(law.dim, location.dtype))
        return Triangular.of(location, jnp.linalg.qr(mixed.T, mode="r").T)
    if not isinstance(new, Transport):
        raise ValueError("prior_of: a mixture cannot come behind another law. Leave the prior out.")
    return Behind(new, law)
