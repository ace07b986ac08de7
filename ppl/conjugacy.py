"""Conjugacy: continuous sites that are integrated out in closed form.

A family of priors is a set of functions of the site's value x, and the densities that multiply to a member of it:

| prior                       | log density as a function of x                | children                                    |
|-----------------------------|-----------------------------------------------|---------------------------------------------|
| Normal, MultivariateNormal  | quadratic                                     | (Multivariate)Normal, LogNormal: loc affine |
| Gamma, Exponential          | s log x - t x + c                             | Poisson, Exponential, Gamma: rate = a * x   |
| Beta                        | s log x + t log(1 - x) + c                    | Bernoulli, Binomial, Geometric: probs = x   |
| Dirichlet                   | sum of s_i log x_i + c                        | Categorical, Multinomial: probs = x         |

That a program has no other children is read off its trace (`linearity.py`). Then they need not be known one by one: s, t and c
of the whole follow from its value and two derivatives at one point, and so does the integral. (Diaconis and Ylvisaker,
"Conjugate Priors for Exponential Families", Annals of Statistics 7, 1979.)
"""

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import gammaln

from . import distributions
from .choices import Choices, Partial, paths, put
from .interpreters import Assess
from .linearity import AFFINE, NONE, SAME, SCALED, how
from .log_sums import instead


@dataclass(frozen=True)
class Family(abc.ABC):
    """A conjugate family over values of one `shape`. A finished one defines `start`, `integral` and `draw`.

    Values are vectors (n,) there, of one site or of several, one after another.
    """

    shape: tuple[int, ...]

    @property
    def start(self) -> Array:
        """A value at which derivatives are taken."""
        return jnp.full(self.shape, self.point())

    @property
    def kin(self) -> Any:
        """Sites for which this is equal are integrated out together."""
        return type(self)

    @abc.abstractmethod
    def point(self) -> float:
        """Every entry of `start`."""

    @abc.abstractmethod
    def integral(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Any]:
        """For log densities f (n,) -> (m,) in the family: logs of their integrals (m,), and parameters that lead with (m,)."""

    @abc.abstractmethod
    def draw(self, key: Any, parameters: Any) -> Array:
        """A vector (n,) from the density with these parameters."""

    def integrate(self, logs: Callable[[Any], dict], start: Any, key: Any = None) -> dict:
        """Logs of the integrals of a dict of log densities over a tree of values like `start`.

        With a key, gradients are those at one value that is drawn from `total`.
        """
        x, tree = ravel_pytree(start)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(logs, start))
        _, unravel = ravel_pytree(zeros)
        values, parameters = self.integral(lambda x: ravel_pytree(logs(tree(x)))[0], x)
        out = unravel(values)
        if key is not None:
            row = sorted(zeros).index("total")  # all are scalars: who draws keeps no pointwise data
            drawn = jax.lax.stop_gradient(self.draw(key, jax.tree.map(lambda y: y[row], parameters)))
            out["total"] = instead(out["total"], logs(tree(drawn))["total"])
        return out


class Gaussian(Family):
    """Quadratic: integrated around the peak, so that no digits are lost."""

    def point(self) -> float:
        return 0.0

    def integral(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Any]:
        def slope(x: Array) -> tuple:
            jacobian, value = jax.jacfwd(lambda x: (y := f(x), y), has_aux=True)(x)
            return jacobian, (jacobian, value)

        def around(x: Array) -> tuple[Array, Array, Array]:
            """Of each density: the log of its peak, where that is, and the Cholesky factor of the precision."""
            bend, (jacobian, value) = jax.jacfwd(slope, has_aux=True)(x)
            root = jnp.linalg.cholesky(-bend)
            step = jax.vmap(lambda root, slope: cho_solve((root, True), slope))(root, jacobian)
            return value + 0.5 * jnp.sum(jacobian * step, -1), x + step, root

        _, peaks, _ = around(x)
        top, peaks, root = around(jax.lax.stop_gradient(peaks[-1]))
        width = jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), -1)
        return top + 0.5 * len(x) * math.log(2.0 * math.pi) - width, (peaks, root)

    def draw(self, key: Any, parameters: Any) -> Array:
        peak, root = parameters
        return peak + solve_triangular(root.T, jax.random.normal(key, peak.shape, peak.dtype))


