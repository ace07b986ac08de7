"""Drawing: how a program runs that draws other programs.

Every `ppl.draw` is a group of sites of its own, named by its number: `#0`, `#1`, ... in order of execution. So the noise of a
draw depends on its number and the names below it, and two draws of one program are independent.
"""

from collections.abc import Callable, Iterable
from typing import Any

from jax import Array

from ._keys import fold_name
from .choices import Choices
from .interpreter import NO_RULES, Inputs, Interpreter, Record, Rules, activate
from .interpreters import Simulate
from .program import Program
from .site import Site, Table


class Drawing(Simulate):
    """Simulate, for programs with `ppl.draw` in them. `passes`: the totals of what is drawn that count in this program too."""

    passes: tuple[str, ...] = ()

    def __init__(self, inputs: Inputs, rules: Rules = NO_RULES, prefix: str = "") -> None:
        super().__init__(inputs, rules, prefix)
        self.draws = 0  # how many there were so far, those in parts of the program included

    def draw(self, generative: Any) -> tuple[Choices, Array]:
        """The choices of a program, and their log density."""
        if isinstance(generative, Program):
            return self._group(lambda child: _choices_of(child, generative), generative)
        return self._group(lambda child: generative.drawn())

    def nested(self, fn: Callable[[], Any]) -> Any:
        """`fn()`, its draws apart from those here."""
        return self._group(lambda child: fn())

    def latent(self, site: Site) -> Array:
        if self.inputs.key is None:
            raise ValueError(
                f"site '{self.address(site)}' is random, and there is no key to draw it with: this density is an estimate. "
                "Give log_density(choices, key=key)."
            )
        return super().latent(site)

    def address(self, site: Site) -> str:
        """The address of a site within the program that was drawn."""
        return undrawn(site.address.split("."))

    def key(self, name: str) -> Any:
        """The key of something here that is called `name`."""
        return None if self.inputs.key is None else fold_name(self.inputs.key, name)

    def child(self, inputs: Inputs, rules: Rules | None = None, name: str = "") -> Interpreter:
        child: Any = super().child(inputs, rules, name)
        child.draws = 0 if name else self.draws  # the body of a combinator counts on
        return child

    def absorb(self, record: Record, table: Table) -> None:
        super().absorb(record, table)
        self.draws = max([self.draws, *(int(name[1:]) + 1 for name in table if name.startswith("#"))])

    def _group(self, run: Callable[[Any], Any], program: Any = None) -> Any:
        name = f"#{self.draws}"
        self.check(name, "draw")
        self.draws += 1
        inputs, rules = self.inputs.under(name), NO_RULES
        if program is not None:
            inputs, rules = program.add_inputs(inputs, ""), program.add_rules(NO_RULES)
        child = self.child(inputs, rules, name)
        with activate(child):
            out = run(child)
        self.table[name] = child.table
        for kind in self.keeps:
            if kind in child.record.trees and kind != "choices":
                self.record.trees.setdefault(kind, {})[name] = child.record.trees[kind]
        self._add_totals({kind: x for kind, x in child.record.totals.items() if kind in self.passes})
        return out


def undrawn(path: Iterable[str]) -> str:
    """The address of a path within the programs that were drawn: without the numbers of draws.

    Example:
        `undrawn(("#0", "encoder", "z")) == "encoder.z"`
    """
    return ".".join(name for name in path if not name.startswith("#"))


def _choices_of(child: Interpreter, program: Program) -> tuple[Choices, Array]:
    program.run()
    return child.record.trees.get("choices", {}), child.total("log_prior", "log_likelihood")
