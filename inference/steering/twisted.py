"""Twisted diffusion: the posterior of a diffusion prior given data, by particle filters over the reverse diffusion.

A twist says at every noise level how well a particle will come to fit the data. It may be as rough as one likes: it is taken
back a step later, and weights stay exact for the program (Wu, Trippe, Naesseth, Blei and Cunningham, NeurIPS 2023,
arXiv:2306.17775). For data y = H x0 + noise:

    first order     psi(x) = p(y | x0 = denoiser(x))                     `first_order`
    second order    psi(x) = Normal(y; H denoiser(x), R + H C H')        `second_order`

with C = Cov[x0 | x] by Tweedie's second formula. The first is diffusion posterior sampling (Chung, Kim, Mccann, Klasky and Ye,
ICLR 2023, arXiv:2209.14687), and takes any likelihood; the second goes beyond it (Rout, Chen, Kumar, Caramanis, Shakkottai and
Chu, CVPR 2024, arXiv:2312.00852; Song, Vahdat, Mardani and Kautz, ICLR 2023). Steps are proposed

    along the gradient of log psi, scaled by the variance of the step    `by_gradient`
    or as the step given the data, both linearised                       `by_conditioning`

```python
step, law = Tweedie(denoiser), inf.exact.Affine(matrix, covariance)
program   = reverse_diffusion(step, levels, dim, linear_gaussian(law), y)
posterior = inf.smc(program, twisted(step, law), key=key, particles=200, history=Last())
posterior["x"]                           # (1, 200, dim), at the last level
```

A series of which a part is observed guides an unconditional diffusion in the same way (Kollovieh et al., NeurIPS 2023,
arXiv:2307.11494): the matrix is the identity, and entries of y that are NaN are missing, to be forecast.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import ppl
from ppl import sample

from ..exact import Affine, Gaussian, update
from ..resampling import Resampler, Systematic, When
from ..smc.loop import Method
from ..smc.particle_filter import particle_filter
from .reverse_diffusion import At, Reverse


def twisted(
    step: Reverse,
    law: Affine,
    *,
    resample: Resampler = When(Systematic(), ess=0.5),  # noqa: B008
) -> Method:
    """A particle filter for `reverse_diffusion(step, levels, dim, linear_gaussian(law), y)`: second-order twist, steps
    proposed given the data.

    - `step`: of the program. `law`: of y given x0, with matrix (k, dim) and covariance (k, k).
    """
    return particle_filter(resample=resample, proposal=by_conditioning(step, law), twist=second_order(step, law))


def linear_gaussian(law: Affine) -> Callable:
    """`log_likelihood(x, y)` of y | x ~ `law`; entries of y (k,) that are NaN are missing."""

    def log_likelihood(x, y):
        if jnp.shape(y) != law.matrix.shape[:1]:
            raise ValueError(
                f"linear_gaussian: y should have shape {law.matrix.shape[:1]}, as its law has, got {jnp.shape(y)}."
            )
        return update(_known(x), law, y)[1]

    return log_likelihood


def first_order(step: Reverse, log_likelihood: Callable) -> Callable:
    """The twist that takes the denoised x for x0; for any `log_likelihood(x, y)`."""

    def twist(x, at: At, data):
        return log_likelihood(step.denoiser(x, at.old), at.y)

    return twist


def second_order(step: Reverse, law: Affine) -> Callable:
    """The twist that knows how uncertain x0 still is; for y | x0 ~ `law`."""

    def twist(x, at: At, data):
        x0, jacobian = step.seen(x, at.old)
        return update(Gaussian(x0, step.covariance(jacobian, at.old)), law, at.y)[1]

    return twist


def by_gradient(step: Reverse, twist: Callable) -> Callable:
    """The proposal that moves the mean of a step by its covariance times the gradient of the log `twist`."""

    def proposal(x, at: At, data):
        return _step(step.law(x, at, jax.grad(twist)(x, at, data)))

    return proposal


def by_conditioning(step: Reverse, law: Affine) -> Callable:
    """The proposal that is the step given y, where x0 depends on the new x as at the mean of the step: with its Jacobian, and
    its covariance. At the last step x is x0 itself. Exact where the data of the diffusion are Gaussian."""

    def proposal(x, at: At, data):
        ahead = step.moments(x, at)
        x0, jacobian = step.seen(ahead.mean, at.new)
        rest = law.matrix @ step.covariance(jacobian, at.new) @ law.matrix.T
        matrix = jnp.where(at.last, law.matrix, law.matrix @ jacobian)
        offset = jnp.where(at.last, law.offset, law.mean(x0) - matrix @ ahead.mean)
        seen = Affine(matrix, law.covariance + jnp.where(at.last, 0.0, rest), offset)
        found, _ = update(ahead, seen, at.y)
        return _step(ppl.dist.MultivariateNormal(found.mean, found.covariance))

    return proposal


@ppl.model
def _step(law):
    sample("x", law)


def _known(x) -> Gaussian:
    return Gaussian(x, jnp.zeros((len(x), len(x)), x.dtype))