class Entries(Family):
    """Families whose entries are independent: slope and bend of each entry, at one point, say all."""

    def integral(self, f: Callable[[Array], Array], x: Array) -> tuple[Array, Any]:
        def slope(x: Array) -> tuple:
            value, back = jax.vjp(f, x)
            jacobian = jax.vmap(lambda one: back(one)[0])(jnp.eye(len(value), dtype=value.dtype))
            return jacobian, value

        (jacobian, value), (bend, _) = jax.jvp(slope, (x,), (jnp.ones_like(x),))
        return self.closed(value, jacobian, bend)

    @abc.abstractmethod
    def closed(self, value: Array, slope: Array, bend: Array) -> tuple[Array, Any]:
        """From values (m,), slopes and bends (m, n): integrals and parameters."""


class Gammas(Entries):
    """s log x - t x + c."""

    def point(self) -> float:
        return 1.0

    def closed(self, value: Array, slope: Array, bend: Array) -> tuple[Array, Any]:
        a, t = 1.0 - bend, -bend - slope
        return value + jnp.sum(t + gammaln(a) - a * jnp.log(t), -1), (a, t)

    def draw(self, key: Any, parameters: Any) -> Array:
        shape, rate = parameters
        return jax.random.gamma(key, shape) / rate


class Betas(Entries):
    """s log x + t log(1 - x) + c."""

    def point(self) -> float:
        return 0.5

    def closed(self, value: Array, slope: Array, bend: Array) -> tuple[Array, Any]:
        both, more = -bend / 4.0, slope / 2.0  # s + t, s - t
        a, b = 1.0 + (both + more) / 2.0, 1.0 + (both - more) / 2.0
        return value + jnp.sum(math.log(2.0) * both + gammaln(a) + gammaln(b) - gammaln(a + b), -1), (a, b)

    def draw(self, key: Any, parameters: Any) -> Array:
        return jax.random.beta(key, *parameters)


class Dirichlets(Entries):
    """sum of s_i log x_i + c, on the simplex."""

    @property
    def kin(self) -> Any:
        return type(self), self.shape[-1]

    def point(self) -> float:
        return 1.0 / self.shape[-1]

    def closed(self, value: Array, slope: Array, bend: Array) -> tuple[Array, Any]:
        num = self.shape[-1]
        s = slope.reshape(len(slope), -1, num) / num
        each = jnp.sum(gammaln(s + 1.0) + s * math.log(num), -1) - gammaln(jnp.sum(s + 1.0, -1))
        return value + jnp.sum(each, -1), s + 1.0

    def draw(self, key: Any, parameters: Any) -> Array:
        return jnp.ravel(jax.random.dirichlet(key, parameters))


FAMILIES: dict[str, type[Family]] = {
    "Normal": Gaussian,
    "MultivariateNormal": Gaussian,
    "Gamma": Gammas,
    "Exponential": Gammas,
    "Beta": Betas,
    "Dirichlet": Dirichlets,
}

CHILDREN: dict[tuple[type[Family], str, str], int] = {  # family, class of the child, its parameter: how it may be computed
    (Gaussian, "Normal", "loc"): AFFINE,
    (Gaussian, "MultivariateNormal", "loc"): AFFINE,
    (Gaussian, "LogNormal", "loc"): AFFINE,
    (Gammas, "Poisson", "rate"): SCALED,
    (Gammas, "Exponential", "rate"): SCALED,
    (Gammas, "Gamma", "rate"): SCALED,
    (Betas, "BernoulliProbs", "probs"): SAME,
    (Betas, "BinomialProbs", "probs"): SAME,
    (Betas, "GeometricProbs", "probs"): SAME,
    (Dirichlets, "CategoricalProbs", "probs"): SAME,
    (Dirichlets, "MultinomialProbs", "probs"): SAME,
}

_SAY = {SAME: "its entries", SCALED: "a multiple of it", AFFINE: "affine in it"}


