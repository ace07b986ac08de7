"""Models and programs. A model is a decorated function; a program is a model applied to arguments.

A program is a value and a pytree: its arrays (and floats) are leaves, everything else (the function, integers, strings) is
structure, so programs go through `jit`, `vmap` and `grad` as arguments. All its methods return new values.

Laws: `log_density(simulate(key).choices) == simulate(key).log_density`;
`(p | data).log_density(rest) == p.log_density(rest and data)`;
`E[exp(log_weight)]` of `generate` is the marginal density of its constraints.
"""

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import jax
from jax import Array

from . import checks
from ._errors import nearest
from ._keys import Key, check_key
from .choices import EMPTY, Choices, flatten, holes, merge, paths, put, remove
from .interpreter import NO_RULES, Inputs, Interpreter, Rules, activate, current
from .interpreters import Assess, Generate, Inspect, Replay, Simulate, Soften
from .site import SiteInfo, Table, format_table
from .trace import Trace


class Model:
    """A function of arguments that makes random choices; call it to get a Program."""

    def __init__(self, fn: Callable) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> "Program":
        args, kwargs = jax.tree.map(holes, (args, kwargs))
        return Program(self.fn, args, kwargs)

    def __repr__(self) -> str:
        return f"Model {self.__name__}: call it with its arguments to get a program"


def model(fn: Callable) -> Model:
    """Turn a Python function into a model.

    Example:
        ```python
        @ppl.model
        def coin(n):
            p = ppl.sample("p", dist.Beta(1.0, 1.0))
            return ppl.sample("heads", dist.Binomial(n, p))

        coin(10).simulate(jax.random.key(0))
        ```
    """
    return Model(fn)


