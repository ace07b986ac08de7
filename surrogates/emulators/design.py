"""Design: where a costly function is run, so that its emulator is right where a posterior is.

Runs begin spread over the prior: points of Sobol's sequence, shifted, through the quantiles of the arguments. Then they go
where the posterior is, as the emulator so far sees it: to draws of prior x surrogate likelihood^(1/4). The power keeps them
wide, for the emulator is wrong yet. A uniform design over four parameters may well have no run within 10 nats of the best.

```python
site = CallSite.of(program, "voltage")                         # what is called, with arguments of which shapes
x = site.rows(choices)                                     # (num, d): the arguments that choices (num, ...) lead to
x = spread(key, 16, quantiles(x))                          # 16 rows, spread as the arguments are
x = fresh(key, candidates, runs, 4)                        # 4 of the candidates, none of them a run already
```
Sobol, USSR Comp. Math. 7, 1967; shifts: Cranley and Patterson, SIAM J. Numer. Anal. 13, 1976; points of the posterior for
emulators: Kandasamy, Schneider and Poczos, IJCAI 2015.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from ppl.choices import flatten
from ppl.distributions import base
from ppl.interpreters import Inspect

from .runs import Shapes, unpack

PRIOR_DRAWS = 2048  # that say what the quantiles of the arguments are
EDGE = 1e-6  # of the probabilities, at which quantiles may be infinite


class CallSite(NamedTuple):
    """A `ppl.call` of a program.

    - `program`: the program. `address`: of the call. `fn`: the function called. `shapes`: of its arguments, with a name for
      each in `names`. `out`: the shape of what it returns.
    - `recorded`: the program, with what the call is given among its values, and zeros for what it returns: it costs nothing.
    """

    program: ppl.Program
    address: str
    fn: Callable[..., Any]
    names: tuple[str, ...]
    shapes: Shapes
    out: tuple[int, ...]
    recorded: ppl.Program

    @staticmethod
    def of(program: ppl.Program, address: str | None = None) -> "CallSite":
        """The call at an address; where there is only one, it need not be named.

        Raises:
            ValueError: where there is no such call, or several and none is named; where it has keyword arguments, or does not
                return one array.
        """
        calls = _functions(program)
        if address is None and len(calls) == 1:
            (address,) = calls
        if address not in calls:
            known = ", ".join(f"'{name}'" for name in calls) or "none"
            asked = "no call is named" if address is None else f"'{address}' is no call of the program"
            raise ValueError(f"emulate: {asked}; its calls are {known}. Mark a costly one: ppl.call('name', fn, *args).")
        fn, seen = calls[address], {}
        recorded = program.intervene({address: _recorder(address, fn, seen)})
        jax.eval_shape(lambda: recorded.simulate(jax.random.key(0)).choices)
        names = _arguments(fn, len(seen["shapes"]))
        return CallSite(program, address, fn, names, seen["shapes"], seen["out"], recorded)

    def rows(self, choices: Any) -> Array:
        """The arguments (num, d) that choices, leaves (num, ...), lead to. A call inside a `ppl.vmap` is made several times;
        its rows are those of all of them, (num x times, d)."""
        flat = _values(self.recorded, choices)
        parts = [flat[_argument(self.address, i)] for i in range(len(self.shapes))]
        columns = [jnp.reshape(x, (-1, int(np.prod(shape, dtype=int)))) for x, shape in zip(parts, self.shapes, strict=True)]
        return jnp.concatenate(columns, 1).astype(float)

    def prior_rows(self, key: Array, num: int = PRIOR_DRAWS) -> Array:
        """The arguments (num, d) that draws from the prior lead to."""
        return self.rows(_choices(self.recorded, jax.random.split(key, num)))


def _arguments(fn: Callable[..., Any], num: int) -> tuple[str, ...]:
    """What the function calls its first `num` arguments, if it says so."""
    try:
        known = inspect.signature(getattr(fn, "fn", fn)).parameters.values()  # of a simulator, that of what it runs
    except (TypeError, ValueError):
        known = ()
    names = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(names[:num]) if len(names) >= num else tuple(f"argument {i}" for i in range(num))


@jax.jit
def _values(program: ppl.Program, choices: Any) -> dict[str, Array]:
    return jax.vmap(lambda c: flatten(program.values(c)))(choices)


@jax.jit
def _choices(program: ppl.Program, keys: Array) -> Any:
    return jax.vmap(lambda key: program.simulate(key).choices)(keys)


def spread(key: Array, num: int, quantile: Callable[[np.ndarray], np.ndarray], d: int) -> np.ndarray:
    """`num` rows (num, d): points of Sobol's sequence, shifted, through `quantile`, from probabilities (num, d) to rows."""
    from scipy.stats import qmc

    more = 1 << max(num - 1, 0).bit_length()  # a power of two of them is balanced
    shift = np.asarray(jax.random.uniform(key, (d,)), np.float64)
    points = (qmc.Sobol(d, scramble=False).random(more)[:num] + shift) % 1.0
    return np.asarray(quantile(np.clip(points, EDGE, 1.0 - EDGE)), np.float64)


