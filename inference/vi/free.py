"""Free: which of an objective's arguments are optimised, and the numbers in them.

```python
inf.maximize(elbo, program | data, guide(phi), free="guide", ...)                      # all parameters of the guide
inf.maximize(elbo, program(theta, x) | data, guide(phi), free=("guide", "model.theta"), ...)
```
A name is that of an argument of the objective; of a program's argument, after a dot, as its function calls it. Free are the
floating-point arrays there: never a program's data, nor what is in a `Fixed`.

So `free="model"` learns covariates, too, where they are arguments. Of `program(theta, x)` say `free="model.theta"`, which
keeps x; or hand it over as `program(theta, Fixed(x))`, whose function then asks for `x.value`. A fit prints what was learned.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


def with_numbers(args: dict[str, Any]) -> tuple[str, ...]:
    """The names of the arguments that hold numbers to learn; all names, where none does."""
    return tuple(name for name in args if list(_leaves(args, (name,), _is_learnable))) or tuple(args)


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
            if not list(_leaves(args, (name,), _is_learnable)):
                raise ValueError(_nothing(who, args, name))
        found = list(_leaves(args, self.names, _is_learnable))
        self.labels = tuple(label for label, _ in found)
        self.sizes: dict[str, int] = {}  # how many numbers there are in an argument, by its label
        for label, leaf in found:
            part = ".".join(label.partition("[")[0].split(".")[:2])
            self.sizes[part] = self.sizes.get(part, 0) + jnp.size(leaf)

    def take(self, args: dict[str, Any]) -> tuple[jax.Array, ...]:
        """The free numbers, arrays in a fixed order."""
        return tuple(jnp.asarray(leaf) for _, leaf in _leaves(args, self.names, _is_learnable))

    def by_label(self, args: dict[str, Any]) -> dict[str, jax.Array]:
        """The free numbers by what they are called, such as `"guide.phi['loc']"`."""
        return dict(zip(self.labels, self.take(args), strict=True))

    def put(self, args: dict[str, Any], numbers: Sequence[jax.Array]) -> dict[str, Any]:
        """The arguments with these numbers in place of their own."""
        given = iter(numbers)
        return _mapped(args, self.names, _is_learnable, lambda label, leaf: next(given))


Leaf = Callable[[Any], bool]  # which leaves are meant
Then = Callable[[str, Any], Any]  # of the label and the leaf, what comes in its place


def _leaves(args: dict[str, Any], names: Sequence[str], which: Leaf) -> Iterator[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    _mapped(args, names, which, lambda label, leaf: found.append((label, leaf)) or leaf)
    return iter(found)


def _mapped(args: dict[str, Any], names: Sequence[str], which: Leaf, then: Then) -> dict[str, Any]:
    """The arguments with `then(label, leaf)` in place of every leaf of what has these names, in order."""
    out = dict(args)
    for first in dict.fromkeys(name.partition(".")[0] for name in names):
        parts = {name.partition(".")[2] for name in names if name.partition(".")[0] == first}
        if "" in parts:
            out[first] = _tree(args[first], which, then, first)
        else:
            out[first] = _program(args[first], which, then, first, parts)
    return out


def _tree(tree: Any, which: Leaf, then: Then, label: str) -> Any:
    def leaf(path, x):
        name = label + jax.tree_util.keystr(path)
        if isinstance(x, ppl.Program):
            return _program(x, which, then, name, None)
        return then(name, x) if which(x) else x

    return jax.tree_util.tree_map_with_path(leaf, tree, is_leaf=lambda x: isinstance(x, Fixed | ppl.Program))


def _is_learnable(x: Any) -> bool:
    return isinstance(x, float) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact))


def _is_whole(x: Any) -> bool:
    dtype = getattr(x, "dtype", type(x))
    return dtype is int or (isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.integer))


def _nothing(who: str, args: dict[str, Any], name: str) -> str:
    whole = [label for label, _ in _leaves(args, (name,), _is_whole)]
    if whole:
        return (
            f"{who}: there is nothing to learn in {name}: {whole[0]} is a whole number, which is taken for a size or an index "
            "and stays as it is. Write it with a point, 3.0 and not 3, or make it an array of floats, to have it learned."
        )
    return (
        f"{who}: there is nothing to learn in {name}: it holds no arrays of floating point. Pass what is to be learned as an "
        "argument of the program."
    )


def _program(program: ppl.Program, which: Leaf, then: Then, label: str, parts: set[str] | None) -> ppl.Program:
    """A program with other arguments: all, or those that its function calls by one of the names `parts`."""

    def new(name: str, x: Any) -> Any:
        return _tree(x, which, then, f"{label}.{name}") if parts is None or name in parts else x

    args = [new(name, x) for name, x in zip(_positions(program), program.args, strict=True)]
    return program.applied(tuple(args), {name: new(name, x) for name, x in program.kwargs.items()})


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
