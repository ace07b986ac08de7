"""Distributions are NumPyro's; this is the only file that knows so.

`ppl.dist` is `numpyro.distributions`. The functions here are the whole of what the language asks of a distribution, and
each treats one *site*: batch and event axes together are the shape of one value, and a site's log density is one number.
"""

import copy
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.core import Tracer
from numpyro.distributions.transforms import Transform, biject_to

from ._keys import Key, Shared

Distribution = dist.Distribution
constraints = dist.constraints
Constraint = constraints.Constraint


def is_traced(x: Any) -> bool:
    """Whether `x` has no value yet, because a JAX transformation is tracing."""
    return isinstance(x, Tracer)


def is_distribution(x: object) -> bool:
    """Whether `x` can be sampled at a leaf site."""
    return isinstance(x, Distribution)


def is_masked(d: Any) -> bool:
    """Whether a mask takes entries of `d` out of its density."""
    return isinstance(base(d), dist.MaskedDistribution)


def draw(d: Any, key: Key) -> Array:
    """One value, of shape `d.shape()`."""
    if not isinstance(key, Shared):
        return d.sample(key)
    parts = standardise(d)
    if parts is None:
        return d.sample(key.own())
    base, restore = parts
    return restore(key.mine(base.sample(key.key, (key.size,))))


def log_prob(d: Any, value: Array) -> Array:
    """Log density of each batch element; shape `d.batch_shape`; -inf outside the support."""
    return d.log_prob(value)


