"""Metropolis and Hastings: take a proposed state with probability min(1, exp(log_ratio)), else stay.

`log_ratio` is log [p(new) q(old | new)] - log [p(old) q(new | old)]. Where it is not a number the proposal is rejected, and a
density that is not finite counts as zero, so no chain enters where the target is NaN or infinite.
(Metropolis et al., J. Chem. Phys. 21, 1953; Hastings, Biometrika 57, 1970.)

```python
new = at(target, position + move)
state, rate = accept(key, new.log_density - old.log_density, new, old)
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..numerics import finite_or, select


class State(NamedTuple):
    """Where a chain is: `position` (dim,) and its `log_density` ()."""

    position: jax.Array
    log_density: jax.Array


class GradientState(NamedTuple):
    """Where a chain is: `position` (dim,), its `log_density` () and `gradient` (dim,)."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array


def at(target, position) -> State:
    """The state at `position`."""
    return State(position, finite_or(target.log_density(position), -jnp.inf))


def at_with_gradient(target, position) -> GradientState:
    """The state at `position`, gradient included."""
    log_density, gradient = jax.value_and_grad(target.log_density)(position)
    return GradientState(position, finite_or(log_density, -jnp.inf), gradient)


def accept(key, log_ratio, new, old):
    """The pytree `new` or `old`, and the probability with which it was to be `new`.

    Several proposals at once, each with its own `log_ratio`, are accepted or not independently, entry by entry of `new`.
    """
    return decided(jax.random.exponential(key, jnp.shape(log_ratio), jnp.result_type(log_ratio)), log_ratio, new, old)


def decided(exponential, log_ratio, new, old):
    """`accept`, given the noise: an exponential of rate 1, minus the log of a uniform number."""
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    return select(-exponential < log_ratio, new, old), jnp.exp(jnp.minimum(log_ratio, 0.0))
