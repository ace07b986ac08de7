"""The door of `mcmc`: what was asked for is checked before any time is spent, and the kernel is made ready to run.

A kernel that leaves settings open (a step size, a metric) is wrapped in `adapted`, by itself or as a member of a
combination; its numbers become arrays, so that changing one compiles nothing anew.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..kernel import Kernel
from ..placement import Placement, Sharded, default_placement
from ..store import Store
from .adaptation.stable import UntilStable
from .adaptation.warmup import Adapted, adapted, open_to_learning
from .delayed_acceptance import DelayedAcceptance
from .initial import Initial, On, Superchains, Uniform
from .members import Combination, has_gradient
from .pathfinder import Pathfinder
from .programs import state_of


def check(kernel, key, chains, draws, warmup, store, until) -> None:
    """Raise ValueError, with a sentence, for what `mcmc` cannot do."""
    if isinstance(kernel, type) and issubclass(kernel, Kernel):
        raise ValueError(f"mcmc: the kernel is the class {kernel.__name__}; make one: {kernel.__name__}().")
    if not isinstance(kernel, Kernel):
        raise ValueError(f"mcmc: expected a kernel such as NUTS() as second argument, got {type(kernel).__name__}.")
    for name, value, least in (("chains", chains, 1), ("draws", draws, 1)):
        if not _counts(value, least):
            raise ValueError(f"mcmc: {name} must be a whole number of at least {least}, got {value!r}.")
    if not isinstance(warmup, UntilStable) and not _counts(warmup, 0):
        got = warmup.__name__ if isinstance(warmup, type) else repr(warmup)
        raise ValueError(f"mcmc: warmup must be a whole number of at least 0, or UntilStable(...), got {got}.")
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()):
        raise ValueError("mcmc: key must be one typed key, for example jax.random.key(0).")
    if not (store is None or isinstance(store, Store)):
        raise ValueError(f'mcmc: store must be a Store, for example Store("runs/schools"), got {type(store).__name__}.')
    if not (until is None or hasattr(until, "reached")) or isinstance(until, type):
        name = until.__name__ if isinstance(until, type) else type(until).__name__
        raise ValueError(f"mcmc: until must be a rule with a method reached, for example TargetESS(1000), got {name}.")
    if warmup == 0 and is_open(kernel):
        name, settings = first_open(kernel)
        given = ", ".join(f"{setting}=..." for setting in settings)
        raise ValueError(
            f"mcmc: warmup=0 leaves the {' and '.join(settings).replace('_', ' ')} of {name} unlearned; give them, "
            f"{name}({given}), or allow a warm-up."
        )


def _counts(value, least: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | np.integer) and bool(value >= least)


def place(kernel: Kernel, placement: Placement | None, target) -> Placement:
    """The placement asked for, or the default; refused where the kernel cannot run so."""
    placement = default_placement(kernel, target) if placement is None else placement
    if kernel.together and not placement.together:
        apart = "shares them out among processes" if isinstance(placement, Sharded) else "runs each by itself"
        raise ValueError(
            f"mcmc: {type(kernel).__name__} looks at all chains at once, and {placement!r} {apart}. Leave the "
            "placement out, or give Vectorized()."
        )
    return placement


def begin(kernel: Kernel, target, chains: int, init: Initial | None) -> Initial:
    """Where chains begin: as asked for, or by default at `Superchains()` for many chains, for few at `Pathfinder()` if the
    kernel has gradients of all sites anyway, else at `Uniform()`; where a surrogate proposes, as suits the surrogate."""
    if init is not None:
        return init
    if isinstance(kernel, DelayedAcceptance):
        return On(kernel.surrogate, begin(kernel.kernels[0], kernel.surrogate, chains, None))
    num = Superchains().num
    if chains >= 4 * num and chains % num == 0:
        return Superchains()
    climbs = has_gradient(state_of(kernel, target, chains)) and not target.is_discrete.any()
    return Pathfinder() if climbs else Uniform()


def is_open(kernel) -> bool:
    """Whether the kernel leaves settings to be learned."""
    if isinstance(kernel, Combination):
        return any(is_open(member) for member in kernel.kernels)
    return isinstance(kernel, Adapted) or bool(open_to_learning(kernel))


def first_open(kernel) -> tuple[str, tuple[str, ...]]:
    """The name of the first kernel inside that leaves settings to be learned, and those settings."""
    if isinstance(kernel, Combination):
        return first_open(next(member for member in kernel.kernels if is_open(member)))
    inner = getattr(kernel, "kernel", kernel)
    return type(inner).__name__, open_to_learning(inner)


def ready(kernel: Kernel, warmup: int) -> Kernel:
    """The kernel that runs: wrapped if it has something to learn, its numbers as arrays (changing one compiles nothing)."""
    if isinstance(kernel, Combination):
        kernel = dataclasses.replace(kernel, kernels=tuple(ready(member, warmup) for member in kernel.kernels))
    elif is_open(kernel) and not isinstance(kernel, Adapted):
        kernel = adapted(kernel)
    kernel = getattr(kernel, "with_warmup", lambda _: kernel)(warmup)
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, float) else x, kernel)
