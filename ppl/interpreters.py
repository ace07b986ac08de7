"""The interpreters of the language: each says where the value of a latent site comes from, in a few lines.

| interpreter     | value of a latent site             | totals beside log_prior and log_likelihood |
|-----------------|------------------------------------|--------------------------------------------|
| `Inspect`       | zeros of the right shape           |                                            |
| `Simulate`      | a fresh draw                       |                                            |
| `Assess`        | given, all of them                 |                                            |
| `Generate`      | given, else a fresh draw           | `log_weight` of the given                  |
| `Unconstrained` | given, through the support's map   | `log_jacobian`                             |
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from . import distributions
from ._keys import fold_name
from .choices import paths, remove
from .interpreter import Inputs, Interpreter
from .site import Site, Table, describe_distribution
from .values import possible


class Inside(Interpreter):
    """Latent values lie inside their supports, for they are drawn or mapped there: the formula alone is their density."""

    def log_prob(self, d: Any, value: Array, *, inside: bool) -> Array:
        return distributions.log_prob_inside(d, value) if inside else distributions.log_prob(d, value)


class Inspect(Inside):
    """Look at shapes and supports only; run it under `jax.eval_shape`. Nothing is drawn, so improper priors pass."""

    def latent(self, site: Site) -> Array:
        d = site.distribution
        return jnp.zeros(d.shape(), distributions.value_dtype(d))

    def _written(self, name: str, d: Any, obs: Any) -> tuple[Any, Any]:
        data, d = super()._written(name, d, obs)
        if not distributions.is_masked(d):  # a mask may hide entries that are no data
            possible(self.prefix + name, describe_distribution(d), obs)
        return data, d


class Holes(Inspect):
    """Inspect, keeping which entries of partly observed sites are known: they set the dimension of a target."""

    keeps = ("known",)


class Simulate(Inside):
    """Draw every latent site from its distribution, with a key folded by the site's name."""

    keeps = ("choices",)

    def latent(self, site: Site) -> Array:
        return draw_site(self, site)


class Forecast(Interpreter):
    """Latent sites are given where they are given, else drawn; data, wherever they come from, are drawn anew (predictive)."""

    keeps = ("fresh", "values")

    def __init__(self, inputs: Inputs, *structure: Any) -> None:
        super().__init__(inputs._replace(data={}), *structure)

    def sample(self, name: str, d: Any, obs: Any, strategy: Any = None) -> Array:
        if obs is not None and name not in self.inputs.do:
            d = self._written(name, d, obs)[1]
            self.inputs = self.inputs._replace(given=remove(self.inputs.given, {name}))
        return super().sample(name, d, None, strategy)

    def latent(self, site: Site) -> Array:
        given = self.inputs.given.get(site.name)
        if given is not None:
            return given
        value = draw_site(self, site)
        self.put("fresh", site.name, value)
        return value


class Assess(Interpreter):
    """Every latent site is given: the density of those choices."""

    def latent(self, site: Site) -> Array:
        try:
            return self.inputs.given[site.name]
        except KeyError:
            raise ValueError(f"no value was given for site '{site.address}'. Every latent site needs one.") from None


class Soften(Assess):
    """Assess, in an objective that gives discrete sites numbers between the whole ones: there the density is the formula's."""

    def log_prob(self, d: Any, value: Array, *, inside: bool) -> Array:
        if distributions.is_soft(d, value):
            return distributions.log_prob_soft(d, value)
        return super().log_prob(d, value, inside=inside)


class Replay(Assess):
    """Assess, keeping everything: what a program did at given choices."""

    keeps = ("choices", "values", "observed", "pointwise")


class Relate(Assess):
    """Assess, keeping one number a site that depends on all that the site is computed from (see `graph.py`).

    Deterministic sites are given too, so that what uses them is seen to depend on them.
    """

    keeps = ("parameters",)

    def relate(self, name: str, parameters: Any) -> None:
        leaves = [jnp.sum(jnp.asarray(x, float)) for x in jax.tree.leaves(parameters)]
        self.put("parameters", name, sum(leaves, jnp.zeros(())))

    def deterministic(self, name: str, value: Any) -> Any:
        value = super().deterministic(name, value)
        return self.inputs.given.get(name, value)


class Generate(Interpreter):
    """Given sites are fixed and weighted, the others drawn from the prior: importance sampling from the prior."""

    keeps = ("choices",)

    def latent(self, site: Site) -> Array:
        given = self.inputs.given.get(site.name)
        if given is None:
            return draw_site(self, site)
        return weighed(self, site, given)


@cache
def weighing_all_but(addresses: frozenset[str]) -> type[Generate]:
    """Generate, with the given values of these sites made as if they had been drawn: they weigh nothing."""

    class Weighing(Generate):
        def latent(self, site: Site) -> Array:
            return self.inputs.given[site.name] if site.address in addresses else super().latent(site)

    return Weighing


