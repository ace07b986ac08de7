"""f-divergences: -D_f(posterior || guide) = -E_q f(p / q), for a function f of your own; and the symmetric KL, of Jeffreys.

f is convex, and zero at 1; it is given as a function of the log ratio l = log(p / q), so that nothing overflows:

| divergence            | f(u)              | of l = log u                    |
|-----------------------|-------------------|---------------------------------|
| KL(guide, posterior)  | -log u            | `lambda l: -l`                  |
| KL(posterior, guide)  | u log u           | `lambda l: l * jnp.exp(l)`      |
| chi squared           | (u - 1)^2         | `lambda l: jnp.expm1(l) ** 2`   |
| squared Hellinger     | (sqrt u - 1)^2    | `lambda l: jnp.expm1(l / 2)**2` |
| total variation       | abs(u - 1) / 2    | `lambda l: abs(jnp.expm1(l))/2` |

(Ali and Silvey, JRSSB 28, 1966; Csiszar, 1967; Wan, Li and Wang, "f-divergence variational inference", NeurIPS 2020; Jeffreys,
Proc. R. Soc. A 186, 1946.)

```python
inf.maximize(f_divergence(lambda l: jnp.expm1(l / 2) ** 2), program | data, guide(phi), log_evidence, key=key)
```
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp

from ..expectation import Expectation, expectation
from .match import same_sites
from .population import check_num, not_in_part, population, weighted


def f_divergence(f: Callable[[jax.Array], jax.Array]) -> Expectation:
    """-D_f(model || guide), an objective of (model, guide, log_evidence). `f`: of the log ratio of densities, a scalar.

    - `log_evidence`: of the model, so that its density over the evidence is that of the posterior; 0 for a model without data.
      Unbiased for the evidence that is given; an estimate of it may come from `iwelbo`, a filter or `inf.importance`.
    """
    if not callable(f):
        raise ValueError(f"f_divergence: expected a function of the log ratio, such as lambda l: -l, got {type(f).__name__}.")
    return expectation(FDivergence(f))


@dataclass(frozen=True, slots=True)
class FDivergence:
    """The function of `f_divergence`. Of one f it is the same, so that what was compiled for it is found again."""

    f: Callable[[jax.Array], jax.Array]

    @property
    def __name__(self) -> str:
        return "f_divergence"

    def __call__(self, model, guide, log_evidence=0.0):
        same_sites(model, guide)
        not_in_part(model, guide)
        _, log_w = weighted(model, guide)
        return -jnp.asarray(self.f(log_w - log_evidence))


@cache
def symmetric_kl(num: int) -> Expectation:
    """-(KL(guide || posterior) + KL(posterior || guide)) by `num` draws, two at least; an objective of (model, guide).

    The evidence falls out of the sum. The second part is by weights that are divided by their sum: its bias falls as 1/K.
    """
    check_num("symmetric_kl", num, least=2)

    @expectation
    def symmetric_kl(model, guide):
        _, log_w = population(model, guide, num)
        return jnp.mean(log_w) - jnp.vdot(jax.nn.softmax(log_w), log_w)

    return symmetric_kl
