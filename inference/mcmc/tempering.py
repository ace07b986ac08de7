"""Tempering: flatten the likelihood, so that chains can cross between modes.

The tempered law at inverse temperature b is prior x likelihood^b: the prior at 0, the posterior at 1.

```python
inf.tempered(inf.NUTS(), 0.5)                    # draws from prior x likelihood^0.5
```
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..kernel import Kernel
from .members import Combination, checked


class TemperedTarget(eqx.Module):
    """A target's prior x likelihood^inverse_temperature, over the same positions. It has no program: kernels that would ask it
    for one, and so miss the power, do not run on it."""

    target: Any
    inverse_temperature: jax.Array | float

    @property
    def dim(self) -> int:
        return self.target.dim

    @property
    def names(self) -> tuple[str, ...]:
        return self.target.names

    @property
    def slots(self):
        return self.target.slots

    @property
    def is_discrete(self):
        return self.target.is_discrete

    def refuse_discrete(self, who: str, slots: Sequence[Any] | None = None) -> None:
        self.target.refuse_discrete(who, slots)

    def refuse_continuous(self, who: str, slots: Sequence[Any] | None = None) -> None:
        self.target.refuse_continuous(who, slots)

    def fill(self, key, position):
        return self.target.fill(key, position)

    def constrain(self, position):
        return self.target.constrain(position)

    def unconstrain(self, choices):
        return self.target.unconstrain(choices)

    def log_density(self, position):
        """+log density at `position` (dim,), up to a constant; a scalar."""
        return sum(self.log_prior_and_likelihood(position))

    def log_prior_and_likelihood(self, position):
        """The prior with Jacobian, and the tempered likelihood."""
        log_prior, log_likelihood = self.target.log_prior_and_likelihood(position)
        return log_prior, power(log_likelihood, self.inverse_temperature)

    def log_density_apart(self, address: str, position):
        """`Target.log_density_apart` of the tempered law."""
        log_prior, log_likelihood = self.target.log_prior_and_likelihood_apart(address, position)
        return log_prior + power(log_likelihood, self.inverse_temperature)

    def log_density_between(self, position):
        """That of the target: it only says where to go."""
        return self.target.log_density_between(position)


def power(log_likelihood, inverse_temperature):
    """The log of likelihood^inverse_temperature, where 0^0 is 1."""
    return jnp.where(inverse_temperature == 0, 0.0, inverse_temperature * log_likelihood)


class TemperedState(NamedTuple):
    """The wrapped kernel's state, on the tempered target."""

    at: Any

    @property
    def inner(self):
        raise ValueError(
            "tempered: its law is not the posterior, so it cannot take turns with other kernels. Temper the combination: "
            "tempered(cycle(...), 0.5)."
        )

    @property
    def position(self):
        return self.at.position


class Tempered(Combination):
    """See `tempered`."""

    kernels: tuple[Kernel]
    inverse_temperature: jax.Array | float

    def init(self, key, target, position) -> TemperedState:
        return TemperedState(self.kernels[0].init(key, TemperedTarget(target, self.inverse_temperature), position))

    def step(self, key, state: TemperedState, target):
        at, info = self.kernels[0].step(key, state.at, TemperedTarget(target, self.inverse_temperature))
        return TemperedState(at), info

    def learn(self, i, state: TemperedState, info) -> TemperedState:
        return TemperedState(self.kernels[0].learn(i, state.at, info))


def tempered(kernel: Kernel, inverse_temperature: float) -> Tempered:
    """`kernel` on prior x likelihood^inverse_temperature, in place of the posterior.

    The likelihood is all data and factors; of a `Target.from_log_density`, the function. Temper a cycle, not its members:
    they would not agree on the law.

    Raises:
        ValueError: for an inverse temperature that is negative or not finite.
    """
    if isinstance(inverse_temperature, float | int) and not 0 <= inverse_temperature < float("inf"):
        raise ValueError(f"tempered: inverse_temperature must be a number of at least 0, got {inverse_temperature}.")
    return Tempered(checked("tempered", (kernel,)), inverse_temperature)
