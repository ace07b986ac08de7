"""A program opened at its loop: what comes before it, and then one step at a time.

```python
opened = Stepwise(walk(100, 1.0, 2.0) | {"y": y})      # a program with one ppl.scan
begun = opened.begin(key)                              # the choices before the loop, and the carry that it begins with
new = opened.step(key, 0, begun.before, begun.carry)   # step 0: new.carry, new.choices, new.log_weight
```

Law: with one key, `begin` and all steps in turn make the choices, and add up to the density, of `program.simulate(key)`.

The program's function is run again at every step, up to the loop, with the choices before it given; what depends on none of
them the compiler takes out of the loop. Particle filters live on this.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import copy
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax import Array

from ._errors import quote
from ._keys import Key, fold
from .choices import EMPTY, Choices
from .interpreter import Inputs, Interpreter, activate, current
from .interpreters import Assess, Generate, Inspect, Simulate, weighing_all_but
from .program import Program


class Begun(NamedTuple):
    """Before the loop: its first `carry`, the choices made `before` it, and the log density of the data before it."""

    carry: Any
    before: Choices
    log_likelihood: Array


class Stepped(NamedTuple):
    """After a step: the `carry`, the `choices` of this step (without time axis), and log densities, scalars: `log_prior` of
    the choices, `log_likelihood` of the step's data, `log_weight` of data and of those choices that were given."""

    carry: Any
    choices: Choices
    log_prior: Array
    log_likelihood: Array
    log_weight: Array


class Stepwise(eqx.Module):
    """A conditioned program with exactly one `ppl.scan` (or `ppl.fori_loop`), with nothing random after it.

    - `length`: the number of steps.
    - `latent`, `before`: names of the latent sites in the loop, and before it.

    Raises:
        ValueError: when there is no loop or more than one, when it runs in reverse, or sites come after it.
    """

    program: Program
    length: int = eqx.field(static=True)
    latent: tuple[str, ...] = eqx.field(static=True)
    before: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, program: Program) -> None:
        loops: list[_Loop] = []

        def look() -> Array:
            loops.clear()
            interpreter, _ = program.interpret(_looking(loops))
            return interpreter.total("log_prior", "log_likelihood")

        jax.eval_shape(look)
        table = program.table()
        if len(loops) != 1:
            found = "none" if not loops else str(len(loops))
            raise ValueError(
                "a program that is taken step by step has exactly one ppl.scan in its own function, but this one has "
                f"{found}. Write what happens in one step as the body of one ppl.scan."
            )
        loop = loops[0]
        if loop.reverse:
            raise ValueError("a program that is taken step by step runs forward, but its ppl.scan has reverse=True.")
        after = [name for name in table if name not in loop.before and name not in loop.sites and _is_random(table[name])]
        if after:
            raise ValueError(
                f"site {quote(after)} comes after the ppl.scan, but a program that is taken step by step ends with it. Move "
                "it into the last step, or ahead of the loop."
            )
        self.program, self.length = program, loop.steps
        self.latent = tuple(name for name in loop.sites if _is_random(table[name], "latent"))
        self.before = tuple(name for name in loop.before if _is_random(table[name], "latent"))

    @property
    def prelude(self) -> Program:
        """The program up to its loop: a program of the sites before it alone."""
        program = self.program
        return Program(_Prelude(program.fn), program.args, program.kwargs, program._data, program.do, program.rules)

    def begin(self, key: Key, given: Choices = EMPTY) -> Begun:
        """Draw what comes before the loop, but for what is given of it."""
        reached = self._reach(Generate if given else Simulate, key, given)
        record = reached.interpreter.record
        return Begun(reached.init, record.trees.get("choices", {}), reached.interpreter.total("log_likelihood"))

    def step(
        self, key: Array | None, t: Any, before: Choices, carry: Any, given: Choices = EMPTY, drawn: Iterable[str] = ()
    ) -> Stepped:
        """Step number `t` (from 0) from `carry`. Choices that are not `given` are drawn with `key`; those of the sites `drawn`
        (addresses) are given too, but weigh as if they had been drawn: nothing."""
        reached = self._reach(Assess, key, before)
        outer = reached.interpreter.inputs
        sliced, x = _at(t, (outer._replace(key=None).lanes(self.length), reached.xs))
        key = None if key is None else fold(key, t)
        kind = weighing_all_but(frozenset(drawn)) if drawn else Generate
        inner = kind(sliced._replace(key=key, given=given), reached.interpreter.rules)
        with activate(inner):
            carry, _ = reached.body(carry, x)
        choices = inner.record.trees.get("choices", {})
        log_prior, log_likelihood = inner.total("log_prior"), inner.total("log_likelihood")
        return Stepped(carry, choices, log_prior, log_likelihood, inner.total("log_weight", "log_likelihood"))

    def seen(self, t: Any, before: Choices) -> tuple[Any, Choices]:
        """What a step has to go by beside its carry: its slice of the scan's `xs`, and its data by name."""
        reached = self._reach(Assess, None, before)
        return _at(t, (reached.xs, Inputs(data=reached.interpreter.inputs.data).lanes(self.length).data))

    def _reach(self, kind: type[Interpreter], key: Key | None, given: Choices) -> "_Reached":
        try:
            self.program.interpret(_stopping(kind), key, given)
        except _Reached as reached:
            return reached
        raise AssertionError("the program did not come to its loop again")


class _Prelude(NamedTuple):
    """A model's function, run until it comes to its loop."""

    fn: Any

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        interpreter: Any = current()
        stopping = copy(interpreter)  # it writes to the same record and table
        stopping.__class__ = _stopping(type(interpreter))
        with activate(stopping), suppress(_Reached):
            self.fn(*args, **kwargs)


class _Loop(NamedTuple):
    """What was seen of a loop: its length, and the names of the sites before it and in it."""

    steps: int
    before: tuple[str, ...]
    sites: tuple[str, ...]
    reverse: bool


class _Reached(Exception):  # noqa: N818  (no error: it ends the run of a program where its loop begins)
    """A program came to its loop."""

    def __init__(self, interpreter: Interpreter, body: Any, init: Any, xs: Any) -> None:
        super().__init__()
        self.interpreter, self.body, self.init, self.xs = interpreter, body, init, xs


def _stopping(kind: type[Interpreter]) -> type[Interpreter]:
    """An interpreter of a kind that stops where the loop of the program's own function begins."""

    class Stopping(kind):
        inner = kind

        def scan(self, f: Any, init: Any, xs: Any, steps: int, *, reverse: bool = False, unroll: int | bool = 1) -> Any:
            raise _Reached(self, f, init, xs)

    return Stopping


def _looking(loops: list[_Loop]) -> type[Interpreter]:
    """An interpreter that notes the loops of the program's own function."""

    class Looking(Inspect):
        inner = Inspect

        def scan(self, f: Any, init: Any, xs: Any, steps: int, *, reverse: bool = False, unroll: int | bool = 1) -> Any:
            before = tuple(self.table)
            out = super().scan(f, init, xs, steps, reverse=reverse, unroll=unroll)
            loops.append(_Loop(steps, before, tuple(name for name in self.table if name not in before), reverse))
            return out

    return Looking


def _at(t: Any, tree: Any) -> Any:
    """The slices at number `t` of arrays with a leading axis of time."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, t, keepdims=False), tree)


def _is_random(row: Any, *kinds: str) -> bool:
    """Whether a row of a table, or some row of a group, is of one of the kinds; by default of one that has a density."""
    if isinstance(row, Mapping):
        return any(_is_random(x, *kinds) for x in row.values())
    return row.kind in (kinds or ("latent", "observed", "factor"))
