"""Diffusion models steered at inference time: annealed, guided, multiplied, tilted by a reward.

```python
posterior = inf.smc(q ** 3, denoising(levels, shape=(2,)), key=key, particles=2000)
posterior["x"]                                            # (1, 2000, 2), draws of q^3
posterior.log_evidence, posterior.log_evidence_error      # log of the integral of q^3
inf.smc(Score(network) ** 3, correcting(many_levels, shape=(2,)), key=key)
```
with q = Density(log_q), `log_q(x, sigma)` the log density at a noise level, and levels such as jnp.geomspace(10.0, 0.01, 50).
Where densities are known weights are exact at any number of levels, and particles may move at every one:
`denoising(levels, shape, move=Move(HMC(), 3))`. Where only scores are known they are those of Feynman-Kac correctors (Skreta
et al., ICML 2025, arXiv:2503.02819), right in the limit of many levels: nothing in one run tells how near it is, so compare
with a run of half the levels. (The square of a normal law, from 10 to 0.01: log evidence was off by 1.0 with 50 levels, and by
less than its error of 0.1 with 200.)
"""

from typing import Any

import jax

from ..resampling import Resampler, Systematic, When
from ..smc.loop import Method
from ..smc.move import Move
from ..smc.resample import Resample
from ..smc.step import sequence
from .correct import Correct
from .denoise import Denoise
from .noise_path import Correcting, Denoising


def denoising(
    levels: jax.Array,
    shape: tuple[int, ...],
    *,
    denoise: Denoise = Denoise(),  # noqa: B008
    move: Move | None = None,
    resample: Resampler = When(Systematic(), ess=0.5),  # noqa: B008
    first: Any = None,
) -> Method:
    """Steer densities known at every noise level; for `Density(...)`, powers and products of them, and rewards.

    - `levels`: noise levels (num,), standard deviations in units of x, decreasing; the last may be 0.
    - `shape`: of x.
    - `denoise`: how to go on by a level.
    - `move`: of the particles at every level; none if not given.
    - `resample`: how, and when, particles are resampled before a level.
    - `first`: a distribution of x to begin at in place of the noise of the first level.
    """
    steps = (Resample(resample), denoise) if move is None else (Resample(resample), denoise, move)
    return Method(Denoising(levels, shape, first), sequence(*steps))


def correcting(
    levels: jax.Array,
    shape: tuple[int, ...],
    *,
    correct: Correct = Correct(),  # noqa: B008
    resample: Resampler = When(Systematic(), ess=0.5),  # noqa: B008
) -> Method:
    """Steer laws of which only scores are known; for `Score(...)`, and all that `denoising` takes.

    - `levels`: noise levels (num,), decreasing; so wide at first that the data hardly count, and so many that twice as many
      give the same.
    - `shape`: of x.
    - `correct`: how to go on by a level. `resample`: as for `denoising`.
    """
    return Method(Correcting(levels, shape), sequence(Resample(resample), correct))
