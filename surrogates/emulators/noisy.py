"""Noisy: an emulator that draws its error, so that a likelihood knows how little the emulator knows.

    output = mean(x) + factor(x) z + sqrt(residual) r,        z, r standard normal

The law of the output is that of the emulator's `Prediction`; z has an entry for each component, r one for each output. They
are latent sites, non-centred, so kernels can move them; and where data are normal about the output they can be integrated out
in closed form, since the output is affine in both: what is left is Normal(mean, noise + factor factor' + residual), by
Woodbury's identity in as few dimensions as z has.

```python
cheap = program.intervene({"voltage": noisy(emu, "voltage")})            # sites 'voltage error' and 'voltage residual'
exact = cheap.marginal("voltage error", "voltage residual")              # for normal data
```
It widens a posterior where the emulator is unsure. It does not make it right: errors of neighbouring points go together, and
this draws the error at one point. For that, correct.
(Kennedy and O'Hagan, JRSS B 63, 2001; Higdon et al., JASA 103, 2008.)
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array

import ppl
from ppl import dist

from .emulator import Emulator


class Noisy(eqx.Module):
    """See the file's docstring. A function for `program.intervene`, to be called in a program.

    - `name`: the sites are `"<name> error"` and `"<name> residual"`.
    - `residual`: False leaves the second out, where components say all but nothing of the outputs.
    """

    emulator: Emulator
    name: str = eqx.field(static=True)
    residual: bool = eqx.field(static=True, default=True)

    def __call__(self, *args: Any) -> Array:
        known = self.emulator.predict(*args)
        z = ppl.sample(f"{self.name} error", dist.Normal(0.0, 1.0).expand(known.factor.shape[-1:]).to_event(1))
        out = known.mean + known.factor @ z
        if not self.residual:
            return out
        own = dist.Normal(0.0, 1.0).expand(known.mean.shape).to_event(known.mean.ndim)
        return out + jnp.sqrt(known.residual) * ppl.sample(f"{self.name} residual", own)

    @property
    def true_calls(self) -> int:
        """What the emulator has cost."""
        return int(getattr(self.emulator, "true_calls", 0))


def noisy(emulator: Emulator, name: str, *, residual: bool = True) -> Noisy:
    """`emulator` with its error drawn anew wherever it is called; see the file's docstring.

    Raises:
        ValueError: for what is no emulator, or no name.

    Example:
        `program.intervene({"voltage": noisy(emulator, "voltage")}).marginal("voltage error", "voltage residual")`
    """
    if not hasattr(emulator, "predict"):
        raise ValueError(f"noisy: expected an emulator, whose predict(*args) tells its error, got {type(emulator).__name__}.")
    if not isinstance(name, str) or not name:
        raise ValueError(f"noisy: the sites need a name, such as that of the call, got {name!r}.")
    return Noisy(emulator, name, residual)
