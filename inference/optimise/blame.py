"""Blame: which site makes an objective infinite or not a number.

The objective is played once more, and the density of every site looked at: of what it draws, and, at the same choices, of the
programs among its arguments.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np

import ppl
from ppl.choices import flatten, nest, paths
from ppl.drawing import undrawn
from ppl.interpreter import Inputs, activate

from ..vi.expectation import Expectation
from ..vi.objectives.minibatch import Densities
from ..vi.play import Play


class Watched(Play):
    """Play, keeping the density of every site."""

    keeps = (*Play.keeps, "densities")

    def _group(self, run: Any, program: Any = None) -> Any:
        name = f"#{self.draws}"
        out = super()._group(run, program)
        if program is not None:
            self.record.trees.setdefault("choices", {})[name] = out[0]
        return out


def blame(objective: Expectation, args: dict[str, Any], key: jax.Array) -> str:
    """A few words that name the sites at fault."""
    arrays, rest = eqx.partition(args, eqx.is_array)

    # compiled, for then distributions do not check their parameters, which are what we look for
    @jax.jit
    def look(arrays):
        given = eqx.combine(arrays, rest)
        given = {name: given[name] for name in args}
        watched = Watched(Inputs(key))
        watched.patterns = objective.patterns
        with activate(watched):
            objective.fn(*given.values())
        trees = watched.record.trees
        audits: dict[str, Any] = {}
        for name, program in given.items():
            for choices in _by_draw(trees.get("choices", {})):
                if isinstance(program, ppl.Program) and _latent(program) == set(choices):
                    audited, _ = program.interpret(Densities, given=program.complete(nest(choices)))
                    audits[name] = audited.record.trees.get("densities", {})
        return trees.get("densities", {}), audits

    drawn, audits = look(arrays)
    found = [f"site {fault} where it is drawn" for fault in _faults(drawn)]
    found = found or [f"site {fault} in {name}" for name, densities in audits.items() for fault in _faults(densities)]
    if found:
        return "; ".join(found)
    return (
        "the sites that the objective draws by itself, and those of programs among its arguments, have finite densities "
        "there; so it is a gradient, a site inside of an inner expectation or a minibatch, or what the objective makes of them"
    )


def _latent(program: ppl.Program) -> set[str]:
    return {address for address, row in program.sites().items() if row.kind == "latent"}


def _by_draw(choices: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of each draw, flat."""
    return [flatten(tree) for name, tree in choices.items() if name.startswith("#")]


def _faults(densities: dict[str, Any]) -> list[str]:
    out = []
    for path, log_p in paths(densities):
        address = undrawn(path)
        bad = ~np.isfinite(np.asarray(log_p))
        if bad.any():
            out.append(f"'{address}' has log density {np.asarray(log_p)[bad].ravel()[0]}")
    return out