def quantiles(draws: Any) -> Callable[[np.ndarray], np.ndarray]:
    """From probabilities (num, d) to the quantiles of the columns of draws (many, d)."""
    table = np.sort(np.asarray(draws, np.float64), axis=0)
    places = (np.arange(len(table)) + 0.5) / len(table)
    return lambda u: np.stack([np.interp(u[:, j], places, table[:, j]) for j in range(table.shape[1])], 1)


def laws(over: Mapping[str, Any], key: Array) -> tuple[tuple[str, ...], Shapes, Callable[[np.ndarray], np.ndarray]]:
    """Names and shapes of arguments with these distributions, and their quantiles, from probabilities (num, d).

    A law without quantiles in closed form is drawn from.

    Raises:
        ValueError: for an empty mapping, and for what is no distribution.
    """
    if not isinstance(over, Mapping) or not over:
        raise ValueError(f'emulate: over must be like {{"x": dist.Uniform(0.0, 1.0)}}, got {over!r}.')
    for name, law in over.items():
        if not (hasattr(law, "shape") and hasattr(law, "sample")):
            raise ValueError(f"emulate: over['{name}'] must be a distribution, such as dist.Uniform(0.0, 1.0), got {law!r}.")
    shapes = tuple(tuple(law.shape()) for law in over.values())
    parts = [_quantile(law, jax.random.fold_in(key, i)) for i, law in enumerate(over.values())]

    def all_of(u: np.ndarray) -> np.ndarray:
        pieces = [np.stack([np.ravel(x) for x in piece]) for piece in zip(*(unpack(shapes, row) for row in u), strict=True)]
        return np.concatenate([part(piece) for part, piece in zip(parts, pieces, strict=True)], 1)

    return tuple(over), shapes, all_of


def fresh(key: Array, candidates: Any, x: Any, num: int) -> np.ndarray:
    """At most `num` of the rows of candidates (many, d), in a random order, none twice, and none that is a row of x (n, d)."""
    order = np.asarray(jax.random.permutation(key, len(candidates)))
    known, found = {row.tobytes() for row in _as_kept(x)}, []
    for row in _as_kept(candidates)[order]:
        if len(found) < num and np.isfinite(row).all() and row.tobytes() not in known:
            known.add(row.tobytes())
            found.append(row)
    return np.array(found, np.float64).reshape(len(found), np.shape(candidates)[1])


def _as_kept(x: Any) -> np.ndarray:
    """Rows in the precision that JAX keeps, so that one that was run is known again."""
    return np.asarray(jnp.asarray(x, float)) + 0.0  # minus zero is zero


def _quantile(law: Any, key: Array) -> Callable[[np.ndarray], np.ndarray]:
    size, own = int(np.prod(law.shape(), dtype=int)), base(law)
    try:
        own.icdf(jnp.full(law.shape(), 0.5))
    except NotImplementedError:
        return quantiles(np.asarray(law.sample(key, (PRIOR_DRAWS,))).reshape(PRIOR_DRAWS, size))
    return lambda u: np.asarray(own.icdf(jnp.asarray(u, float).reshape(len(u), *law.shape()))).reshape(len(u), size)


def _functions(program: ppl.Program) -> dict[str, Callable[..., Any]]:
    """What a program calls, by address; what is put in the place of a function counts."""
    found: dict[str, Callable[..., Any]] = {}

    class Calls(Inspect):
        def call(self, name, fn, args, kwargs):
            found[self.prefix + name] = self.rules.calls.get(name, fn)
            return super().call(name, fn, args, kwargs)

    jax.eval_shape(lambda: program.interpret(Calls)[0].total("log_prior", "log_likelihood"))
    return found


def _recorder(address: str, fn: Callable[..., Any], seen: dict[str, Any]) -> Callable[..., Array]:
    """In the place of `fn`: names its arguments, tells their shapes, and returns zeros."""
    local = address.split(".")[-1]

    def recorder(*args: Any, **kwargs: Any) -> Array:
        if kwargs:
            raise ValueError(
                f"emulate: the call '{address}' has the keyword arguments {', '.join(kwargs)}. Give what varies by position, "
                "and bind what does not: functools.partial."
            )
        forms = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in args]
        out = jax.eval_shape(fn, *forms)
        if len(jax.tree.leaves(out)) != 1 or jax.tree.leaves(out)[0] is not out:
            raise ValueError(f"emulate: the call '{address}' must return one array, got {out}.")
        seen.update(shapes=tuple(form.shape for form in forms), out=out.shape)
        for i, a in enumerate(args):
            ppl.deterministic(_argument(local, i), jnp.asarray(a, float))
        return jnp.zeros(out.shape, out.dtype)

    return recorder


def _argument(address: str, i: int) -> str:
    return f"{address} argument {i}"
