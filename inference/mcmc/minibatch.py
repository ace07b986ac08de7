"""`minibatches`: a target whose gradient is estimated from a few rows of the data.

The rows are independent given the latent sites, so the log likelihood is a sum over them, and

    gradient(key, position) = grad log prior + num_rows / size * grad log likelihood of `size` rows, drawn with replacement

is unbiased. With control variates the rows' gradients at a mode are taken off and put back in full: near the mode, where
a posterior of many rows lies, little noise is left. (Robbins and Monro, Ann. Math. Stat. 22, 1951; control variates: Baker,
Fearnhead, Fox and Nemeth, Stat. Comput. 29, 2019, arXiv:1706.05439.)

```python
target = inf.minibatches(lambda x, y: regression(x) | {"y": y}, (x, y), size=100)
posterior = inf.mcmc(target.around_mode(), inf.SGLD(step_size=1e-4), key=key)
```
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax

import ppl

MOST_STEPS = 500  # of the search for a mode


class Centre(NamedTuple):
    """Where estimates are exact: a position (dim,), and the gradient (dim,) of the log density there."""

    position: jax.Array
    gradient: jax.Array


class Minibatches(eqx.Module):
    """See `minibatches`. For all but gradients it is the target of all rows, `full`."""

    full: ppl.Target
    rows: Any
    build: Callable = eqx.field(static=True)
    size: int = eqx.field(static=True)
    centre: Centre | None = None

    @property
    def num_rows(self) -> int:
        """How many rows the data have."""
        return len(jax.tree.leaves(self.rows)[0])

    def gradient(self, key, position):
        """An unbiased estimate of the gradient of the log density at `position`, (dim,)."""
        return self.estimate(jax.random.randint(key, (self.size,), 0, self.num_rows), position)

    def estimate(self, index, position):
        """The estimate (dim,) from the rows of numbers `index` (size,)."""
        target = ppl.Target(self.build(*jax.tree.map(lambda x: x[index], self.rows)))
        scale = self.num_rows / len(index)

        def log_density(position):
            log_prior, log_likelihood = target.log_prior_and_likelihood(position)
            return log_prior + scale * log_likelihood

        gradient = jax.grad(log_density)
        if self.centre is None:
            return gradient(position)
        return self.centre.gradient + gradient(position) - gradient(self.centre.position)

    def around_mode(self, choices=None) -> "Minibatches":
        """The same, with control variates around the mode; or around given `choices` near it, a dict of all latent sites.

        The mode, of the density of unconstrained coordinates, is found by L-BFGS with all rows, beginning at zero.

        Raises:
            ValueError: when none is found, as where the density has no maximum.
        """
        position = _mode(self.full) if choices is None else self.full.unconstrain(choices)
        gradient = jax.jit(lambda target, x: jax.grad(target.log_density)(x))(self.full, position)
        if not jnp.isfinite(gradient).all():
            raise ValueError(f"minibatches: no control variates there, {self.full.explain(position)}.")
        return Minibatches(self.full, self.rows, self.build, self.size, Centre(position, gradient))

    # -- as the target of all rows ---------------------------------------------------------------------------------------

    @property
    def program(self):
        return self.full.program

    @property
    def slots(self):
        return self.full.slots

    @property
    def dim(self) -> int:
        return self.full.dim

    @property
    def names(self) -> tuple[str, ...]:
        return self.full.names

    @property
    def on_host(self) -> bool:
        return self.full.on_host

    @property
    def is_discrete(self):
        return self.full.is_discrete

    def log_density(self, position):
        """+log density of all rows at `position` (dim,), a scalar."""
        return self.full.log_density(position)

    def record(self, position):
        return self.full.record(position)

    def constrain(self, position):
        return self.full.constrain(position)

    def unconstrain(self, choices):
        return self.full.unconstrain(choices)

    def fill(self, key, position):
        return self.full.fill(key, position)

    def explain(self, position) -> str:
        return self.full.explain(position)

    def refuse_discrete(self, who: str, slots=None) -> None:
        self.full.refuse_discrete(who)

    def __repr__(self) -> str:
        how = "" if self.centre is None else ", with control variates"
        return f"Gradients from {self.size} of {self.num_rows} rows{how}\n{self.full}"


def minibatches(build: Callable, rows: tuple, *, size: int) -> Minibatches:
    """A target whose `gradient(key, position)` is estimated from `size` rows at a time, for `SGLD` and `SGHMC`.

    - `build`: from some of the rows, arrays like `rows`, to the conditioned program of these rows alone. All that it observes,
      and its factors, count as likelihood of the rows; latent sites must be the same whatever the rows.
    - `rows`: a tuple of arrays (num_rows, ...), the arguments of `build`.
    - `size`: how many rows an estimate takes, drawn with replacement. Its noise falls as 1 / size.

    Everything else about the target, such as its `log_density`, is of all rows. `around_mode()` adds control variates.

    Raises:
        ValueError: for rows of different lengths, a `size` that is none, a latent site whose shape depends on the rows.

    Example:
        `inf.minibatches(lambda x, y: regression(x) | {"y": y}, (x, y), size=100)`
    """
    num = num_rows("minibatches", rows, size)
    rows = jax.tree.map(jnp.asarray, rows)
    full = ppl.as_target(build(*rows))
    batch = ppl.as_target(build(*jax.tree.map(lambda x: x[:size], rows)))
    few = batch if size < num else ppl.as_target(build(*jax.tree.map(lambda x: x[:1], rows)))
    of_few = {slot.address: slot for slot in few.slots}
    for slot in full.slots:
        other = of_few.get(slot.address)
        if other is None or (slot.shape, slot.missing) != (other.shape, other.missing):
            raise ValueError(
                f"minibatches: the latent site '{slot.address}' depends on the rows: it has the shape {slot.shape} for all of "
                f"them, {'and is not there' if other is None else other.shape} for some. Integrate it out, or sample it "
                "outside of what depends on the rows."
            )
    return Minibatches(full, rows, build, size)


def num_rows(who: str, rows: tuple, size: int) -> int:
    """How many rows there are.

    Raises:
        ValueError: for rows that are no tuple of arrays of one length, or fewer than `size`.
    """
    if not isinstance(rows, tuple) or not jax.tree.leaves(rows):
        raise ValueError(f"{who}: rows must be a tuple of arrays, the arguments of build, got {type(rows).__name__}.")
    lengths = [jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(rows)]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(f"{who}: the rows must be arrays of one length, one entry a row; theirs are {lengths}.")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= lengths[0]:
        raise ValueError(f"{who}: size must be a whole number from 1 to {lengths[0]}, the number of rows, got {size!r}.")
    return lengths[0]


@jax.jit
def _search(target, position):
    """The position (dim,) that L-BFGS finds, and the gradient there in units of what it was at first."""

    def loss(x):
        return -target.log_density(x)

    search, evaluate = optax.lbfgs(), optax.value_and_grad_from_state(loss)

    def go_on(carry):
        num, _, _, norm, first = carry
        return (num < MOST_STEPS) & (norm > tolerance * first)

    def advance(carry):
        num, x, state, _, first = carry
        value, gradient = evaluate(x, state=state)
        updates, state = search.update(gradient, state, x, value=value, grad=gradient, value_fn=loss)
        x = optax.apply_updates(x, updates)
        return num + 1, x, state, jnp.linalg.norm(optax.tree_utils.tree_get(state, "grad")), first

    tolerance = jnp.sqrt(jnp.finfo(position.dtype).eps)
    first = jnp.linalg.norm(jax.grad(loss)(position)) + 1.0
    _, x, _, norm, _ = lax.while_loop(go_on, advance, (jnp.int32(0), position, search.init(position), first, first))
    return x, norm / first


def _mode(target):
    position, rest = _search(target, jnp.zeros(target.dim))
    if not (jnp.isfinite(position).all() and rest < 1e-2):
        raise ValueError(
            f"minibatches: no mode was found in {MOST_STEPS} steps from zero. Give a place near one: around_mode({{...}})."
        )
    return position