class Unconstrained(Inside):
    """Given values are unconstrained reals, mapped onto each site's support; the log Jacobian is added up.

    Whole numbers, of discrete sites, stay as they are; outside the support they have density zero.
    """

    def latent(self, site: Site) -> Array:
        support = site.distribution.support
        transform = distributions.bijector(support)
        u = self.inputs.given[site.name]
        if support.is_discrete:  # nothing maps whole numbers into a support, so a kernel may propose some outside
            inside = jnp.asarray(support(u))
            if site.missing is not None:
                inside = inside | ~site.missing
            self.add("log_prior", jnp.where(inside, 0.0, -jnp.inf))
            return jnp.where(_match(inside, u), u, support.feasible_like(u))
        if distributions.is_identity(transform):
            return u
        value = jnp.asarray(transform(u))
        log_jacobian = jnp.asarray(transform.log_abs_det_jacobian(u, value))
        if site.missing is not None:
            log_jacobian = jnp.where(_match(site.missing, log_jacobian), log_jacobian, 0.0)
        self.add("log_jacobian", log_jacobian)
        return value


class Constrain(Unconstrained):
    """Unconstrained, keeping the constrained choices and the values of deterministic sites."""

    keeps = ("choices", "values")


class Pointwise(Unconstrained):
    """Unconstrained, keeping the log likelihood of every observed site and factor apart."""

    keeps = ("pointwise",)


class Audit(Unconstrained):
    """Unconstrained, keeping every site's log density apart: which of them is not finite?"""

    keeps = ("choices", "densities")


class Bounds(Unconstrained):
    """Unconstrained, keeping the least and the largest number that each discrete site of finite support can take."""

    keeps = ("bounds",)

    def latent(self, site: Site) -> Array:
        bounds = distributions.integer_bounds(site.distribution.support)
        if bounds is not None:
            self.put("bounds", site.name, jnp.stack([jnp.min(bounds[0]), jnp.max(bounds[1])]))
        return super().latent(site)


class Relaxed(Unconstrained):
    """Unconstrained, with discrete sites taken for real ones: what their density would be between the whole numbers."""

    def latent(self, site: Site) -> Array:
        return self.inputs.given[site.name] if site.distribution.support.is_discrete else super().latent(site)

    def log_prob(self, d: Any, value: Array, *, inside: bool) -> Array:
        return distributions.log_prob_between(d, value)


@cache
def apart(address: str, inner: int) -> type[Unconstrained]:
    """Unconstrained, with the totals of one `ppl.vmap` not summed, but kept lane by lane: its totals are those of the rest.

    It is the vmap around the site at `address` that has `inner` combinators between the site and itself.
    """

    class Apart(Unconstrained):
        keeps = ("lanes",)

        def summed(self, totals: Any, table: Table, label: str) -> dict[str, Array]:
            rows = {self.prefix + ".".join(path): row for path, row in paths(table)}
            if address not in rows or len(rows[address].plates) != inner:
                return super().summed(totals, table, label)
            for kind, values in totals.items():
                self.put("lanes", kind, values)
            return {}

    return Apart


class Fill(Unconstrained):
    """Unconstrained, with discrete sites drawn from their distributions: where a chain that moves them may begin."""

    keeps = ("free",)

    def latent(self, site: Site) -> Array:
        discrete = site.distribution.support.is_discrete
        self.put("free", site.name, draw_site(self, site) if discrete else self.inputs.given[site.name])
        return self.record.trees["free"][site.name] if discrete else super().latent(site)


class Placed(Interpreter):
    """Latent values are kept unconstrained, and no densities are added up: nobody asks for them."""

    keeps = ("free",)

    def latent(self, site: Site) -> Array:
        value = super().latent(site)
        self.put("free", site.name, distributions.bijector(site.distribution.support).inv(value))
        return value

    def log_prob(self, d: Any, value: Array, *, inside: bool) -> Array:
        return jnp.zeros(d.batch_shape)


class Free(Placed, Assess):
    """The inverse of Constrain: choices are given, and their unconstrained values kept."""


class Start(Placed, Simulate):
    """Simulate, keeping the unconstrained values."""


def weighed(interpreter: Interpreter, site: Site, given: Array) -> Array:
    """A given value, its density added to `log_weight`."""
    log_p = distributions.log_prob(site.distribution, given)
    if site.missing is not None:  # the known entries are data, and weigh in log_likelihood
        log_p = jnp.where(site.missing, log_p, 0.0)
    interpreter.add("log_weight", log_p)
    return given


def draw_site(interpreter: Interpreter, site: Site) -> Array:
    """A fresh draw, with the key folded by the site's name."""
    key = interpreter.inputs.key
    assert key is not None, "an interpreter that draws is always given a key"
    return distributions.draw(site.distribution, fold_name(key, site.name))


def _match(missing: Array, like: Any) -> Array:
    """`missing` (one entry a batch element) against log Jacobians that may be finer or equal."""
    return jnp.reshape(missing, missing.shape + (1,) * (like.ndim - missing.ndim))
