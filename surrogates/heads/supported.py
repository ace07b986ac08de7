"""Supported: the law of a head, carried onto a site's support: positive numbers, an interval, a simplex, ordered vectors.

    value = biject(x),   log p(value) = log p(x) - log |d biject / d x|

The head's own law is of unconstrained reals, and the bijection is the one by which the language constrains sites (NumPyro's
`biject_to`). No draw lies outside the support, so there is no leakage to correct for afterwards: for bounds, simplexes and
ordered vectors whatever the raw numbers, since what rounding would put onto a bound is kept off it; elsewhere (covariances,
positive ordered vectors) as long as float32 can hold the value.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl import dist
from ppl.distributions import Constraint, bijector, bounds, is_traced, same_support, support_name, value_dtype

from .head import Head


class Supported(Head):
    """See the file's docstring. `size` is the head's, `event_shape` that of a value: on a simplex one longer than the head's.

    - `head`: of real numbers: `Mixture(dim=2, num=5)`.
    - `support`: as of a distribution, `dist.HalfNormal().support`, or `dist.constraints.positive`; its bounds are fixed when
      the head is made.

    Raises:
        ValueError: for a support of whole numbers, for one of vectors where the head is of scalars, and for traced bounds.

    Example:
        `Supported(Mixture(dim=2, num=5), dist.constraints.simplex)`, laws of three shares
    """

    head: Head
    still: "Still" = eqx.field(static=True)

    def __init__(self, head: Head, support: Any) -> None:
        if not isinstance(head, Head) or isinstance(head, Supported):
            raise ValueError(f"Supported: expected a head of reals such as Mixture(dim=2, num=5), got {_kind(head)}.")
        if not isinstance(support, Constraint):
            raise ValueError(f"Supported: expected a support such as dist.constraints.positive, got {_kind(support)}.")
        if support.is_discrete:
            raise ValueError(f"Supported: {support_name(support)} is a support of whole numbers. Take Categories(num).")
        self.head, self.still = head, Still(support)
        needs, has = bijector(support).domain.event_dim, len(head.event_shape)
        if needs > has:
            raise ValueError(
                f"Supported: {support_name(support)} values are made of vectors of reals, and this {type(head).__name__} "
                "is of scalars. Give it a dim."
            )

    @property
    def support(self) -> Constraint:
        """Where all draws lie."""
        return self.still.support

    @property
    def size(self):
        return self.head.size

    @property
    def event_shape(self):
        return bijector(self.support).forward_shape(self.head.event_shape)

    def made(self, raw):
        return Carried(self.head.law(raw), self.still)

    def start(self):
        return self.head.start()


class Still:
    """A support that is compared and hashed by what it is, so that it can be a setting; its bounds are numbers."""

    def __init__(self, support: Constraint) -> None:
        if any(is_traced(x) for x in jax.tree.leaves(support)):
            raise ValueError(f"Supported: the bounds of {support_name(support)} must be known when the head is made.")
        self.support = support

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Still) and same_support(self.support, other.support)

    def __hash__(self) -> int:
        return hash(type(self.support))


class Carried(dist.TransformedDistribution):
    """The law of a `Supported`: `base_dist`, carried onto the support. Minus infinity outside."""

    pytree_aux_fields = ("still",)

    def __init__(self, law: dist.Distribution, still: Still, *, validate_args: bool | None = None) -> None:
        self.still = still
        super().__init__(law, bijector(still.support), validate_args=validate_args)

    def sample(self, key: Any, sample_shape=()):
        x = jnp.asarray(self._free(self.base_dist.sample(key, sample_shape)))
        if bounds(self.still.support) is None:  # exp of them, and sums of these, are to be finite
            most = 0.5 * math.log(jnp.finfo(x.dtype).max)
            x = jnp.clip(x, -most, most)
        return self._inside(jnp.asarray(self.transforms[-1](x), x.dtype))

    def sample_with_intermediates(self, key: Any, sample_shape=()):
        return self.sample(key, sample_shape), []

    def icdf(self, q):
        return self._inside(super().icdf(q))

    def log_prob(self, value, intermediates: Any = None):
        value = jnp.asarray(value)
        value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        inside = _holds(self.support, value)
        middle = self.transforms[-1](self._free(jnp.zeros(self.base_dist.event_shape, value.dtype)))
        known = jnp.where(jnp.expand_dims(inside, range(-self.event_dim, 0)), self._inside(value), middle)
        log_prob = jnp.where(inside, super().log_prob(known), -jnp.inf)
        return log_prob.astype(jnp.promote_types(value.dtype, value_dtype(self.base_dist)))

    def _free(self, x):
        """An unconstrained value. NumPyro has the transforms of a law that has some, as that of a `Scaled`, first."""
        for transform in self.transforms[:-1]:
            x = transform(x)
        return x

    def _inside(self, value):
        """Rounding may put a value onto a bound, as exp(-200) onto 0: then one next to it is taken, within the support."""
        support, ends = self.still.support, bounds(self.still.support)
        if ends is not None:
            return _between(value, *ends)
        if support is _SIMPLEX:
            shares = jnp.maximum(value, 8.0 * jnp.finfo(value.dtype).eps)
            return shares / lax.stop_gradient(jnp.sum(shares, -1, keepdims=True))
        return _apart(value) if support is _ORDERED else value


_SIMPLEX, _ORDERED = dist.constraints.simplex, dist.constraints.ordered_vector


def _kind(x) -> str:
    return f"the class {x.__name__}" if isinstance(x, type) else type(x).__name__


def _holds(support, value):
    """Whether values lie in the support; the sum of shares may err by more than NumPyro allows, where there are many."""
    if support is _SIMPLEX:
        return jnp.all(value >= 0.0, -1) & (jnp.abs(jnp.sum(value, -1) - 1.0) < 1e-3)
    return support(value)


def _between(value, low, high):
    low, high, tiny = low.astype(value.dtype), high.astype(value.dtype), np.finfo(value.dtype).tiny
    above = np.where(low == 0.0, tiny, np.nextafter(low, np.inf, dtype=low.dtype))  # nearer to 0, processors read 0
    below = np.where(high == 0.0, -tiny, np.nextafter(high, -np.inf, dtype=high.dtype))
    return jnp.clip(value, above, below)


def _apart(value):
    """Each number above the one before it."""
    tiny, eps = jnp.finfo(value.dtype).tiny, jnp.finfo(value.dtype).eps

    def step(last, here):
        here = jnp.maximum(here, lax.stop_gradient(last + eps * jnp.abs(last) + tiny))
        return here, here

    first, rest = value[..., 0], jnp.moveaxis(value[..., 1:], -1, 0)
    return jnp.concatenate([first[..., None], jnp.moveaxis(lax.scan(step, first, rest)[1], 0, -1)], -1)
