"""Generative: what can be drawn, and has a density or an unbiased estimate of one.

A Program is drawn with all its choices, and its density is exact. Of a marginal, or of the output of an algorithm, nobody may
be able to compute the density; then an estimate will do, from fresh random numbers, and all that is built on densities still
holds (Lew, Ghavamizadeh, Rinard and Mansinghka, "Probabilistic Programming with Stochastic Probabilities", PLDI 2023):

- `drawn()`: choices x and w with E[exp(-w) | x] = 1 / p(x);
- `density(x)`: w with E[exp(w)] = p(x).

Both run inside a program (`ppl.draw` is their verb, combinators their control flow), so that who interprets it sees every
random number that they use: a gradient of an objective goes through the estimates too. From outside one gives a key:
`simulate(key)`, `log_density(choices, key=key)`.
"""

import abc
from typing import Any

from jax import Array

from ._keys import Key, check_key
from .choices import Choices
from .drawing import Drawing
from .interpreter import Inputs, activate, current
from .program import Program
from .trace import Trace


class Generative(abc.ABC):
    """See the file's docstring. A finished one defines `drawn` and `density`."""

    @abc.abstractmethod
    def drawn(self) -> tuple[Choices, Array]:
        """Choices, and an estimate of their log density whose exponential has reciprocals that are unbiased; a scalar."""

    @abc.abstractmethod
    def density(self, choices: Choices) -> Array:
        """An estimate of the log density of `choices` whose exponential is unbiased; a scalar."""

    def simulate(self, key: Array) -> Trace:
        """One draw, from outside a program. `log_density` of the trace is what `drawn` says."""
        return Trace(*_run(check_key(key, "simulate"), self.drawn))

    def log_density(self, choices: Choices, *, key: Array | None = None) -> Array:
        """+log density of `choices`, or an estimate whose exponential is unbiased; a scalar.

        - `key`: where the random numbers come from. Inside an `@expectation` leave it out: they are those of the program.

        Raises:
            ValueError: where random numbers are needed, and there is neither a key nor a running program.
        """
        running = current()
        if key is None and isinstance(running, Drawing):
            return running.nested(lambda: self.density(choices))
        return _run(None if key is None else check_key(key, "log_density"), lambda: self.density(choices))


def draw(generative: Any) -> tuple[Choices, Array]:
    """Run a program inside this one: its choices, and +log of their density (with that of the program's data), a scalar.

    In an `@expectation`, or inside another Generative. The density is that of all choices the program makes; of a Generative
    whose density is not known it is an estimate (see `ppl.Generative`).

    Raises:
        ValueError: where no such program runs, or what is given can not be drawn.

    Example:
        `choices, log_q = ppl.draw(guide)`
    """
    if not isinstance(generative, Program | Generative):
        hint = " Call the model with its arguments first." if hasattr(generative, "fn") else ""
        raise ValueError(f"ppl.draw: expected a program, got {type(generative).__name__}.{hint}")
    running = current()
    if not isinstance(running, Drawing):
        where = "in a model, where a choice needs a name: sample('name', program)" if running else "outside a program"
        raise ValueError(
            f"ppl.draw was called {where}. It belongs in a function decorated with @inf.expectation; from outside, "
            "program.simulate(key) has choices and log_density."
        )
    return running.draw(generative)


def _run(key: Key | None, fn: Any) -> Any:
    with activate(Drawing(Inputs(key))):
        return fn()
