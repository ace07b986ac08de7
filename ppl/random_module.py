"""Neural networks with random weights: an Equinox or a Flax NNX module whose parameters are choices of the model.

A network with fixed weights needs nothing from here: modules are pytrees, so they are arguments of models like arrays.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import distributions
from .primitives import sample
from .program import Program

M = TypeVar("M")


def random_module(name: str, module: M, prior: Callable[[str, Array], Any] | Any) -> M:
    """Sample the parameters of a neural network, and return the network that has them.

    Args:
        name: the choices are nested under it, one a parameter: `{"layers.0.weight": array, ...}`.
        module: an Equinox module (or any pytree), whose floating-point arrays are sampled; or a Flax NNX module, whose
            floating-point parameters (`nnx.Param`) are, and other state (batch statistics, random streams) is kept.
            Shapes and dtypes come from it; its own weights have no influence.
        prior: a function `(path, leaf) -> distribution`, or `None` in place of the distribution to keep that parameter as
            it is; or one distribution for all. A distribution smaller than its parameter is repeated over it.

    Returns:
        A new module of the same type.

    Raises:
        ValueError: when no parameter is sampled, the prior of one is no distribution or does not fit its shape.

    Example:
        `net = ppl.random_module("net", eqx.nn.MLP(2, 1, 8, 2, key=key), lambda path, leaf: dist.Normal(0.0, 1.0))`

    Reference: Neal, Bayesian Learning for Neural Networks, 1996.
    """
    if not _is_flax(module):
        return _random(name, module, prior)
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise ValueError(
            f"random_module('{name}', ...) got {type(module).__name__}, a Flax module that does not hold its weights. Give it "
            "a Flax NNX module, or the dict of weights that module.init returns."
        )
    structure, params, rest = nnx.split(module, nnx.Param, ...)
    # a copy: what the network changes in itself when called must not reach the module it was made from
    return nnx.merge(structure, _random(name, params, prior), rest, copy=True)


def _is_flax(module: object) -> bool:
    return any(base.__module__.partition(".")[0] == "flax" for base in type(module).__mro__)


def _random(name: str, tree: Any, prior: Any) -> Any:
    """`tree` with its floating-point arrays sampled by a program nested under `name`."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves = [leaf for _, leaf in flat]

    def weights() -> None:
        for i, (path, leaf) in enumerate(flat):
            if _is_parameter(leaf):
                path = _dotted(path)
                d = _prior(name, path, leaf, prior)
                if d is not None:
                    leaves[i] = jnp.asarray(sample(path, d), leaf.dtype)

    sample(name, Program(weights))
    if all(new is old for new, (_, old) in zip(leaves, flat, strict=True)):
        raise ValueError(
            f"random_module('{name}', ...) got {type(tree).__name__} with no floating-point parameter to sample: it has "
            "none, or the prior keeps them all. As it is, the network can be used without random_module."
        )
    return jax.tree.unflatten(structure, leaves)


def _is_parameter(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _dotted(path: tuple) -> str:
    """`layers.0.weight`; NNX's variables add a `value` that users never write."""
    path = tuple(k for k in path if not (isinstance(k, jax.tree_util.GetAttrKey) and k.name == "value"))
    return jax.tree_util.keystr(path, simple=True, separator=".") or "value"


def _prior(name: str, path: str, leaf: Any, prior: Any) -> Any:
    d: Any = prior if distributions.is_distribution(prior) or not callable(prior) else prior(path, leaf)
    if d is None:
        return None
    if not distributions.is_distribution(d):
        raise ValueError(
            f"the prior of parameter '{path}' in random_module('{name}', ...) is {type(d).__name__}, but a distribution was "
            "expected, or None to keep the parameter as it is."
        )
    if d.shape() == leaf.shape:
        return d
    try:
        if d.event_shape == leaf.shape[leaf.ndim - d.event_dim :]:
            return distributions.expand(d, leaf.shape[: leaf.ndim - d.event_dim])
    except ValueError:
        pass
    raise ValueError(
        f"the prior of parameter '{path}' in random_module('{name}', ...) has shape {d.shape()}, which does not repeat to "
        f"the parameter's {leaf.shape}."
    )
