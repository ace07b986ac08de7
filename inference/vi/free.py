"""Free: which of an objective's arguments are optimised, and the numbers in them.

```python
inf.maximize(elbo, program | data, guide(phi), free="guide", ...)                      # all parameters of the guide
inf.maximize(elbo, program(theta, x) | data, guide(phi), free=("guide", "model.theta"), ...)
```
A name is that of an argument of the objective; of a program's argument, after a dot, as its function calls it. Free are the
floating-point arrays there: never a program's data, nor what is in a `Fixed`.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import ppl
from ppl._errors import nearest

from ..fixed import Fixed


def named(who: str, objective: Any, args: tuple) -> dict[str, Any]:
    """The arguments of an objective by the names that its function has for them, in order.

    Raises:
        ValueError: where they do not fit the function.
    """
    try:
        bound = inspect.signature(objective.fn).bind(*args)
    except TypeError as error:
        raise ValueError(f"{who}: {objective.__name__} was given {len(args)} arguments: {error}.") from None
    for name, value in bound.arguments.items():
        if isinstance(value, ppl.Model):
            raise ValueError(f"{who}: the argument {name} is the model {value.__name__} itself. Call it with its arguments.")
    out: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        many = bound.signature.parameters[name].kind == inspect.Parameter.VAR_POSITIONAL
        out |= {f"{name}[{i}]": x for i, x in enumerate(value)} if many else {name: value}
    return out


class Free:
    """The free numbers of the arguments `args` (by name, of an objective) that `names` say."""

    def __init__(self, who: str, args: dict[str, Any], names: str | Sequence[str] | None) -> None:
        if names is None:
            if "guide" not in args:
                raise ValueError(
                    f"{who}: say what is to be optimised, free=...: the objective takes {', '.join(args)}, and none of them "
                    "is called guide."
                )
            names = "guide"
        self.names = (names,) if isinstance(names, str) else tuple(names)
        for name in self.names:
            first, _, rest = name.partition(".")
            if first not in args:
                raise ValueError(f"{who}: the objective has no argument '{first}' to optimise.{nearest(first, args)}")
            if rest:
                _look(who, first, args[first], rest)
        self.labels = tuple(label for label, _ in self._leaves(args))
        if not self.labels:
            raise ValueError(
                f"{who}: there is nothing to learn in {', '.join(self.names)}: it holds no arrays of floating point. Pass "
                "what is to be learned as an argument of the program."
            )

    def take(self, args: dict[str, Any]) -> tuple[jax.Array, ...]:
        """The free numbers, arrays in a fixed order."""
        return tuple(jnp.asarray(leaf) for _, leaf in self._leaves(args))

    def put(self, args: dict[str, Any], numbers: Sequence[jax.Array]) -> dict[str, Any]:
        """The arguments with these numbers in place of their own."""
        given = iter(numbers)
        return self._mapped(args, lambda label, leaf: next(given))

    def _leaves(self, args: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        self._mapped(args, lambda label, leaf: found.append((label, leaf)) or leaf)
        return iter(found)

    def _mapped(self, args: dict[str, Any], fn: Callable[[str, Any], Any]) -> dict[str, Any]:
        """The arguments with `fn(label, leaf)` in place of every free number, in order."""
        out = dict(args)
        for first in dict.fromkeys(name.partition(".")[0] for name in self.names):
            parts = {name.partition(".")[2] for name in self.names if name.partition(".")[0] == first}
            if "" in parts:
                out[first] = mapped(args[first], fn, first)
            else:
                out[first] = _program(args[first], fn, first, parts)
        return out


def mapped(tree: Any, fn: Callable[[str, Any], Any], label: str) -> Any:
    """A pytree with `fn(label, leaf)` in place of every number in it that can be learned."""

    def leaf(path, x):
        name = label + jax.tree_util.keystr(path)
        if isinstance(x, ppl.Program):
            return _program(x, fn, name, None)
        return fn(name, x) if _is_learnable(x) else x

    return jax.tree_util.tree_map_with_path(leaf, tree, is_leaf=lambda x: isinstance(x, Fixed | ppl.Program))


def _is_learnable(x: Any) -> bool:
    return isinstance(x, float) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact))


def _program(program: ppl.Program, fn, label: str, parts: set[str] | None) -> ppl.Program:
    """A program with other arguments: all, or those that its function calls by one of the names `parts`."""
    positions = _positions(program)
    args = [
        mapped(x, fn, f"{label}.{name}") if parts is None or name in parts else x
        for name, x in zip(positions, program.args, strict=True)
    ]
    kwargs = {k: mapped(x, fn, f"{label}.{k}") if parts is None or k in parts else x for k, x in program.kwargs.items()}
    return program.applied(tuple(args), kwargs)


def _positions(program: ppl.Program) -> list[str]:
    """What the program's function calls its positional arguments; their numbers, where it has no names for them."""
    names = [str(i) for i in range(len(program.args))]
    try:
        parameters = inspect.signature(program.fn).parameters.values()
    except (TypeError, ValueError):
        return names
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return known[: len(names)] + names[len(known) :]


def _look(who: str, first: str, arg: Any, rest: str) -> None:
    """Raise ValueError unless `rest` is what a program's function calls one of its arguments."""
    if not isinstance(arg, ppl.Program):
        raise ValueError(f"{who}: '{first}.{rest}': {first} is {type(arg).__name__}, and only programs' arguments have names.")
    known = [*_positions(arg), *arg.kwargs]
    if rest not in known:
        raise ValueError(f"{who}: the program {first} has no argument '{rest}'.{nearest(rest, known)}")