def families(program: Any, removed: Sequence[str]) -> dict[str, Family | None]:
    """How each site is removed when all of them are: a continuous one by its family, a discrete one by trying: None.

    Raises:
        ValueError: where the prior of a continuous site has no family, or a child is not of it.
    """
    rows = program.sites()
    real = [address for address in removed if not rows[address].discrete]
    own = {address: _family(address, rows[address]) for address in real}
    children = {address: _computed(program, [address]) for address in removed} if real else {}
    together = _computed(program, real) if real else {}
    for address in real:
        for (child, name, parameter), _ in children[address].items():
            if together[child, name, parameter] > CHILDREN.get((type(own[address]), name, parameter), NONE):
                raise ValueError(_not_conjugate(address, child, name, parameter, rows[address].family, type(own[address])))
            rivals = [a for a in removed if a not in own and child in {c for c, _, _ in children[a]}]
            gaussian = {type(own[address]), type(own.get(child))} == {Gaussian}
            rivals += [child] if child in removed and not gaussian else []
            if rivals:
                raise ValueError(
                    f"sites '{address}' and '{rivals[0]}' cannot both be removed: what is left of '{child}' when one of them "
                    "is gone is not conjugate any more. Keep one of them."
                )
    return {address: own.get(address) for address in removed}


def _family(address: str, row: Any) -> Family:
    if row.family not in FAMILIES:
        raise ValueError(
            f"site '{address}' cannot be integrated out exactly: {row.family} is not among the conjugate priors "
            f"{', '.join(FAMILIES)}. Keep the site, or integrate it by an algorithm: marginal('{address}', by=...)."
        )
    return FAMILIES[row.family](row.shape[len(row.plates) :])


def _not_conjugate(address: str, child: str, name: str, parameter: str, prior: str, family: type[Family]) -> str:
    options = [f"{p} of {n} ({_SAY[most]})" for (f, n, p), most in CHILDREN.items() if f is family]
    what = "a factor" if not name else name if parameter.startswith("#") or not parameter else f"{parameter} of {name}"
    return (
        f"site '{address}' cannot be integrated out exactly: '{child}' ({what}) is computed from it in a way that is not "
        f"conjugate to {prior}. What is: {', '.join(options)}. Keep the site, or integrate it by an algorithm: "
        f"marginal('{address}', by=...)."
    )


DATA = "its data"  # among the classes of distributions that a parameter may belong to


class Parameters(Assess):
    """Assess, keeping the parameters of every site's distribution apart, under the name of its class."""

    keeps = ("parameters",)

    def sample(self, name: str, d: Any, obs: Any, strategy: Any = None) -> Array:
        value = super().sample(name, d, obs, strategy)
        if obs is not None and not isinstance(obs, Partial):  # data may be computed from other sites, too
            found = self.record.trees.setdefault("parameters", {}).setdefault(name, {})
            found[DATA] = {"": jnp.asarray(obs, float)}
        return value

    def relate(self, name: str, parameters: Any) -> None:
        if distributions.is_distribution(parameters):
            own = distributions.base(parameters)
            family, values = type(own).__name__, vars(own)
            if family in {name for _, name, _ in CHILDREN}:
                found = {key: jnp.asarray(values[key]) for key in own.arg_constraints if key in values}
            else:
                found = {f"#{i}": jnp.asarray(x) for i, x in enumerate(jax.tree.leaves(own))}
            self.put("parameters", name, {family: found})
        elif name not in self.table or self.table[name].kind == "factor":
            self.put("parameters", name, {"": {"": jnp.asarray(parameters)}})


def _computed(program: Any, addresses: Sequence[str]) -> dict[tuple[str, str, str], int]:
    """How parameters are computed from these sites together: by address, class of the distribution, and parameter."""
    latent = {path: jax.ShapeDtypeStruct(row.shape, row.dtype) for path, row in paths(program.table()) if row.kind == "latent"}
    mine = [path for path in latent if ".".join(path) in addresses]
    others = [path for path in latent if path not in mine]

    def look(own: list, rest: list) -> Choices:
        given: Choices = {}
        for path, value in zip(mine + others, own + rest, strict=True):
            put(given, path, value)
        return program.interpret(Parameters, given=given)[0].record.trees.get("parameters", {})

    found = how(look, [latent[path] for path in mine], [latent[path] for path in others])
    return {(".".join(path[:-2]), path[-2], path[-1]): kind for path, kind in paths(found) if kind > NONE}
