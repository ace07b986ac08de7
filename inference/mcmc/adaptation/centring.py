"""How centred should a site be? Learned, entry by entry, before sampling.

Where the data say much of a group's effect it is best sampled as it is (centred); where they say little, as a standard
effect that is shifted and scaled (non-centred), or chains get stuck in the neck of a funnel. In between there is every mixture
of the two (`ppl.PartlyCentered`). In a normal hierarchy the best one is the share of what is known of the effect that comes
from the data: 1 - v, where v is the variance of the standard effect given all else, which is 1 where there are no data
(Papaspiliopoulos, Roberts and Skoeld, Statistical Science 22, 2007, section 3).

That v is what a mean-field normal approximation of the non-centred posterior finds: its variances are those of each coordinate
given all others. So one is fitted, by maximising the ELBO with Adam.

```python
rules = inf.learn_centering(program, key=key)      # {"theta": PartlyCentered(...)}
posterior = inf.mcmc(program.reparam(rules), inf.NUTS(), key=key)
```
The joint distribution stays what it is, whatever was learned: a bad answer costs time, not correctness.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import ppl
from ppl.reparam import non_centred_sites

RATE = 0.1  # of Adam, falling to nothing along a cosine
DRAWS = 16  # of the normal approximation, per step
FIRST_SD = 0.3


def learn_centering(program: Any, *sites: str, key: jax.Array, steps: int = 1000) -> dict[str, ppl.PartlyCentered]:
    """The centring of each entry of `sites`, as rules for `program.reparam`.

    - `program`: conditioned on its data.
    - `sites`: latent location-scale sites; by default all whose parameters depend on other latent sites.
    - `key`: a typed key. `steps`: of Adam, each with 16 gradients of the log density, all in one compiled loop.

    Raises:
        ValueError: for a site that has no location and scale, or when there is no site to learn about.

    Example:
        `program.reparam(inf.learn_centering(program, key=jax.random.key(0)))`
    """
    names = sites or tuple(name for name in non_centred_sites(program) if _entrywise(program.sites()[name]))
    if not names:
        raise ValueError(
            "learn_centering: no latent location-scale site of this program depends on another latent site, so there is "
            "nothing to centre. Name the sites to look at all the same."
        )
    program.reparam({name: ppl.PartlyCentered(0.0) for name in names}).sites()  # says what is wrong with a name
    target = ppl.Target(program.reparam({name: ppl.NonCentered() for name in names}))
    variance = _variance(target, key, steps)
    blocks = {slot.address: jnp.reshape(variance[slot.start : slot.start + slot.size], slot.shape) for slot in target.slots}
    return {name: ppl.PartlyCentered(jnp.clip(1.0 - blocks[f"{name}_base"], 0.0, 1.0)) for name in names}


def _entrywise(row) -> bool:
    """Whether entries of the site can be centred each to its own degree."""
    return row.family != "MultivariateNormal" and not row.partial


@partial(jax.jit, static_argnums=2)
def _variance(target, key, steps: int):
    """The variances (dim,) of the mean-field normal approximation."""

    def loss(parameters, key):
        mean, log_sd = parameters
        normal = jax.random.normal(key, (DRAWS, *mean.shape), mean.dtype)
        log_density = jax.vmap(target.log_density)(mean + jnp.exp(log_sd) * normal)
        return -jnp.mean(log_density) - jnp.sum(log_sd)

    def step(carry, key):
        parameters, state = carry
        updates, state = optimizer.update(jax.grad(loss)(parameters, key), state)
        return (jax.tree.map(jnp.add, parameters, updates), state), None

    rate = optax.cosine_decay_schedule(RATE, steps)
    optimizer = optax.chain(optax.zero_nans(), optax.clip_by_global_norm(100.0), optax.adam(rate))
    mean = jnp.zeros(target.dim)
    parameters = (mean, jnp.full_like(mean, jnp.log(FIRST_SD)))
    (parameters, _), _ = lax.scan(step, (parameters, optimizer.init(parameters)), jax.random.split(key, steps))
    return jnp.exp(2.0 * parameters[1])