def log_prob_inside(d: Any, value: Array) -> Array:
    """`log_prob` of a value known to lie inside the support: the check, and its cost at run time, are left out.

    Normal is written out because NumPyro takes log(sqrt(2 pi) * scale), which hides log(exp(u)) = u from the compiler;
    a scale is nearly always such an exp(u), and small models spend a tenth of their time, volatility models a quarter,
    on that logarithm (benchmarks/log_density.py). Bernoulli is, because NumPyro's guards for infinite logits are a quarter
    of what a logistic regression takes to trace, and this form needs none; by its probability, because NumPyro's form takes
    10 ms to trace, and has no slope at 0 and 1: this one is right there, and exp of it has the slope of the probability.
    """
    if type(d) is dist.Normal:
        loc, scale = jnp.asarray(d.loc), jnp.asarray(d.scale)
        return -0.5 * ((value - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * math.log(2.0 * math.pi)
    if type(d) is dist.BernoulliLogits:
        logits = jnp.asarray(d.logits)
        wrong = jnp.where(value, -1.0, 1.0) * logits  # -softplus(wrong), with the right slope at 0; one product: one sum back
        return -jnp.maximum(wrong, 0.0) - jnp.log1p(jnp.exp(jnp.minimum(wrong, -wrong)))
    if type(d) is dist.BernoulliProbs:
        p = jnp.asarray(d.probs)
        is_one, least = jnp.asarray(value, bool), 4.0 * jnp.finfo(jnp.result_type(p, float)).tiny  # exp(log(least)) is no zero
        signed = jnp.where(is_one, 1.0, -1.0) * p  # used in place of p, so that its slope is summed once
        large = is_one | (signed < -0.5)
        chance = jnp.where(is_one, 0.0, 1.0) + signed
        return jnp.log(jnp.where(large, chance + least, 1.0)) + jnp.log1p(jnp.where(large, 0.0, signed))
    return log_prob_between(d, value)


def log_prob_between(d: Any, value: Array) -> Array:
    """`log_prob` by the formula alone, which for many discrete families holds between the whole numbers too."""
    return jnp.asarray(_unchecked(d).log_prob(value))


def is_soft(d: Any, value: Any) -> bool:
    """Whether `value` is of floats, though `d` is of whole numbers."""
    return d.support is not None and d.support.is_discrete and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def log_prob_soft(d: Any, value: Array) -> Array:
    """`log_prob` of values that a relaxation put between the whole numbers: linear in between for Bernoulli and one-hot
    vectors, `dist.Multinomial(1, probs)`; else by the formula."""
    if isinstance(d, dist.Independent):
        inner = log_prob_soft(d.base_dist, value)
        return jnp.sum(inner, axis=range(inner.ndim - d.reinterpreted_batch_ndims, inner.ndim))
    if isinstance(d, dist.ExpandedDistribution):
        return jnp.broadcast_to(log_prob_soft(d.base_dist, value), d.batch_shape)
    if isinstance(d, dist.MultinomialProbs):
        return jnp.sum(value * jnp.log(jnp.asarray(d.probs) + jnp.finfo(value.dtype).tiny), axis=-1)
    if isinstance(d, dist.MultinomialLogits):
        return jnp.sum(value * jax.nn.log_softmax(jnp.asarray(d.logits)), axis=-1)
    return log_prob_between(d, value)


def _unchecked(d: Any) -> Distribution:
    # NumPyro keeps its switch for checks on the object (and on the objects it wraps); a copy leaves the user's alone
    d = copy.copy(d)
    d._validate_args = False
    for name, part in list(vars(d).items()):
        if isinstance(part, Distribution):
            setattr(d, name, _unchecked(part))
    return d


def value_dtype(d: Any) -> jnp.dtype:
    """dtype of a value: the default integer for discrete families, else the promoted float of the parameters."""
    if d.support is not None and d.support.is_discrete:
        return jnp.dtype(jnp.result_type(int))
    floats = [x.dtype for x in map(jnp.asarray, jax.tree.leaves(d)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.dtype(jnp.result_type(*floats) if floats else jnp.result_type(float))


def bijector(support: Constraint) -> Transform:
    """The map from unconstrained reals onto `support` (NumPyro's `biject_to`); whole numbers stay as they are."""
    return _IDENTITY if support.is_discrete else biject_to(support)


def integer_bounds(support: Any) -> tuple[Any, Any] | None:
    """The least and the largest number of a support of finitely many integers, per batch element; None for any other."""
    while isinstance(support, type(constraints.independent(constraints.boolean, 1))):
        support = support.base_constraint
    if support is constraints.boolean:
        return 0, 1
    return (support.lower_bound, support.upper_bound) if isinstance(support, _INTEGERS) else None


def bounds(support: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The least and the largest value, where the support is all that lies between; None for any other, as the simplex."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    name = type(support).__name__.strip("_").lower()
    if name == "boolean":
        return np.asarray(0), np.asarray(1)
    if name != "real" and not (hasattr(support, "lower_bound") or hasattr(support, "upper_bound")):
        return None
    return np.asarray(getattr(support, "lower_bound", -np.inf)), np.asarray(getattr(support, "upper_bound", np.inf))


def num_values(d: Any) -> int | None:
    """How many values each element of `d` can take, where that is finite, known, and the same for all; else None."""
    bounds = integer_bounds(d.support) if d.support is not None else None
    if bounds is None or d.event_shape or any(is_traced(x) for x in bounds):
        return None
    nums = np.unique(np.asarray(bounds[1]) - np.asarray(bounds[0]) + 1)
    return int(nums[0]) if len(nums) == 1 else None


def value_number(d: Any, i: Any) -> Array:
    """The i-th value, counted from the least, of a distribution with finitely many."""
    bounds = integer_bounds(d.support)
    assert bounds is not None
    return (bounds[0] + jnp.asarray(i)).astype(value_dtype(d))


def value_after(d: Any, value: Array, j: int) -> Array:
    """The value that comes j after `value`, counted around."""
    bounds, num = integer_bounds(d.support), num_values(d)
    assert bounds is not None and num is not None
    return value_number(d, (value - jnp.asarray(bounds[0]) + j) % num)


def elements(d: Any) -> Any:
    """`d` with each of its independent elements an element of the batch, and without masks: what is drawn of it."""
    while isinstance(d, dist.Independent | dist.MaskedDistribution):
        d = d.base_dist
    return d


def base(d: Any) -> Any:
    """The distribution under the wrappers for shape; its parameters broadcast to the shape of `d`."""
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


_INTEGERS = type(constraints.integer_interval(0, 1))
_IDENTITY = dist.transforms.IdentityTransform()


def is_identity(transform: Transform) -> bool:
    """Whether `transform` leaves every value as it is."""
    return isinstance(transform, dist.transforms.IdentityTransform)


def family(d: Any) -> str:
    """The name a person would call `d`, without the wrappers for shape: `Normal`, `HalfCauchy`, `masked Normal`."""
    d = base(d)
    if isinstance(d, dist.MaskedDistribution):
        return f"masked {family(d.base_dist)}"
    return type(d).__name__.removesuffix("Probs").removesuffix("Logits")


def support_name(support: Any) -> str:
    """`positive`, `simplex`, `real`: how a support prints in tables."""
    if support is None:
        return "unknown"
    while type(support).__name__ in ("_IndependentConstraint", "independent"):
        support = support.base_constraint
    if type(support).__name__.strip("_") == "GreaterThan" and _is_zero(getattr(support, "lower_bound", None)):
        return "positive"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(support).__name__.strip("_")).lower()


def same_support(a: Constraint | None, b: Constraint | None) -> bool:
    """Whether two concrete supports are equal. (NumPyro's own `==` computes with JAX, so it is no bool inside a trace.)"""
    (xs, form), (ys, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return form == other and all(np.array_equal(x, y) for x, y in zip(xs, ys, strict=True))


def _is_zero(x: Any) -> bool:
    return isinstance(x, int | float) and x == 0


def expand(d: Any, batch_shape: tuple[int, ...]) -> Distribution:
    """`d` with its batch broadcast to `batch_shape`."""
    return d.expand(batch_shape)


def standardise(d: Any, centring: Any = None) -> tuple[Any, Callable[[Any], Any]] | None:
    """Split a location-scale distribution into a base and the map from base to `d`.

    The base is free of parameters; or, with a `centring` c (of the shape of `d`, or a scalar), it has location c * loc and
    scale scale**c, so that 0 is free of parameters and 1 is `d` itself.

    Returns None for families that have no location and scale. Law: if z ~ base then map(z) ~ d.
    """
    if isinstance(d, dist.Independent):
        inner = standardise(d.base_dist, centring)
        return None if inner is None else (inner[0].to_event(d.reinterpreted_batch_ndims), inner[1])
    if isinstance(d, dist.ExpandedDistribution):
        inner = standardise(d.base_dist, centring)
        return None if inner is None else (inner[0].expand(d.batch_shape), inner[1])
    if isinstance(d, dist.LogNormal):
        base, restore = _standard(dist.Normal, d, centring)
        return base, lambda z: jnp.exp(restore(z))
    if isinstance(d, dist.MultivariateNormal) and centring is None:
        base = dist.Normal(0.0, 1.0).expand(d.batch_shape + d.event_shape).to_event(1)
        return base, lambda z: d.loc + jnp.einsum("...ij,...j->...i", d.scale_tril, z)
    family = partial(dist.StudentT, d.df) if type(d) is dist.StudentT else type(d)
    if type(d) not in {dist.Normal, dist.Cauchy, dist.Laplace, dist.Logistic, dist.Gumbel, dist.StudentT}:
        return None
    return _standard(family, d, centring)


def _standard(family: Callable, d: Any, c: Any) -> tuple[Any, Callable[[Any], Any]]:
    loc, scale = d.loc, d.scale
    if c is None:
        return family(0.0, 1.0).expand(d.batch_shape), lambda z: loc + scale * z
    shape = jnp.broadcast_shapes(d.batch_shape, jnp.shape(c))  # d may be about to be expanded to the shape of c
    return family(c * loc, scale**c).expand(shape), lambda z: loc + scale ** (1.0 - c) * (z - c * loc)


def size(shape: tuple[int, ...]) -> int:
    """Number of scalars in an array of `shape`."""
    return math.prod(shape)
