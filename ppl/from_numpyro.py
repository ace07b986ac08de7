"""NumPyro models as models here, unmodified: `from_numpyro(model)(*args, **kwargs)` is a Program.

The model runs under one NumPyro handler that stands outside all others. By the time a site's message reaches it, plates
have expanded the distribution, and scale, mask, scope, reparam, condition and do have acted; it hands what is left to the
verbs of this language.

Law: the program's log density at any choices equals `numpyro.infer.util.log_density(model, args, kwargs, choices)[0]`.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit
from numpyro.primitives import _PYRO_STACK, Messenger

from . import primitives
from ._keys import Key, Shared, fold
from .combinators import cond, scan
from .program import Model

# NumPyro's stack of handlers is one list for all threads, so runs of NumPyro models take turns
_turn = threading.RLock()


def from_numpyro(model: Callable) -> Model:
    """Make a model from a NumPyro model: a function of NumPyro statements, handlers around it or not.

    Args:
        model: it may use `sample` (with `obs=` or `obs_mask=`), `plate` and `plate_stack`, `factor`, `deterministic`,
            `param` (a constant at its initial value), `handlers.scale`, `mask`, `scope`, `reparam`, `condition`,
            `substitute`, `do`, `lift`, and `scan` and `cond` of `numpyro.contrib.control_flow`.

    Returns:
        A Model; its sites have NumPyro's names, and sites of a `scan` a leading time axis.

    Raises:
        ValueError: when it is not a function; and, from the program: for a plate that subsamples, a network whose weights
            have no prior, an array in `handlers.mask` or `handlers.scale` around a `scan`.

    Example:
        `posterior = inf.mcmc(ppl.from_numpyro(model)(x, y), inf.NUTS(), key=key)`
    """
    if isinstance(model, Model):
        raise ValueError(f"'{model.__name__}' is a model of this language already: call it with its arguments.")
    if not callable(model):
        raise ValueError(f"from_numpyro needs a NumPyro model, that is a function, but got {type(model).__name__}.")
    return Model(_Bridged(model))


class _Bridged:
    """A NumPyro model as a function of `ppl` sites. Equal models make equal functions, so compiled code is shared."""

    def __init__(self, model: Callable) -> None:
        update_wrapper(self, model, updated=())
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bridge = _Bridge()
        with _turn, _standing([bridge]):
            out = self.model(*args, **kwargs)
        bridge.refuse_untrained()
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bridged) and self.model == other.model

    def __hash__(self) -> int:
        return hash(self.model)


@contextmanager
def _standing(stack: list) -> Iterator[None]:
    """Let `stack` be NumPyro's handlers, and put the former ones back whatever happens."""
    before = list(_PYRO_STACK)
    _PYRO_STACK[:] = stack
    try:
        yield
    finally:
        _PYRO_STACK[:] = before


class _Bridge(Messenger):
    """The outermost handler: what reaches it becomes a site of the running program."""

    def __init__(self) -> None:
        super().__init__()
        self.sampled: list[str] = []
        self.networks: list[str] = []
        self.initialising = False

    def process_message(self, msg: Any) -> None:
        initialising, self.initialising = self.initialising, False
        match msg["type"]:
            case "sample":
                self.sampled.append(msg["name"])
                msg["value"] = _sample(msg)
            case "deterministic" if _is_array(msg["value"]):
                msg["value"] = primitives.deterministic(msg["name"], msg["value"])
            case "plate" if msg["value"] is None:
                size, subsample = msg["args"]
                raise ValueError(
                    f"plate '{msg['name']}' subsamples {subsample} of {size}. A program has one density, not a random "
                    "estimate of it: leave subsample_size out."
                )
            case "control_flow":
                msg["value"] = self._control_flow(msg)
            case "param" if msg["value"] is None:
                # a first call without a value asks whether there is one; a network is then initialised with a key
                self.initialising = not msg["args"] or msg["args"][0] is None
                if msg["name"].endswith("$params") and (not msg["args"] or msg["args"][0] is not None):
                    self.networks.append(msg["name"].removesuffix("$params"))
            case "prng_key" if msg["kwargs"]["rng_key"] is None:
                msg["value"] = _some_key(initialising)

    def refuse_untrained(self) -> None:
        """Networks of numpyro.contrib.module without a prior would silently keep their initial weights."""
        for name in self.networks:
            if not any(site.startswith(name) for site in self.sampled):
                raise ValueError(
                    f"the network '{name}' has weights that are neither sampled nor trained. Give them a prior with "
                    f"NumPyro's random_flax_module, random_nnx_module or random_eqx_module, or fix them with "
                    f"numpyro.handlers.substitute(model, data={{'{name}$params': weights}})."
                )

    def _control_flow(self, msg: Any) -> tuple:
        from numpyro.contrib.control_flow.cond import cond_wrapper
        from numpyro.contrib.control_flow.scan import scan_wrapper
        from numpyro.ops.pytree import PytreeTrace

        key, around = msg["kwargs"]["rng_key"], list(_PYRO_STACK)
        nothing = PytreeTrace({})  # NumPyro sends the sites of a loop once more, stacked; here they are recorded already
        if msg["fn"] is cond_wrapper:
            pred, true_fun, false_fun, operand = msg["args"]

            def inside(fun: Callable) -> Callable:
                def branch(x: Any) -> Any:
                    with _standing([h for h in around if not _sequential(h)]), _seeded(key):
                        return fun(x)

                return branch

            return cond(pred, inside(true_fun), inside(false_fun), operand), nothing
        if msg["fn"] is not scan_wrapper:
            raise ValueError(f"control flow of NumPyro other than scan and cond is not known: {msg['fn']}.")
        f, init, xs, length, reverse = msg["args"]
        steps = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length

        def step(carry: Any, x: Any) -> Any:
            i, carry = carry
            now = [inner for h in around for inner in _at_step(h, i, steps)]
            with _standing(now), _seeded(None if key is None else fold(key, i)):
                carry, y = f(carry, x)
            return (i + 1, carry), y

        (_, carry), ys = scan(step, (jnp.asarray(0), init), xs, length, reverse=reverse)
        return (steps, None, carry), (nothing, ys)


