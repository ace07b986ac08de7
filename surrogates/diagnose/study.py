"""Study: what all checks look at. Truths and data from a program, and draws of the posterior that is diagnosed, for each data
set; with every density. One compiled program makes them, some data sets at a time.

```python
simulated = Study.of(given, program | data).simulate(key, simulations=1000, draws=100)
simulated.scalars()["mu"]              # the true mu (S,), and draws of it (S, D)
```
Truth and data come from the joint law of the program. So if the posterior is right, the truth is one more draw of it, whatever
the program and the data: that is all that the checks need to know.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

import ppl
from inference.compiled import compiled
from inference.scalars import labels
from ppl.choices import flatten, nest
from ppl.interpreters import Assess
from ppl.random_weight import likelihood_sites

from ..cases import Cases

LANES = 20_000  # draws that are made at a time
Given = Callable[[ppl.Program], Any]


class Densities(NamedTuple):
    """Log densities: of latent sites under their prior, of the data given them, of the posterior that is diagnosed; arrays."""

    prior: Any
    likelihood: Any
    posterior: Any


class Simulated(NamedTuple):
    """S simulations, with D draws each.

    - `truth`, `draws`: of latent sites by address, (S, *shape) and (S, D, *shape); `data` (S, *shape).
    - `at_truth` (S,), `at_draws` (S, D): log densities.
    - `others` (S,): log densities that other posteriors, by name, give the truth.
    """

    truth: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    at_truth: Densities
    at_draws: Densities
    others: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, int]:
        """(S, D)."""
        return self.at_draws.posterior.shape

    def scalars(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every latent number by name: its truth (S,), and draws (S, D)."""
        out = {}
        for address, truth in self.truth.items():
            shape, draws = truth.shape[1:], self.draws[address]
            for label, index in zip(labels(address, shape), np.ndindex(*shape), strict=True):
                out[label] = (truth[(slice(None), *index)], draws[(slice(None), slice(None), *index)])
        return out


class Study(NamedTuple):
    """See the file's docstring; made by `Study.of`."""

    cases: Cases
    given: Given
    others: dict[str, Given]

    @staticmethod
    def of(given: Given, program: ppl.Program, others: Mapping[str, Given] | None = None) -> "Study":
        """- `given`: from the program with data to its posterior: a `ppl.Generative`, or a program. It is traced by JAX.
        - `program`: with data, whose values do not matter. `others`: more posteriors by name, whose density is asked for.

        Raises:
            ValueError: for a program without data, without latent sites, or with a factor, so that its simulations do not
                follow its density; for what is no function.
        """
        cases = Cases.of(program, rows=())
        kinds = {name: row.kind for name, row in cases.program.sites().items()}
        if all(name in cases.told for name, kind in kinds.items() if kind == "latent"):
            raise ValueError("the program has no latent sites beside its data: there is nothing to diagnose.")
        factors = [name for name, kind in kinds.items() if kind == "factor"]
        if factors:
            raise ValueError(
                f"site '{factors[0]}' is a factor: it counts in the density, but not when the program is simulated, so no "
                "posterior could pass. Write it as a distribution."
            )
        for name, fn in {"given": given, **(others or {})}.items():
            if not callable(fn):
                raise ValueError(
                    f"{name}: expected a function from a program with data to its posterior, such as net.given, got "
                    f"{type(fn).__name__}."
                )
        return Study(cases, given, dict(others or {}))

    def simulate(self, key: jax.Array, simulations: int, draws: int) -> Simulated:
        """`simulations` data sets, with `draws` of the posterior each."""
        some = max(1, min(simulations, LANES // draws))
        one = partial(_one, self, draws)
        keys = jax.random.split(key, some * math.ceil(simulations / some))  # whole batches: one shape to compile
        # `given` may be any function, and no name promises another to be its equal: what is compiled is not kept
        run = compiled(lambda keys: lax.map(one, keys, batch_size=some), [], keys)
        return jax.tree.map(lambda x: np.asarray(x)[:simulations], run(keys))


def _one(study: Study, num: int, key: jax.Array) -> Simulated:
    key_case, key_draws, key_density = jax.random.split(key, 3)
    truth = flatten(study.cases.program.simulate(key_case).choices)
    data = {name: truth.pop(name) for name in study.cases.told}
    program = study.cases.program | nest(data)
    posterior = _posterior("given", study.given, program)

    def draw(key: jax.Array) -> tuple[dict[str, Any], Densities]:
        trace = posterior.simulate(key)
        return flatten(trace.choices), Densities(*_parts(program, trace.choices), trace.log_density)

    def density(name: str, posterior: Any) -> Any:
        known = isinstance(posterior, ppl.Program)
        return posterior.log_density(nest(truth)) if known else posterior.log_density(nest(truth), key=key_density)

    draws, at_draws = jax.vmap(draw)(jax.random.split(key_draws, num))
    at_truth = Densities(*_parts(program, nest(truth)), density("given", posterior))
    others = {name: density(name, _posterior(name, fn, program)) for name, fn in study.others.items()}
    return Simulated(truth, draws, data, at_truth, at_draws, others)


def _posterior(name: str, given: Given, program: ppl.Program) -> Any:
    posterior = given(program)
    if not isinstance(posterior, ppl.Program | ppl.Generative):
        raise ValueError(
            f"{name}: expected a program or a ppl.Generative over the latent sites, got {type(posterior).__name__}. Return "
            "the posterior itself, of which draws can be made."
        )
    weighted = likelihood_sites(posterior) if isinstance(posterior, ppl.Program) else []
    if weighted:
        raise ValueError(
            f"{name}: the posterior has data or a factor at '{weighted[0]}', so its draws do not follow its density. Give "
            "ppl.normalize(posterior, by=...) in its place."
        )
    return posterior


def _parts(program: ppl.Program, choices: Any) -> tuple[jax.Array, jax.Array]:
    """Log prior and log likelihood."""
    run, _ = program.interpret(Assess, given=program.complete(choices))
    return run.total("log_prior"), run.total("log_likelihood")
