"""Enumeration: the exact posterior of a program whose latent sites are all discrete, by trying every joint choice.

```python
found = enumerate_choices(sprinkler() | {"wet": 1})
found.log_evidence                               # log p(wet)
found.marginals()["rain"].probabilities          # p(rain | wet), by value
found.mean(lambda c: c["rain"] * c["sprinkler"])
found.choices(jnp.argmax(found.log_probabilities))
```

The table has a log probability for each joint choice, and nothing else: the choice that a row stands for is computed from its
number, digit by digit, the last entry fastest. Densities are computed in blocks, so memory stays that of the table.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ppl
from ppl.target import Target, as_target

MOST = 2**22  # joint choices: a table of 16 MB in float32
BLOCK = 2**12  # densities computed at the same time


class Marginal(NamedTuple):
    """The law of each entry of a site: `values` (V,), and `probabilities`, of the shape of the site with an axis (V,) more."""

    values: jax.Array
    probabilities: jax.Array


class Enumeration(eqx.Module):
    """The posterior as a table.

    - `log_evidence`: (), the log of the sum of the joint density over all choices; -inf where the data are impossible.
    - `log_probabilities`: (num_choices,), of each joint choice given the data.
    """

    target: Target
    log_evidence: jax.Array
    log_probabilities: jax.Array

    def choices(self, row) -> Any:
        """The joint choice in a row of the table, a nested dict; of many rows, each leaf leads with their shape.

        Example:
            `found.choices(jnp.arange(len(found.log_probabilities)))` is the whole table.
        """
        row = jnp.asarray(row)
        flat = jax.vmap(lambda i: self.target.constrain(_position(self.target, i)))(row.ravel())
        return jax.tree.map(lambda x: x.reshape(row.shape + x.shape[1:]), flat)

    def mean(self, f: Callable[[Any], Any]) -> Any:
        """The exact posterior mean of `f(choices)`, a pytree of numbers and arrays."""

        def block(rows):
            values = jax.vmap(f)(self.choices(rows))
            weights = jnp.exp(self.log_probabilities.at[rows].get(mode="fill", fill_value=-jnp.inf))
            return jax.tree.map(lambda x: _weighted(weights, x), values)

        return jax.tree.map(lambda x: jnp.sum(x, 0), lax.map(block, _blocks(len(self.log_probabilities))))

    def marginals(self) -> dict[str, Marginal]:
        """The posterior law of each entry of each site, by address.

        Of a site some entries of which are data, only the others: the shape is then (how many, V).
        """
        table, digits, out = jnp.exp(self.log_probabilities), _digits(self.target), {}
        for slot in self.target.slots:
            mine = range(slot.start, slot.start + slot.size)
            sums = [jnp.sum(table.reshape(-1, digits.num[i], digits.stride[i]), (0, 2)) for i in mine]
            values = digits.low[slot.start] + jnp.arange(digits.num[slot.start], dtype=slot.dtype)
            shape = slot.shape if slot.missing is None else (slot.size,)
            out[slot.address] = Marginal(values, jnp.stack(sums).reshape(*shape, len(values)))
        return out

    def sample(self, key, num: int) -> Any:
        """`num` independent joint choices from the posterior; each leaf leads with (num,)."""
        rows = jax.random.choice(key, len(self.log_probabilities), (num,), p=jnp.exp(self.log_probabilities))
        return self.choices(rows)

    def __repr__(self) -> str:
        return f"Enumeration of {len(self.log_probabilities)} joint choices of {', '.join(self.target.names)}"


def enumerate_choices(program: ppl.Program | Target) -> Enumeration:
    """The exact log evidence and posterior of a program whose latent sites are discrete, of finite support.

    Args:
        program: conditioned on its data. The log evidence is differentiable in its arguments. Inside `jax.jit` the supports of
            a program whose arguments are traced are not known: make `ppl.Target(program)` outside, and pass that.

    Returns:
        `Enumeration`.

    Raises:
        ValueError: for a continuous site, one that can take infinitely many values (or whose values depend on other
            sites), or more than 2^22 joint choices.

    Example:
        `enumerate_choices(mixture(x)).log_evidence`
    """
    target = as_target(program)
    _check(target)
    log_density = _table(target)
    log_evidence = jax.nn.logsumexp(log_density)
    return Enumeration(target, log_evidence, log_density - log_evidence)


class Digits(NamedTuple):
    """How a row of the table is read: entry i of the vector is low[i] + row // stride[i] % num[i]."""

    low: np.ndarray
    num: np.ndarray
    stride: np.ndarray


def _digits(target: Target) -> Digits:
    bounds = np.array([slot.bounds for slot in target.slots for _ in slot.entries])
    num = bounds[:, 1] - bounds[:, 0] + 1
    return Digits(bounds[:, 0], num, np.cumprod([1, *num[:0:-1]])[::-1])


def _position(target: Target, row):
    """The flat vector (dim,) of the joint choice in a row."""
    digits = _digits(target)
    return (digits.low + row // digits.stride % digits.num).astype(float)


@jax.jit
def _table(target: Target):
    """The log density of every joint choice (num_choices,)."""
    num = math.prod(_digits(target).num.tolist())
    densities = jax.vmap(lambda row: target.log_density(_position(target, row)))
    return lax.map(densities, _blocks(num)).ravel()[:num]


def _blocks(num: int):
    """Rows 0 to num - 1 and some more, (blocks, rows of a block)."""
    size = min(BLOCK, num)
    return jnp.arange(-(-num // size) * size, dtype=jnp.int32).reshape(-1, size)


def _weighted(weights, x):
    """Sum of `x` (N, ...) by weights (N,); what has none counts none, even if it is not a number."""
    weights = weights.reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.sum(jnp.where(weights > 0, weights * x, 0), 0)


def _check(target: Target) -> None:
    """Refuse what cannot be enumerated."""
    for slot in target.slots:
        if slot.dtype is None:
            family = target.program.sites()[slot.address].family
            raise ValueError(
                f"site '{slot.address}' is continuous ({family}), and enumerate_choices tries every value of every site. "
                "Condition on it, or use inf.mcmc."
            )
        if slot.bounds is None:
            raise ValueError(
                f"site '{slot.address}' can take infinitely many values, or their number depends on another site or is not "
                "known inside jax.jit, and enumerate_choices tries them all. Use a distribution with fixed bounds, make the "
                "Target outside the jit, or use inf.mcmc."
            )
    counts = {slot.address: (high - low + 1, slot.size) for slot in target.slots for low, high in [slot.bounds or (0, 0)]}
    if math.prod(num**size for num, size in counts.values()) > MOST:
        sizes = ", ".join(f"{num}^{size} of '{address}'" for address, (num, size) in counts.items())
        raise ValueError(
            f"the latent sites have too many joint choices ({sizes}); enumerate_choices tries at most {MOST}. Use the "
            "structure of the model (forward_backward for a chain), or inf.mcmc."
        )
