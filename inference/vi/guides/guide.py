"""Guide: an approximation of a program's posterior, made from the program itself.

```python
guide = inf.guide_for(program | data)                     # mean field
guide = inf.guide_for(program | data, inf.vi.FullRank())
fit = inf.maximize(elbo, program | data, guide, key=key)
posterior = inf.importance(program | data, proposal=fit["guide"], key=key)
```
A guide draws positions in the program's unconstrained space (see `ppl.Target`) from a law (see `law.py`) and makes choices of
them; so they always lie in their supports, and the density of choices is

    log q(choices) = log q(position) - log |d choices / d position|

What is learned is the law; the program with its data is in the guide too, and left alone.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from ppl.distributions import is_traced

from ...fixed import Fixed
from ...mcmc.initial import At, Initial, Start
from .apart import deviations
from .law import Family, Law
from .mean_field import MeanField

OF_YOUR_OWN = "write a guide of your own for inf.maximize, with sample(..., strategy=Enumerate()) there"


class Guide(ppl.Generative, eqx.Module):
    """See the file's docstring; made by `guide_for`.

    - `law`: of positions; its inexact arrays are the parameters.
    - `fixed`: the target.
    """

    law: Law
    fixed: Fixed
    family: str = eqx.field(static=True)

    @property
    def target(self) -> ppl.Target:
        """Of the program that the guide was made for."""
        return self.fixed.value

    def drawn(self):
        position, log_q = self.law.drawn()
        return self.target.constrain(position), log_q - self.target.log_jacobian(position)

    def density(self, choices):
        position = self.target.unconstrain(choices)
        return self.law.density(position) - self.target.log_jacobian(position)

    def given(self, program: Any) -> "Guide":
        """The same law for a program with the same latent sites: other data, other arguments. What an amortised guide is for.

        Raises:
            ValueError: for a program with other latent sites.

        Example:
            `ppl.vmap(lambda y: elbo(model | {"y": y}, guide.given(model | {"y": y})))(ys)`
        """
        target = ppl.as_target(program)
        if target.slots != self.target.slots:
            raise ValueError(f"given: the guide is for the sites {_told(self.target)}, but the program has {_told(target)}.")
        return Guide(self.law.given(target), Fixed(target), self.family)

    def __repr__(self) -> str:
        num = sum(math.prod(jnp.shape(x)) for x in jax.tree.leaves(eqx.filter(self.law, eqx.is_inexact_array, is_leaf=_fixed)))
        return f"Guide {self.family} of {_told(self.target)}: {self.target.dim} coordinates, {num} parameters"


def guide_for(
    program: Any,
    family: Family | None = None,
    *,
    init: Initial | None = None,
    scale: float = 0.1,
    key: jax.Array | None = None,
) -> Guide:
    """A guide for a conditioned program, to be fitted.

    - `program`: or a `ppl.Target`.
    - `family`: `MeanField()` (default), `FullRank()`, `LowRank(rank)`, `Autoregressive()`, `Coupling()`,
      `MaskedAutoregressive()`, `Mixture(num, of=...)` or `Amortised(net, family)`.
    - `init`: where it begins. By default at the origin of the unconstrained space (a mixture far apart, see `Mixture`);
      `At({...})`, `Pathfinder()` (which guesses scales too), or `PriorDraws()`.
    - `scale`: the first standard deviation of every coordinate, where `init` does not say it. Small, so that the first draws
      do not err far; guides widen quickly.
    - `key`: for what is random at the start: networks, components, `init`. By default one that is always the same.

    Raises:
        ValueError: for a discrete site, a family that is none, a start where the density is not finite.

    Example:
        `guide_for(eight_schools(sigma) | {"y": y}, FullRank())`
    """
    target = ppl.as_target(program)
    family = MeanField() if family is None else family
    if not isinstance(family, Family):
        what = f"the class {family.__name__}" if isinstance(family, type) else type(family).__name__
        raise ValueError(f"guide_for: expected a family such as MeanField() or FullRank(), got {what}.")
    if not (init is None or isinstance(init, Initial)):
        raise ValueError(f"guide_for: init must be one such as At({{...}}) or Pathfinder(), got {type(init).__name__}.")
    if not is_traced(scale) and not (isinstance(scale, int | float) and 0.0 < scale < math.inf):
        raise ValueError(f"guide_for: scale must be a positive number, got {scale!r}.")
    target.refuse_discrete("guide_for", instead=OF_YOUR_OWN)
    key_start, key_law = jax.random.split(jax.random.key(0) if key is None else key)
    location, scales = _start(target, family.begins() if init is None else init, scale, key_start)
    return Guide(family.law(key_law, target, location, scales), Fixed(target), repr_of(family))


def repr_of(family: Family) -> str:
    """How a guide calls its family: `LowRank`, `Mixture of MeanField`."""
    inner = next((x for x in vars(family).values() if isinstance(x, Family)), None)
    return type(family).__name__ + ("" if inner is None else f" of {repr_of(inner)}")


def _start(target: ppl.Target, init: Initial | None, scale, key) -> tuple[jax.Array, jax.Array]:
    """Location and scale (dim,), or of several components (num, dim), where the density is finite."""
    if init is None:
        begun = Start(jnp.zeros(target.dim))
    else:
        begun = (init.begin if is_traced(key) else jax.jit(lambda key, target: init.begin(key, target)))(key, target)
    location = jnp.asarray(begun.position)
    if begun.metric is None:
        scales = jnp.full_like(location, scale)
    else:  # a guess of the posterior's covariance
        scales = deviations(begun.metric)
    places = jnp.atleast_2d(location)
    log_densities = jax.jit(jax.vmap(lambda target, x: target.log_density(x), (None, 0)))(target, places)
    if not is_traced(log_densities) and not jnp.isfinite(log_densities).all():
        where = places[int(jnp.argmin(jnp.isfinite(log_densities)))]
        raise ValueError(
            f"guide_for: the density is not finite where the guide begins: {target.explain(where)}. Begin elsewhere, "
            f"init={At.__name__}({{...}})."
        )
    return location, scales


def _told(target: ppl.Target) -> str:
    rows = target.program.sites()
    shapes = [rows[slot.address].shape for slot in target.slots]
    return ", ".join(f"{slot.address}{list(s) if s else ''}" for slot, s in zip(target.slots, shapes, strict=True))


def _fixed(x: Any) -> bool:
    return isinstance(x, Fixed)
