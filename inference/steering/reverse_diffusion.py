"""A diffusion model as a program: x starts as noise, and one `ppl.scan` takes it down the noise levels.

```python
step  = Tweedie(denoiser)                                        # denoiser(x, sigma) = E[x0 | x], x (dim,)
prior = reverse_diffusion(step, levels, dim)                     # a program: sites "start" and "x" (steps, dim)
given = reverse_diffusion(step, levels, dim, log_likelihood, y)  # weighted by log_likelihood(x, y) at the last step
```

With s, t the noise levels before and after, x0 = denoiser(x, s), and C the covariance of x0 given x, a step is

    x' ~ Normal( x + c (x0 - x),  t^2 c + c^2 C ) ,     c = 1 - t^2 / s^2 .

`Ancestral` leaves C out (Ho, Jain and Abbeel, NeurIPS 2020, arXiv:2006.11239); `Tweedie` has it, s^2 times the Jacobian of the
denoiser (Tweedie's second formula), which is exact where the data are Gaussian and takes fewer steps where they are not.

The program itself is the model: inference is exact for the steps as they are written, and it is the number of levels that
brings them near to the diffusion they stand for.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, factor, sample
from ppl.distributions import is_traced

from ..exact import Gaussian
from .noised import Function


class At(NamedTuple):
    """Where a step is: noise levels `old` and `new`, the data `y`, and whether it is the `last` one."""

    old: Any
    new: Any
    y: Any
    last: Any


class Reverse(eqx.Module):
    """A step of the reverse diffusion of `denoiser(x, sigma)`, of x (dim,)."""

    denoiser: eqx.AbstractVar[Function]

    @abc.abstractmethod
    def law(self, x, at: At, pull: Any = 0.0) -> Any:
        """The distribution of x after the step, a vector; its density multiplied by exp(pull . x')."""

    @abc.abstractmethod
    def moments(self, x, at: At) -> Gaussian:
        """Its mean and covariance."""

    def seen(self, x, sigma) -> tuple[jax.Array, jax.Array]:
        """E[x0 | x] (dim,), and its Jacobian (dim, dim)."""

        def both(x):
            x0 = self.denoiser(x, sigma)
            return x0, x0

        jacobian, x0 = jax.jacfwd(both, has_aux=True)(x)
        return x0, jacobian

    def covariance(self, jacobian, sigma) -> jax.Array:
        """Cov[x0 | x] (dim, dim) by Tweedie's second formula."""
        return sigma**2 * 0.5 * (jacobian + jacobian.T)


class Ancestral(Reverse):
    """x0 taken for known."""

    denoiser: Function

    def __init__(self, denoiser: Callable) -> None:
        self.denoiser = Function(denoiser)

    def law(self, x, at, pull=0.0):
        c = 1 - (at.new / at.old) ** 2
        variance = at.new**2 * c
        mean = x + c * (self.denoiser(x, at.old) - x) + variance * pull
        return dist.Normal(mean, jnp.sqrt(variance)).to_event(1)

    def moments(self, x, at):
        law = self.law(x, at)
        return Gaussian(law.mean, jnp.diag(law.variance))


class Tweedie(Reverse):
    """x0 as uncertain as Tweedie's second formula says. Needs the Jacobian of the denoiser: dim evaluations of it, forward."""

    denoiser: Function

    def __init__(self, denoiser: Callable) -> None:
        self.denoiser = Function(denoiser)

    def law(self, x, at, pull=0.0):
        now = self.moments(x, at)
        return dist.MultivariateNormal(now.mean + now.covariance @ jnp.broadcast_to(pull, x.shape), now.covariance)

    def moments(self, x, at):
        c = 1 - (at.new / at.old) ** 2
        x0, jacobian = self.seen(x, at.old)
        known = at.new**2 * c * jnp.eye(len(x), dtype=x.dtype)
        return Gaussian(x + c * (x0 - x), known + c**2 * self.covariance(jacobian, at.old))


def reverse_diffusion(step: Reverse, levels, dim: int, log_likelihood: Callable | None = None, y: Any = None) -> ppl.Program:
    """The program; see the file's docstring.

    - `levels`: noise levels (steps + 1,), decreasing to above zero.
    - `log_likelihood(x, y)`: +log density of data y, a pytree of arrays, given x at the last level; a scalar.

    Raises:
        ValueError: for levels that do not decrease, a denoiser that returns another shape.
    """
    if not isinstance(step, Reverse):
        raise ValueError(
            f"reverse_diffusion: expected a step such as Tweedie(denoiser) or Ancestral(denoiser), got {type(step).__name__}."
        )
    levels = jnp.asarray(levels, float)
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"reverse_diffusion: levels are at least two noise levels, got an array of shape {levels.shape}.")
    if not is_traced(levels) and not ((np.diff(levels) < 0).all() and levels[-1] > 0):
        raise ValueError(
            "reverse_diffusion: noise levels must decrease and stay above 0, but they go from "
            f"{float(levels[0]):.3g} to {float(levels[-1]):.3g}. Leave a little noise at the end."
        )
    found = jax.eval_shape(step.denoiser, jnp.zeros(dim, levels.dtype), levels[0])
    if getattr(found, "shape", None) != (dim,):
        raise ValueError(
            f"reverse_diffusion: for x of shape ({dim},) the denoiser returned shape {getattr(found, 'shape', None)}, but it "
            "is to return E[x0 | x], of the shape of x."
        )
    likelihood = None if log_likelihood is None else Function(log_likelihood)
    return ppl.model(_reverse_diffusion)(step, levels, dim, likelihood, y)


def _reverse_diffusion(step, levels, dim, log_likelihood, y):
    num = len(levels) - 1
    x = sample("start", dist.Normal(jnp.zeros(dim), levels[0]).to_event(1))

    def body(x, at):
        x = sample("x", step.law(x, at))
        if log_likelihood is not None:
            factor("likelihood", jnp.where(at.last, log_likelihood(x, at.y), 0.0))
        return x, None

    repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *jnp.shape(leaf))), y)
    ppl.scan(body, x, At(levels[:-1], levels[1:], repeated, jnp.arange(num) == num - 1))
