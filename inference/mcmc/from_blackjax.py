"""`from_blackjax`: a BlackJAX algorithm is a kernel here.

```python
kernel = inf.from_blackjax(lambda log_density: blackjax.nuts(log_density, step_size=0.5, inverse_mass_matrix=jnp.ones(3)))
posterior = inf.mcmc(program, inf.cycle(kernel, inf.Slice()), key=key)
```

An algorithm there is a pair of functions made for one density, `init(position)` and `step(key, state)`; here a kernel meets
the density in every step, so the algorithm is made anew each time it is traced, which costs nothing when it runs. Its own
settings are those of the lambda: warm-up learns nothing. (Cabezas et al., "BlackJAX: composable Bayesian inference in JAX",
arXiv:2402.10797.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from .members import info_type
from .metropolis import at

# Statistics by the names that ArviZ has for them.
NAMES = {"is_divergent": "diverging", "num_integration_steps": "n_steps", "num_trajectory_expansions": "tree_depth"}


class BlackJAXState(NamedTuple):
    """Where the chain is, and the algorithm's own state."""

    position: jax.Array
    log_density: jax.Array
    inner: Any


class FromBlackJAX(Kernel):
    """See `from_blackjax`."""

    make: Callable[[Callable], Any] = eqx.field(static=True)

    def init(self, key, target, position) -> BlackJAXState:
        inner = begun(self._algorithm(target), key, position)
        if not hasattr(inner, "position"):
            raise ValueError(f"from_blackjax: a state needs the field position, and {type(inner).__name__} has none.")
        return BlackJAXState(*at(target, position), inner)

    def step(self, key, state: BlackJAXState, target):
        algorithm = self._algorithm(target)
        key_begin, key_step = jax.random.split(key)
        elsewhere = jnp.any(state.inner.position != state.position)  # another kernel has moved the chain
        inner = lax.cond(elsewhere, lambda s: begun(algorithm, key_begin, s.position), lambda s: s.inner, state)
        inner, info = algorithm.step(key_step, inner)
        point = at(target, inner.position)
        return BlackJAXState(*point, inner), _report(point, info)

    def _algorithm(self, target):
        algorithm = self.make(lambda position: at(target, position).log_density)  # zero density where it is not finite
        if not (hasattr(algorithm, "init") and hasattr(algorithm, "step")):
            raise ValueError(
                "from_blackjax: expected a function from a log density to an algorithm with init and step, such as lambda "
                f"log_density: blackjax.rmh(log_density, ...), but it returned {type(algorithm).__name__}."
            )
        return algorithm


def from_blackjax(make: Callable[[Callable], Any]) -> FromBlackJAX:
    """A kernel from a function that makes a BlackJAX algorithm (`SamplingAlgorithm`) for a log density.

    - `make`: called with the target's log density, of flat unconstrained positions (dim,). Settings in it are constants of the
      compiled program.

    Statistics: `lp`, and every scalar of the algorithm's info: `acceptance_rate`, `energy`, `diverging`, `n_steps` and
    `tree_depth` under these names, others under their own. What the algorithm takes for its density need not be the target's
    (elliptical slice sampling takes the likelihood), so `lp` costs one density more per step.

    Raises:
        ValueError: for something that is not a function, or does not make such an algorithm.

    Example:
        `inf.from_blackjax(lambda log_density: blackjax.mala(log_density, 0.1))`
    """
    if not callable(make):
        raise ValueError(
            "from_blackjax: expected a function from a log density to an algorithm, such as lambda log_density: "
            f"blackjax.rmh(log_density, ...), got {type(make).__name__}."
        )
    return FromBlackJAX(make)


def begun(algorithm, key, position):
    """The algorithm's state at `position`; some need a key for it."""
    return algorithm.init(position, key)


def _report(point, info):
    """The statistics of a step, from every scalar of BlackJAX's info."""
    scalars = {NAMES.get(name, name): x for name, x in info._asdict().items() if hasattr(x, "shape") and x.shape == ()}
    return info_type("BlackJAX", ("lp", *scalars))(point.log_density, *scalars.values())
