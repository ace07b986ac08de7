"""A target is a log density over a flat unconstrained vector: what algorithms see of a program.

Law (change of variables): `log_density(u) = program.log_density(constrain(u)) + log |det d constrain / d u|`.

Discrete sites lie in the vector too, as whole numbers: one vector is all that kernels, records and files have to know. Only
kernels made for them may move them; whoever needs a gradient in every direction calls `target.refuse_discrete`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._errors import quote
from ._keys import Key
from .choices import Choices, merge, paths, put, walk
from .distributions import dist, is_traced
from .graph import depends
from .interpreter import Interpreter
from .interpreters import Audit, Bounds, Constrain, Fill, Free, Holes, Pointwise, Relaxed, Start, Unconstrained, apart
from .primitives import factor, sample
from .program import Program
from .values import first


class Slot(NamedTuple):
    """Where a site lies in the flat vector: entries `[start, start + size)`, reshaped to `shape`.

    For a site with missing data `missing` lists which entries of the (flattened) site the vector holds.

    A discrete site has the `dtype` that its values have in the program (for others it is None), and, where it can take
    finitely many, the least and the largest in `bounds`. Along its first `apart` axes, those of enclosing `ppl.vmap`s, its
    entries are independent of one another given all other sites (see `Target.log_density_apart`).
    """

    path: tuple[str, ...]
    start: int
    size: int
    shape: tuple[int, ...]
    missing: tuple[int, ...] | None
    dtype: Any = None
    bounds: tuple[int, int] | None = None
    apart: int = 0

    @property
    def address(self) -> str:
        """The dotted name of the site."""
        return ".".join(self.path)

    @property
    def entries(self) -> Sequence[int]:
        """Which entries of the flattened site the vector holds."""
        return range(math.prod(self.shape)) if self.missing is None else self.missing


class Target(eqx.Module):
    """Unconstrained log density of a program's latent sites.

    A pytree whose leaves are the program's data, so one compiled function serves all targets of one structure.

    Attributes:
        program: the conditioned program.
        dim: length of the unconstrained vector.
        names: a name for each of its entries, such as `theta[3]`.
        on_host: whether some `ppl.call` runs on the host.

    Raises:
        ValueError: when the program has no latent site, or one that only some branch visits.

    Example:
        `Target(eight_schools(sigma) | {"y": y}).log_density(jnp.zeros(10))`
    """

    program: Program
    slots: tuple[Slot, ...] = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    on_host: bool = eqx.field(static=True)

    def __init__(self, program: Program) -> None:
        rows = [*paths(program.table())]
        latent = [(path, row) for path, row in rows if row.kind == "latent"]
        _refuse(latent)
        known = _known(program) if any(row.partial for _, row in latent) else {}
        slots, start = [], 0
        for path, row in latent:
            missing = _missing(np.asarray(known[".".join(path)]), row) if row.partial else None
            size = len(missing) if missing is not None else math.prod(row.unconstrained)
            slots.append(Slot(path, start, size, row.unconstrained, missing, row.dtype if row.discrete else None))
            start += size
        self.program, self.slots, self.dim = program, tuple(slots), start
        self.on_host = any(row.on_host for _, row in rows)
        if any(row.discrete for _, row in latent):
            self.slots = self._discrete(slots)

    @staticmethod
    def from_log_density(
        fn: Callable[[Any], Array], example: Mapping[str, Any] | Array, *, supports: Mapping[str, Any] | None = None
    ) -> "Target":
        """The second door: a target from a plain function, for those who have no model.

        Args:
            fn: from choices (of the form of `example`) to +log density up to a constant, a scalar.
            example: nested dict of arrays, or one array (then its site is called `x`); only shapes are used.
            supports: constraints by dotted address, such as `{"sigma": dist.constraints.positive}`; real if not named.
                The Jacobian of the map onto them is added.

        Example:
            `Target.from_log_density(lambda c: -0.5 * jnp.sum(c["x"] ** 2), {"x": jnp.zeros(3)})`
        """
        single = not isinstance(example, Mapping)
        tree: Mapping[str, Any] = example if isinstance(example, Mapping) else {"x": example}
        shapes = {address: jnp.shape(value) for address, value in walk(tree)}
        known = dict(supports or {})
        for address in known:
            if address not in shapes:
                raise ValueError(f"supports name '{address}', which the example does not have. It has {quote(shapes)}.")

        def choose(tree: Mapping[str, Any], prefix: str = "") -> Choices:
            out: Choices = {}
            for name, value in tree.items():
                address = f"{prefix}{name}"
                if isinstance(value, Mapping):
                    out[name] = sample(name, Program(choose, (value, f"{address}.")))
                    continue
                shape, support = shapes[address], known.get(address, dist.constraints.real)
                batch = len(shape) - support.event_dim
                out[name] = sample(name, dist.ImproperUniform(support, shape[:batch], shape[batch:]))
            return out

        def log_density() -> None:
            choices = choose(tree)
            log_p = fn(choices["x"] if single else choices)
            if jnp.shape(log_p) != ():
                raise ValueError(
                    f"the log density must be a scalar, but the function returned shape {jnp.shape(log_p)}. Sum it."
                )
            factor("log_density", log_p)

        return Target(Program(log_density))

    # -- densities -------------------------------------------------------------------------------------------------------

    def log_density(self, position: Array) -> Array:
        """+log density at `position` (shape `(dim,)`), Jacobian included; a scalar."""
        return self._interpret(Unconstrained, position).total("log_prior", "log_likelihood", "log_jacobian")

    def log_prior_and_likelihood(self, position: Array) -> tuple[Array, Array]:
        """The two parts of `log_density`: prior with Jacobian, and likelihood (data and factors)."""
        run = self._interpret(Unconstrained, position)
        return run.total("log_prior", "log_jacobian"), run.total("log_likelihood")

    def log_prior_and_likelihoods(self, position: Array) -> tuple[Array, dict[str, Array]]:
        """The prior with Jacobian, and the pointwise log likelihood of each observed site and factor, by address."""
        run = self._interpret(Pointwise, position)
        return run.total("log_prior", "log_jacobian"), dict(walk(run.record.trees.get("pointwise", {})))

    def log_density_apart(self, address: str, position: Array) -> Array:
        """The log density lane by lane, a vector; see `log_prior_and_likelihood_apart`."""
        log_prior, log_likelihood = self.log_prior_and_likelihood_apart(address, position)
        return log_prior + log_likelihood

    def log_prior_and_likelihood_apart(self, address: str, position: Array) -> tuple[Array, Array]:
        """The two parts of the log density, as far as the discrete site at `address` matters to them, lane by lane.

        The lanes are those of the outermost `ppl.vmap`s around the site, as many as its slot has axes `apart`. Entries of
        the site in lane i matter to number i alone, and to nothing that is left out; so given all other sites the lanes
        are independent. Without such a vmap there is one lane, with the whole density.

        Returns:
            Prior with Jacobian, and likelihood; one number a lane, in C order of the first `apart` axes of the site.
        """
        slot = next(slot for slot in self.slots if slot.address == address)
        if slot.apart == 0:
            log_prior, log_likelihood = self.log_prior_and_likelihood(position)
            return log_prior[None], log_likelihood[None]
        run = self._interpret(self._lanes_of(slot, slot.apart), position)
        found = {path[-1]: jnp.ravel(lanes) for path, lanes in paths(run.record.trees["lanes"])}
        log_prior = found["log_prior"] + found.get("log_jacobian", 0.0)  # a prior there is: the site's own
        return log_prior, found.get("log_likelihood", jnp.zeros_like(log_prior))

    def log_density_between(self, position: Array) -> Array:
        """+log density with discrete sites taken for real ones, for gradients that say where to go; a scalar.

        Raises:
            TypeError: where the program needs them to be whole, as in `mu[z]` and Categorical(...).
        """
        return self._interpret(Relaxed, position).total("log_prior", "log_likelihood", "log_jacobian")

    def log_jacobian(self, position: Array) -> Array:
        """The log Jacobian of `constrain`: what a density of positions has more than that of their choices; a scalar."""
        return self._interpret(Unconstrained, position).total("log_jacobian")

    # -- going back and forth --------------------------------------------------------------------------------------------

    def constrain(self, position: Array) -> Choices:
        """The choices at `position`: a nested dict of the latent sites' values."""
        return self._interpret(Constrain, position).record.trees["choices"]

    def record(self, position: Array) -> Choices:
        """The choices at `position` and the values of the deterministic sites: what a posterior keeps."""
        trees = self._interpret(Constrain, position).record.trees
        return merge(trees["choices"], trees.get("values", {}))

    def unconstrain(self, choices: Choices) -> Array:
        """The position of `choices`. Law: `unconstrain(constrain(u)) == u`."""
        run, _ = self.program.interpret(Free, given=self.program.complete(choices))
        return self._pack(run.record.trees["free"])

    def draw(self, key: Key) -> Array:
        """The position of a draw from the prior: `unconstrain(program.simulate(key).choices)`."""
        run, _ = self.program.interpret(Start, key)
        return self._pack(run.record.trees["free"])

    def fill(self, key: Array, position: Array) -> Array:
        """`position` with its discrete entries drawn anew, each from its distribution given what comes before it."""
        if all(slot.dtype is None for slot in self.slots):
            return position
        run, _ = self.program.interpret(Fill, key, self._unpack(position))
        return self._pack(run.record.trees["free"]).astype(position.dtype)

    # -- looking ---------------------------------------------------------------------------------------------------------

    @property
    def is_discrete(self) -> np.ndarray:
        """Which entries of the vector belong to discrete sites (dim,)."""
        return np.repeat([slot.dtype is not None for slot in self.slots], [slot.size for slot in self.slots])

    def refuse_discrete(self, who: str, slots: Sequence[Slot] | None = None, *, instead: str | None = None) -> None:
        """Raise ValueError, naming the site, if some site (of `slots`, if given) is discrete; `who` needs continuous ones.

        `instead`: what may be done about it, other than to sum it out; by default Gibbs sampling.
        """
        for slot in self.slots if slots is None else slots:
            if slot.dtype is not None:
                address, family = slot.address, self.program.sites()[slot.address].family
                own = f'give it a kernel of its own: inf.gibbs({{"{address}": inf.DiscreteGibbs(), ...: inf.NUTS()}})'
                raise ValueError(
                    f"site '{address}' is discrete ({family}), and {who} moves continuous sites only. Sum it out in the model "
                    f"(a mixture or a forward recursion), condition on it, or {own if instead is None else instead}."
                )

    def refuse_continuous(self, who: str, slots: Sequence[Slot] | None = None) -> None:
        """Raise ValueError, naming the site, if some site (of `slots`, if given) is continuous; `who` needs discrete ones."""
        for slot in self.slots if slots is None else slots:
            if slot.dtype is None:
                address, family = slot.address, self.program.sites()[slot.address].family
                raise ValueError(
                    f"site '{address}' is continuous ({family}), and {who} moves discrete sites only. Give each kernel its "
                    f'own sites: inf.gibbs({{"{address}": inf.NUTS(), ...: inf.{who}()}}).'
                )

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each entry of the vector."""
        out: list[str] = []
        for slot in self.slots:
            entries = slot.entries
            index = [np.unravel_index(i, slot.shape) for i in entries] if slot.shape else [()]
            out += [".".join(slot.path) + (f"[{', '.join(str(int(i)) for i in ix)}]" if ix else "") for ix in index]
        return tuple(out)

    def explain(self, position: Array) -> str:
        """A sentence naming the sites whose density is not finite at `position`, with the first bad entry of each."""
        trees = jax.jit(lambda u: self._interpret(Audit, u).record.trees)(position)
        choices = {address: np.asarray(v) for address, v in walk(trees["choices"])}
        densities = dict(walk(trees.get("densities", {})))
        found = []
        for address in self.program.sites():  # in order of execution: the first at fault is often the cause of the others
            log_p = densities.get(address, 0.0)
            bad = ~np.isfinite(np.asarray(log_p))
            if bad.any():
                where = f" at index {first(bad)}" if bad.ndim else ""
                found.append(f"site '{address}' has log density {np.asarray(log_p)[bad][0]}{where}")
        infinite = [a for a, v in choices.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        found += [f"site '{a}' is not finite itself" for a in infinite]
        return "; ".join(found) if found else "the density of every site is finite there"

    def __repr__(self) -> str:
        rows = "\n".join(f"  {'.'.join(s.path)}: entries {s.start} to {s.start + s.size - 1}" for s in self.slots)
        return f"Target of dimension {self.dim}\n{rows}"

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _interpret(self, kind: type[Interpreter], position: Array) -> Interpreter:
        position = jnp.asarray(position)
        if position.shape != (self.dim,):
            raise ValueError(f"a position of this target has shape ({self.dim},), but got {position.shape}.")
        return self.program.interpret(kind, given=self._unpack(position, whole=kind is not Relaxed))[0]

    def _discrete(self, slots: Sequence[Slot]) -> tuple[Slot, ...]:
        """The slots with what only tracing the program can tell of discrete sites: bounds, and axes that are apart."""
        values = dict(walk(self._unpack(jnp.zeros(self.dim))))
        rows = self.program.sites()

        def look(kind: type[Interpreter], values: dict[str, Array]) -> Interpreter:
            given: Choices = {}
            for slot in slots:
                put(given, slot.path, values[slot.address])
            return self.program.interpret(kind, given=given)[0]

        def bounds(values: dict[str, Array]) -> Choices:
            return dict(walk(look(Bounds, values).record.trees.get("bounds", {})))

        above = depends(bounds, values)
        known = {name: x for name, x in jax.jit(bounds)(values).items() if not above[name] and not is_traced(x)}

        def lane_axes(slot: Slot) -> int:
            plates = rows[slot.address].plates
            most = next((i for i, plate in enumerate(plates) if not plate.startswith("vmap")), len(plates))
            for axes in range(most, 0, -1):
                kind = self._lanes_of(slot, axes)
                rest = depends(lambda v, kind=kind: look(kind, v).total("log_prior", "log_likelihood", "log_jacobian"), values)
                if slot.address not in rest:
                    return axes
            return 0

        return tuple(
            slot if slot.dtype is None else slot._replace(bounds=_range(known.get(slot.address)), apart=lane_axes(slot))
            for slot in slots
        )

    def _lanes_of(self, slot: Slot, axes: int) -> type[Interpreter]:
        return apart(slot.address, len(self.program.sites()[slot.address].plates) - axes)

    def _pack(self, free: Choices) -> Array:
        parts = []
        for slot in self.slots:
            value = jnp.ravel(_at(free, slot.path))
            value = value if slot.missing is None else value[np.array(slot.missing)]
            parts.append(value if slot.dtype is None else value.astype(float))
        return jnp.concatenate(parts)

    def _unpack(self, position: Array, *, whole: bool = True) -> Choices:
        out: Choices = {}
        for slot in self.slots:
            value = position[slot.start : slot.start + slot.size]
            if slot.missing is not None:
                value = jnp.zeros(math.prod(slot.shape), position.dtype).at[np.array(slot.missing)].set(value)
            if slot.dtype is not None and whole:
                value = value.astype(slot.dtype)
            put(out, slot.path, value.reshape(slot.shape))
        return out


def as_target(x: Any) -> Target:
    """A Target from a Target or a conditioned Program.

    Raises:
        ValueError: for anything else, saying how to make one.
    """
    if isinstance(x, Target):
        return x
    if isinstance(x, Program):
        return Target(x)
    hint = " Call the model with its arguments first." if hasattr(x, "fn") else " Use Target.from_log_density for a function."
    raise ValueError(f"a program or a target was expected, but got {type(x).__name__}.{hint}")


def _refuse(latent: list) -> None:
    if not latent:
        raise ValueError("the program has no latent site: all its choices are data, so there is nothing to infer.")
    for path, row in latent:
        address = ".".join(path)
        if row.conditional:
            raise ValueError(
                f"site '{address}' exists in only one branch of a ppl.cond or ppl.switch, so it has no density in the others. "
                "Sample it before the branch, or in every branch under that name."
            )


def _known(program: Program) -> dict[str, Array]:
    """Which entries of each partly observed site are data, by address. They set the dimension, so they must be known now."""
    known = dict(walk(jax.jit(lambda p: p.interpret(Holes)[0].record.trees["known"])(program)))
    for address, mask in known.items():
        if is_traced(mask):
            raise ValueError(
                f"which entries of site '{address}' are missing is not known inside a JAX transformation, so the dimension of "
                "the target is not either. Make the Target outside, and pass it as an argument."
            )
    return known


def _missing(known: np.ndarray, row: Any) -> tuple[int, ...]:
    """Flat indices, in unconstrained space, of the missing entries."""
    batch = known.shape[: known.ndim - row.event_dim]
    missing = ~known.reshape(*batch, -1).all(-1) if row.event_dim else ~known
    full = np.broadcast_to(missing.reshape(batch + (1,) * (len(row.unconstrained) - len(batch))), row.unconstrained)
    return tuple(int(i) for i in np.flatnonzero(full))


def _range(bounds: Array | None) -> tuple[int, int] | None:
    """The least and the largest of bounds (..., 2)."""
    if bounds is None or bounds.size == 0:
        return None
    return int(np.min(bounds[..., 0])), int(np.max(bounds[..., 1]))


def _at(tree: Choices, path: tuple[str, ...]) -> Array:
    node: Any = tree
    for name in path:
        node = node[name]
    return node