@jax.tree_util.register_pytree_node_class
class Program:
    """A model with its arguments, and possibly data, interventions and reparameterisations."""

    def __init__(
        self,
        fn: Callable,
        args: tuple = (),
        kwargs: Mapping[str, Any] = EMPTY,
        data: Choices = EMPTY,
        do: Choices = EMPTY,
        rules: Rules = NO_RULES,
    ) -> None:
        self.fn, self.args, self.kwargs = fn, tuple(args), dict(kwargs)
        self._data, self.do, self.rules = data, do, rules
        self._table: Table | None = None
        self._flat: tuple[tuple, Any] | None = None  # of a program rebuilt from its leaves, whatever they are now

    # -- asking ----------------------------------------------------------------------------------------------------------

    def simulate(self, key: Key) -> Trace:
        """Run forward. Latent sites are drawn; data stay as they are.

        Args:
            key: one typed key. Use `jax.vmap(program.simulate)(jax.random.split(key, n))` for n traces.
        """
        interpreter, _ = self.interpret(Simulate, check_key(key, "simulate"))
        return Trace(interpreter.record.trees.get("choices", {}), _density(interpreter), self)

    def log_density(self, choices: Choices) -> Array:
        """+log joint density of `choices` (every latent site) and the program's data; a scalar.

        Raises:
            ValueError: for missing, unknown or misshapen choices.
        """
        from .averaged import has_laws, log_density_averaged

        kind = Soften if getattr(current(), "soft", False) else Assess
        if has_laws(choices):
            return log_density_averaged(self, choices, kind)
        return _density(self.interpret(kind, given=self.complete(choices))[0])

    def retval(self, choices: Choices) -> Any:
        """What the model function returns when it makes `choices`."""
        return self.interpret(Assess, given=self.complete(choices))[1]

    def generate(self, key: Array, constraints: Choices) -> tuple[Trace, Array]:
        """Run with some choices fixed, and the log weight of having fixed them.

        The weight is the density of `constraints` and data given the other choices, drawn from the prior; its mean is
        their marginal density.
        """
        key = check_key(key, "generate")
        given = checks.place(self.table(), constraints, "the constraints", {"latent"})
        interpreter, _ = self.interpret(Generate, key, given)
        trace = Trace(interpreter.record.trees.get("choices", {}), _density(interpreter), self)
        return trace, interpreter.total("log_weight", "log_likelihood")

    def values(self, choices: Choices) -> Choices:
        """Every named value of the run that makes `choices`: latent, observed and deterministic, as a nested dict."""
        trees = self.interpret(Replay, given=self.complete(choices))[0].record.trees
        out: Choices = {}
        for kind in ("choices", "observed", "values"):
            out = merge(out, trees.get(kind, {}))
        return out

    def log_likelihoods(self, choices: Choices) -> dict[str, Array]:
        """Pointwise log likelihood of each observed site and factor, by address; one entry a batch element.

        What leave-one-out and WAIC need. Missing entries count 0.
        """
        return flatten(self.interpret(Replay, given=self.complete(choices))[0].record.trees.get("pointwise", {}))

    # -- changing --------------------------------------------------------------------------------------------------------

    def __or__(self, data: Choices) -> "Program":
        """Condition: `program | {"y": y}` makes site `y` data. NumPy masked arrays have missing entries: those stay latent.

        Raises:
            ValueError: for unknown sites, wrong shapes or types, NaN, or values outside a site's support.
        """
        placed = checks.data(self.table(), data)
        return self._with(data=merge(self._data, placed))

    def without(self, *addresses: str) -> "Program":
        """The program with the data of these sites (all, if none is named) taken away.

        Example:
            `(program | {"y": y}).without("y")` equals `program`.
        """
        known = flatten(self._data)
        for address in addresses:
            if not any(name == address or name.startswith(f"{address}.") for name in known):
                raise ValueError(f"site '{address}' has no data to take away.{nearest(address, known)}")
        return self._with(data=remove(self._data, set(addresses)) if addresses else {})

    def intervene(self, values: Choices) -> "Program":
        """Pearl's do-operator: set sites to values, cutting what used to determine them; a set site has no density.

        A function in place of a value replaces a `ppl.call` of that name.

        Example:
            `program.intervene({"dose": 1.0})`, `program.intervene({"voltage": emulator})`
        """
        checks.a_dict(values, "the interventions")
        flat = flatten(values)
        calls = checks.calls(self.table(), {name: value for name, value in flat.items() if callable(value)})
        fixed = {name: value for name, value in flat.items() if not callable(value)}
        placed = checks.place(self.table(), fixed, "the interventions", {"latent", "observed", "deterministic", "intervened"})
        return self._with(
            data=remove(self._data, set(flatten(placed))),
            do=merge(self.do, placed),
            rules=self.rules._replace(calls=merge(self.rules.calls, calls)),
        )

    def reparam(self, rules: Mapping[str, Any] | None = None) -> "Program":
        """Change how latent sites are parameterised; their joint distribution stays.

        Args:
            rules: from site names to reparameterisations such as `ppl.NonCentered()`, or any function
                `(name, distribution) -> value` written with `ppl.sample` and `ppl.deterministic`. None: non-centre every
                latent location-scale site whose parameters depend on other latent sites.

        Example:
            `eight_schools(sigma).reparam()` samples `theta_base ~ Normal(0, 1)` and computes `theta`.
        """
        if rules is None:
            from .reparam import non_centred_sites

            rules = non_centred_sites(self)
        placed = checks.rules(self.table(), rules)
        return self._with(rules=self.rules._replace(reparams=merge(self.rules.reparams, placed)))

    def applied(self, args: tuple, kwargs: Mapping[str, Any] = EMPTY) -> "Program":
        """The same model, data, interventions and reparameterisations, with other arguments."""
        return Program(self.fn, args, kwargs, self._data, self.do, self.rules)

    def marginal(self, *addresses: str, by: Any = None) -> Any:
        """The program without some of its latent sites, which are summed or integrated out.

        - `addresses`: of the sites to remove.
        - `by`: who does it, an object with `marginal(program, addresses)`, which also says what comes back. None: exactly.

        Exactly means: a discrete site of finite support by trying its values, in each lane of a `ppl.vmap` apart (n * K), and
        along a `ppl.scan` whose carry depends on it by the forward algorithm (T * K^2); a continuous one by conjugacy (the
        table is in `ppl/conjugacy.py`). What comes back is a Program, whose density is that of the sites that are kept.
        Deterministic sites computed from a removed one are gone with it; simulation runs forward and forgets. Of pointwise log
        likelihoods that share a removed site, each is that of its datum given those before it.

        Raises:
            ValueError: for an unknown site, a support that is infinite, a child that is not conjugate, and where something
                outside its lane, or a kept site's support, is computed from a removed site.

        Example:
            `inf.mcmc(mixture(y).marginal("z"), inf.NUTS(), key=key)`
        """
        from .marginal import marginal

        return marginal(self, *addresses, by=by)

    def draw_removed(self, key: Array, choices: Choices) -> Choices:
        """An exact draw of the sites that `marginal` removed, given `choices` of those that are kept, and the data.

        Returns a nested dict; with `choices` it is a joint choice of the whole program. `jax.vmap` it over keys and draws.

        Example:
            `jax.vmap(program.draw_removed)(keys, posterior_draws)["z"]`
        """
        from .marginal import draw_removed

        return draw_removed(self, key, choices)

    # -- looking ---------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> dict[str, Any]:
        """The data this program was given with `|`, by address."""
        return flatten(self._data)

    def observed(self, choices: Choices) -> dict[str, Array]:
        """Every observed value by address, also those written in the model with obs=; missing entries are NaN."""
        return flatten(self.interpret(Replay, given=self.complete(choices))[0].record.trees.get("observed", {}))

    def sites(self) -> dict[str, SiteInfo]:
        """Every site by address, in order of execution: kind, shape, dtype, support, plates."""
        return flatten(self.table())

    def graph(self) -> str:
        """The model's graph as Mermaid text: sites, plates and which site's parameters use which other site."""
        from .graph import mermaid

        return mermaid(self)

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", "program")
        rows = self.sites()
        conditioned = f" | {', '.join(flatten(self._data))}" if self._data else ""
        return f"Program {name}{conditioned}\n{format_table(rows)}"

    # -- running ---------------------------------------------------------------------------------------------------------

    def run(self) -> Any:
        """Call the model function under the current interpreter."""
        return self.fn(*self.args, **self.kwargs)

    def interpret(self, kind: type[Interpreter], key: Key | None = None, given: Choices = EMPTY) -> tuple[Interpreter, Any]:
        """Run under a fresh interpreter of `kind`; returns it, with its record, and the model's return value."""
        interpreter = kind(Inputs(key, self._data, given, self.do, _with_arrays(self.rules.reparams)), self.rules)
        with activate(interpreter), checks.sentences():
            out = self.run()
        return interpreter, out

    def table(self) -> Table:
        """The nested table of sites, found by an abstract run (no arithmetic is done)."""
        if self._table is None:
            found: list[Table] = []

            def look() -> Array:
                interpreter, _ = self.interpret(Inspect)
                found.append(interpreter.table)
                return interpreter.total("log_prior", "log_likelihood")

            jax.eval_shape(look)
            checks.addresses_differ(found[-1])
            self._table = found[-1]
        return self._table

    def complete(self, choices: Choices) -> Choices:
        """`choices` checked against the table: every latent site once, with its shape, and nothing else."""
        placed = checks.place(self.table(), choices, "the choices", {"latent"})
        checks.nothing_missing(self.table(), placed)
        return placed

    def add_inputs(self, inputs: Inputs, prefix: str) -> Inputs:
        """This program's own data and interventions joined to those from the program around it."""
        own, outer = flatten(self._data), flatten(inputs.data)
        for address in own.keys() & outer.keys():
            raise ValueError(f"site '{prefix}{address}' is given data twice: in the nested program and from outside.")
        own_rules = _with_arrays(self.rules.reparams)
        return inputs._replace(
            data=merge(self._data, inputs.data), do=merge(self.do, inputs.do), rules=merge(own_rules, inputs.rules)
        )

    def add_rules(self, rules: Rules) -> Rules:
        """This program's own rules joined to those from the program around it."""
        return Rules(*(merge(mine, theirs) for mine, theirs in zip(self.rules, rules, strict=True)))

    def _with(self, **changes: Any) -> "Program":
        parts = {"fn": self.fn, "data": self._data, "do": self.do, "rules": self.rules} | changes
        return Program(args=self.args, kwargs=self.kwargs, **parts)

    # -- pytree ----------------------------------------------------------------------------------------------------------

    def tree_flatten(self) -> tuple[tuple, Any]:
        if self._flat is not None:
            return self._flat
        leaves, treedef = jax.tree.flatten((self.args, self.kwargs, self._data, self.do, self.rules))
        dynamic = tuple(x for x in leaves if _is_data(x))
        static = tuple(_HOLE if _is_data(x) else x for x in leaves)
        return dynamic, (self.fn, treedef, static)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: tuple) -> "Program":
        fn, treedef, static = aux
        values = iter(children)
        leaves = [next(values) if x is _HOLE else x for x in static]
        program = cls(fn, *jax.tree.unflatten(treedef, leaves))
        program._flat = (tuple(children), aux)
        return program


class _Hole:
    """Marks where a leaf went in the structure of a program."""


_HOLE = _Hole()


def _is_data(x: Any) -> bool:
    """Arrays and floats are data; integers, flags, strings and functions are structure."""
    return isinstance(x, float) or (hasattr(x, "dtype") and hasattr(x, "shape")) or type(x) is object


def _with_arrays(rules: Mapping[str, Any]) -> Choices:
    """Those of the reparameterisations that are pytrees of arrays."""
    out: Choices = {}
    for path, rule in paths(rules):
        leaves = jax.tree.leaves(rule)
        if leaves and all(_is_data(x) for x in leaves):
            put(out, path, rule)
    return out


def _density(interpreter: Interpreter) -> Array:
    return interpreter.total("log_prior", "log_likelihood")