def _some_key(initialising: bool) -> Array:
    """A key for initial values, which are constants of the program; nothing else may be random beside its sites."""
    if initialising or any(isinstance(h, handlers.uncondition) for h in _PYRO_STACK):
        return jax.random.key(0)
    raise ValueError(
        "the NumPyro model draws random numbers beside its sites (numpyro.prng_key, or a site under handlers.block), and a "
        "density has no key for them. To fix them once and for all pass numpyro.handlers.seed(model, rng_seed=0)."
    )


def _sample(msg: Any) -> Any:
    """The site of a message: a factor, data or a random choice."""
    name, d, value, factor = msg["name"], msg["fn"], msg["value"], msg["scale"]
    d = _expand(d, msg["kwargs"].get("sample_shape", ()) + d.batch_shape)
    if _is_unit(d):
        log_weight = d.log_prob(jnp.zeros(d.shape()) if value is None else value)
        primitives.factor(name, log_weight if factor is None else factor * log_weight)
        return jnp.zeros(d.shape())
    if value is not None:
        d, value = _together(d, value)
    # a value that a handler substituted is data too: it is fixed, and its density counts
    return primitives.sample(name, d if factor is None else Scaled(d, factor), obs=value)


class Scaled(Distribution):
    """A distribution whose log density is multiplied by `scale`: the meaning of `handlers.scale`. Draws are unchanged."""

    arg_constraints = {}
    pytree_data_fields = ("base_dist", "scale")

    def __init__(self, base_dist: Distribution, scale: Any) -> None:
        self.base_dist, self.scale = base_dist, scale
        super().__init__(base_dist.batch_shape, base_dist.event_shape)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.base_dist.sample(key, sample_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return self.scale * self.base_dist.log_prob(value)


def _expand(d: Distribution, batch_shape: tuple[int, ...]) -> Distribution:
    return d if d.batch_shape == batch_shape else d.expand(batch_shape)


def _together(d: Distribution, value: Any) -> tuple[Distribution, Any]:
    """Distribution and data in one shape, as NumPyro's densities broadcast them."""
    if np.shape(value) == d.shape():
        return d, value
    try:
        shape = np.broadcast_shapes(np.shape(value), d.shape())
    except ValueError:
        return d, value  # they do not fit; `sample` says so
    return _expand(d, shape[: len(shape) - d.event_dim]), jnp.broadcast_to(value, shape)


def _is_unit(d: Distribution) -> bool:
    while isinstance(d, Independent | ExpandedDistribution | MaskedDistribution):
        d = d.base_dist
    return isinstance(d, Unit)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float)


# -- the handlers around a loop, as its body must see them ---------------------------------------------------------------


def _sequential(h: Messenger) -> bool:
    """Handlers that count or collect: they stay outside a body that is traced several times."""
    return isinstance(h, handlers.seed | handlers.trace)


def _seeded(key: Key | None) -> Messenger:
    key = key.own() if isinstance(key, Shared) else key
    return handlers.seed(rng_seed=key) if key is not None else handlers.infer_config()


def _at_step(h: Messenger, i: Array, steps: int) -> list[Messenger]:
    """What a handler around a scan is for step `i`: data are sliced, the rest acts as it is."""
    if _sequential(h):
        return []
    if isinstance(h, handlers.condition):
        return [handlers.condition(condition_fn=_slices(h.condition_fn if h.data is None else h.data, i, steps))]
    if isinstance(h, handlers.substitute):
        return [handlers.substitute(substitute_fn=_slices(h.substitute_fn if h.data is None else h.data, i, steps))]
    if isinstance(h, handlers.replay):
        values = {name: site["value"] for name, site in h.trace.items() if site["type"] == "sample"}
        return [handlers.substitute(substitute_fn=_slices(values, i, steps))]
    for kind in ("mask", "scale"):
        if isinstance(h, getattr(handlers, kind)) and jnp.ndim(getattr(h, kind)):
            raise ValueError(
                f"handlers.{kind} with an array stands around a scan, and it is not clear which of its axes is time. Put "
                f"it inside the body of the scan, with its array among the xs."
            )
    return [h]


def _slices(data: Any, i: Array, steps: int) -> Callable:
    """Step `i` of the data that a handler holds for the sites of a scan, as NumPyro slices them."""

    def value_of(msg: Any) -> Any:
        if msg["type"] != "sample":
            return None
        value = data.get(msg["name"]) if isinstance(data, Mapping) else data(msg)
        if value is None or jnp.ndim(value) == len(msg["fn"].shape()):
            return value
        if jnp.shape(value)[0] != steps:
            raise ValueError(
                f"a handler gives {jnp.shape(value)[0]} values of site '{msg['name']}' to a scan of {steps} steps. Give one a "
                f"step; for missing ones condition the program: program | {{'{msg['name']}': numpy.ma.masked_array(...)}}."
            )
        return jnp.asarray(value)[i]

    return value_of
