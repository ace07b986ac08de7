"""How arrays are computed from an input: as its entries, multiples of them, linearly, affinely, or in another way.

Read off a jaxpr, so it holds for all values; what is not understood counts as another way. `how(fn, x, rest)` gives one of

    NONE (not at all) < SAME (its entries) < SCALED (multiples of entries) < LINEAR (sums of these) < AFFINE (and constants)

for every array that fn(x, rest) returns. Each class holds those before it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

NONE, SAME, SCALED, LINEAR, AFFINE, OTHER = range(6)

_MOVES = {  # entries go to other places
    "broadcast_in_dim",
    "reshape",
    "squeeze",
    "expand_dims",
    "slice",
    "transpose",
    "rev",
    "copy",
    "copy_p",
    "convert_element_type",
    "reduce_precision",
    "optimization_barrier",
}
_SUMS = {"reduce_sum", "cumsum"}


def how(fn: Callable[[Any, Any], Any], x: Any, rest: Any) -> Any:
    """For each array of the tree `fn(x, rest)` how it is computed from the arrays of the tree `x`, together.

    Of arguments only shapes and dtypes matter.
    """
    closed, out = jax.make_jaxpr(fn, return_shape=True)(x, rest)
    inputs = [SAME] * len(jax.tree.leaves(x)) + [NONE] * len(jax.tree.leaves(rest))
    return jax.tree.unflatten(jax.tree.structure(out), _walk(closed.jaxpr, inputs))


def _walk(jaxpr: Any, inputs: Sequence[int]) -> list[int]:
    found: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(atom: Any) -> int:
        return NONE if hasattr(atom, "val") else found.get(atom, NONE)

    for eqn in jaxpr.eqns:
        for var, kind in zip(eqn.outvars, _through(eqn, [of(a) for a in eqn.invars]), strict=True):
            found[var] = kind
    return [of(a) for a in jaxpr.outvars]


def _through(eqn: Any, ins: list[int]) -> list[int]:
    name, most = eqn.primitive.name, max(ins, default=NONE)
    if most in (NONE, OTHER):
        return [most] * len(eqn.outvars)
    if name == "scan":
        return _scan(eqn, ins)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = getattr(eqn.params.get(key), "jaxpr", eqn.params.get(key))
        if name not in ("while", "cond") and inner is not None and len(inner.invars) == len(ins):
            return _walk(inner, ins)
    return [_plain(name, ins, most)] * len(eqn.outvars)


def _plain(name: str, ins: list[int], most: int) -> int:
    first, rest = ins[0], ins[1:]
    if name in _MOVES or (name in ("gather", "dynamic_slice") and not any(rest)):
        return first
    if name == "neg" or (name == "mul" and ins.count(NONE) == 1) or (name == "div" and not any(rest)):
        return max(most, SCALED)
    if name in _SUMS or (name == "dot_general" and ins.count(NONE) == 1):
        return max(most, LINEAR)
    if name in ("add", "sub", "add_any"):
        return AFFINE if NONE in ins else max(most, LINEAR)
    if name == "select_n" and first == NONE:
        return AFFINE if NONE in rest else most
    if name == "concatenate":
        return AFFINE if NONE in ins else most
    return OTHER


def _scan(eqn: Any, ins: list[int]) -> list[int]:
    """Constants, carry and slices go in; carry and slices come out. What a carry tells grows until it is stable."""
    jaxpr = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    rank = lambda pair: len(pair[0].aval.shape) == len(pair[1].aval.shape)  # noqa: E731
    carry = sum(map(rank, zip(eqn.outvars, jaxpr.outvars, strict=True)))
    consts = sum(map(rank, zip(eqn.invars, jaxpr.invars, strict=True))) - carry
    state = list(ins)
    while True:
        outs = _walk(jaxpr, state)
        grown = [_either(a, b) for a, b in zip(state[consts : consts + carry], outs[:carry], strict=True)]
        if grown == state[consts : consts + carry]:
            return outs
        state[consts : consts + carry] = grown


def _either(a: int, b: int) -> int:
    """What holds of a carry that is `a` at first and `b` later. A constant is a multiple of nothing: then it is affine."""
    return max(a, b) if a == b or NONE not in (a, b) else max(a, b, AFFINE)
