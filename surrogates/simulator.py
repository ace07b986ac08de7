"""Simulators: functions that run on the host, as calls of a model. Any Python function, or a program that it starts.

```python
voltage = sur.simulator(run_cell, jax.ShapeDtypeStruct((100,), float), cache="runs.sqlite", executor=sur.Processes(4))

@ppl.model
def cell():
    i0 = sample("i0", dist.Uniform(0.5, 4.0))
    sample("y", dist.Normal(ppl.call("voltage", voltage, i0), 3e-3))

posterior = inf.mcmc(cell() | {"y": y}, inf.RandomWalk(), key=key, placement=inf.Vectorized())
print(voltage)                                                   # asked 16000 times in 4000 calls, 5012 runs (3 failed) ...
```
Under `jit`, `vmap` and `scan` the host is called once for a whole batch of chains or particles. Every run is cached by the
bits of its arguments (`run_cache.py`), and made in this process, in others, or on a cluster (`workers.py`). A run that raises,
returns NaN or does not answer is counted, its output is NaN, and `ppl.call` makes it impossible: log likelihood -inf.

Law: the output is `fn(*args)` bit for bit, whatever transformation asked, and however often.

Large arguments go to the host in pieces. JAX copies a large one in the background, with threads of which there may be none
left while the host is asked: on two cores two chains then wait for ever (JAX's issue 25861). Small ones it copies at once.
"""

import functools
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from ppl.distributions import is_traced

from .run_cache import Arrays, DiskCache, Kept, MemoryCache, Row, RunCache, keys_of
from .workers import JAX_INSIDE, Ran, Workers, inside, workers_of

PIECE = 64 * 1024  # bytes; what is larger than 100 kB is copied in the background
MOST_REASONS = 20  # that are told apart
NOT_FINITE = "it returned numbers that are not finite"


class Counts(NamedTuple):
    """What a simulator did: outputs `asked` for, in so many `calls` of the host; `run`, of which so many `failed`; `cached`,
    known before or asked for twice at once; `seconds` in which runs were made."""

    asked: int = 0
    calls: int = 0
    run: int = 0
    failed: int = 0
    cached: int = 0
    seconds: float = 0.0


class Simulator:
    """A function on the host that JAX can call; as `simulator` makes it. Equal to itself only, and hashable.

    - `counts`: what it did. `failures`: why runs failed, and how many did so. `cache`: what is known.
    """

    may_fail = True  # ppl.call: where the output is not finite, the log likelihood is -inf
    on_host = True  # ppl.call: chains go together, and the host is asked once for all of them

    def __init__(self, fn: Callable, out: Any, workers: Workers, cache: RunCache, limit: int | None, name: str) -> None:
        self.fn, self.out, self.workers, self.cache, self.limit, self.name = fn, out, workers, cache, limit, name
        self.counts, self.failures = Counts(), {}
        self.leaves, self._structure = jax.tree.flatten(out)
        self._many, self._lock, self._running = _batched(self), threading.Lock(), {}
        self._right = next(cache.runs(), None) is not None  # some run had the right shape

    def __call__(self, *args: Any) -> Any:
        """The output for arguments that are arrays of numbers, or numbers."""
        if not args:
            raise ValueError(f"simulator '{self.name}': it needs an argument at least.")
        for i, x in enumerate(args):
            dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
            if getattr(dtype, "kind", "O") not in "biufc":
                raise ValueError(f"simulator '{self.name}': argument {i} must be an array of numbers, got {type(x).__name__}.")
        if any(map(is_traced, args)):
            outputs = _once(self, *(jnp.asarray(x) for x in args))
        else:
            columns = [np.asarray(x) for x in args]
            columns = [x.astype(canonicalize_dtype(x.dtype))[None] for x in columns]  # in the precision that JAX would take
            outputs = [y[0] if inside() else jnp.asarray(y[0]) for y in self.answer(columns)]
        return jax.tree.unflatten(self._structure, outputs)

    def answer(self, columns: Sequence[np.ndarray]) -> Arrays:
        """On the host: outputs (num, ...) for arguments with a leading axis of `num`, or of one where all share them."""
        (num,) = np.broadcast_shapes(*(x.shape[:1] for x in columns))
        keys = keys_of(columns, num)
        known = self._known(keys, columns)
        outputs = tuple(np.full((num, *leaf.shape), np.nan, leaf.dtype) for leaf in self.leaves)
        for i, key in enumerate(keys):
            for y, value in zip(outputs, known[key].outputs, strict=False):  # of a failed run there are none
                y[i] = value
        with np.errstate(over="ignore"):
            return tuple(y.astype(canonicalize_dtype(y.dtype), copy=False) for y in outputs)

    def _known(self, keys: list[bytes], columns: Sequence[np.ndarray]) -> dict[bytes, Kept]:
        """Every key's run: found, awaited where another thread is at it, or made."""
        with self._lock:
            known = self.cache.get(dict.fromkeys(keys))
            new = {key: i for i, key in enumerate(keys) if key not in known}
            # in the middle of a run nobody is waited for: it could be this one
            others = {} if inside() else {key: self._running[key] for key in new if key in self._running}
            new = {key: i for key, i in new.items() if key not in others}
            if self.limit is not None and self.counts.run + len(new) > self.limit:
                raise ValueError(
                    f"simulator '{self.name}': limit={self.limit} runs, {self.counts.run} were made, and {len(new)} more are "
                    "asked for. Make do with fewer draws, raise the limit, or train an emulator of it with sur.emulate."
                )
            if not inside():
                self._running |= {key: Future() for key in new}
            c = self.counts
            self.counts = c._replace(
                asked=c.asked + len(keys), calls=c.calls + 1, run=c.run + len(new), cached=c.cached + len(keys) - len(new)
            )
        if new:
            known |= self._made(new, columns)
        return known | {key: future.result() for key, future in others.items()}

    def _made(self, new: dict[bytes, int], columns: Sequence[np.ndarray]) -> dict[bytes, Kept]:
        rows = [tuple(_own(x, i) for x in columns) for i in new.values()]
        begun = time.perf_counter()
        try:
            ran = self.workers.run(self.fn, rows)
            made, problem = self._judged(ran)
            self._keep(list(new), rows, ran, made, time.perf_counter() - begun)
            if problem is not None:
                raise ValueError(f"simulator '{self.name}': {problem}")
        except BaseException as error:
            for _, future in self._awaited(new):
                future.set_exception(error)
            raise
        known = {key: kept for key, kept in zip(new, made, strict=True) if kept is not None}
        for key, future in self._awaited(new):
            future.set_result(known[key])
        return known

    def _awaited(self, new: dict[bytes, int]) -> list[tuple[bytes, Future]]:
        """What other threads may be waiting for."""
        with self._lock:
            return [] if inside() else [(key, self._running.pop(key)) for key in new]

    def _keep(self, keys: list[bytes], rows: list[Arrays], ran: list[Ran], made: list[Kept | None], seconds: float) -> None:
        failed = [kept.failure for kept in made if kept is not None and kept.failure is not None]
        with self._lock:
            told = zip(keys, rows, ran, made, strict=True)
            self.cache.put(
                [Row(key, tuple(map(np.asarray, row)), kept) for key, row, r, kept in told if kept is not None and not r.lost]
            )
            self._right = self._right or len(failed) < len(made) - made.count(None)
            c, refused = self.counts, sum(r.refused is not None for r in ran)
            self.counts = c._replace(run=c.run - refused, failed=c.failed + len(failed), seconds=c.seconds + seconds)
            for why in failed:
                why = why if why in self.failures or len(self.failures) < MOST_REASONS else "other reasons"
                self.failures[why] = self.failures.get(why, 0) + 1

    def _judged(self, ran: list[Ran]) -> tuple[list[Kept | None], str | None]:
        """What runs came to; None for those that say what is wrong with the simulator itself, and that."""
        made: list[Kept | None] = []
        problem, right = None, self._right
        for r in ran:
            outputs, wrong = ((), r.failure) if r.value is None and r.failure is not None else self._outputs(r.value)
            wrong = r.refused or wrong
            structural = (
                r.refused is not None or wrong == JAX_INSIDE or (r.failure is None and wrong is not None and not right)
            )
            if structural:
                problem = problem or wrong
                made.append(None)
                continue
            if wrong is None and not all(np.isfinite(y).all() for y in outputs):
                wrong = NOT_FINITE
            right = right or wrong is None
            made.append(Kept(outputs) if wrong is None else Kept((), wrong))
        return made, problem

    def _outputs(self, value: Any) -> tuple[Arrays, str | None]:
        """The outputs as arrays; or what is wrong with them."""
        try:
            values = self._structure.flatten_up_to(value)
        except ValueError:
            return (), f"it returned {type(value).__name__}, where {_form(self.out)} was expected."
        if any(isinstance(x, jax.Array) for x in values):
            return (), JAX_INSIDE
        outputs = []
        for x, leaf in zip(values, self.leaves, strict=True):
            try:
                with np.errstate(over="ignore"):
                    y = np.array(x).astype(leaf.dtype, casting="same_kind")
            except (TypeError, ValueError):
                return (), f"it returned {type(x).__name__}, where {_form(leaf)} was expected."
            if y.shape != leaf.shape:
                return (), f"it returned an array of shape {y.shape}, where {_form(leaf)} was expected."
            outputs.append(y)
        return tuple(outputs), None

    def __repr__(self) -> str:
        c, each = self.counts, self.counts.seconds / max(self.counts.run, 1)
        most = "" if self.limit is None else f" of at most {self.limit}"
        head = (
            f"Simulator {self.name} -> {_form(self.out)}: asked {c.asked} times in {c.calls} calls, {c.run} runs{most} "
            f"({c.failed} failed) in {c.seconds:.3g} s ({each:.2g} s each), {c.cached} times from the cache; {self.workers}"
        )
        return "\n  ".join([head, *(f"failed {num} times: {why}" for why, num in self.failures.items())])


def simulator(
    fn: Callable,
    out: Any,
    *,
    executor: Any = None,
    cache: Any = None,
    limit: int | None = None,
    name: str | None = None,
) -> Simulator:
    """Make a function on the host callable from JAX: in a model by `ppl.call`, under `jit`, `vmap` and `scan`.

    - `fn`: a function of NumPy arrays and numbers, by position, that returns one output: an array, or a pytree of arrays. Bind
      settings with `functools.partial`. It must give the same output for the same arguments. A function written in JAX needs
      no wrapping, and must not run inside of this one.
    - `out`: shape and dtype of the output, as `jax.ShapeDtypeStruct((100,), float)`; a pytree of them for several.
    - `executor`: where runs are made (see `workers.py`): `Processes(4)`, or any `concurrent.futures.Executor`. Default: here.
    - `cache`: a path, for a file that outlives the process (see `run_cache.py`), or a `RunCache`. Default: in memory.
    - `limit`: of the number of runs; whoever asks for more gets the sentence, and no run.
    - `name`: in sentences and in the cache's header; by default the function's, with what is bound to it. Give another one
      when the function becomes another: what a cached run computed, nobody can see.

    What goes wrong with one point is a failed run: an exception, an output that is not finite, no answer in time, and, once a
    run has been right, a wrong shape. What goes wrong with all is a ValueError; raised under `jit` it comes out as JAX's own
    `JaxRuntimeError`, with the sentence in it.

    Raises:
        ValueError: at once for an output, executor, cache or limit that is none; when called, for an output of another shape
            or type, for JAX inside, beyond the limit, and when a gradient is asked for.

    Example:
        `voltage = simulator(run_cell, jax.ShapeDtypeStruct((100,), float)); voltage(1.0, 2.0)`
    """
    if not callable(fn):
        raise ValueError(f"simulator: expected a function, got {type(fn).__name__}.")
    name = _name(fn) if name is None else name
    leaves = jax.tree.leaves(out)
    if not leaves or not all(hasattr(x, "shape") and _floating(getattr(x, "dtype", None)) for x in leaves):
        raise ValueError(
            f"simulator '{name}': out must be jax.ShapeDtypeStruct(shape, float), or a pytree of them, got {out!r}. (Numbers "
            "are floating, for a run that failed is NaN.)"
        )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"simulator '{name}': limit must be a whole number of runs, or None, got {limit!r}.")
    workers = workers_of(executor)
    workers.check(fn)
    if cache is None:
        cache = MemoryCache()
    elif not isinstance(cache, RunCache):
        try:
            cache = DiskCache(cache)
        except TypeError:
            raise ValueError(f"simulator '{name}': cache must be a path or a RunCache, got {type(cache).__name__}.") from None
    cache.claim(name, leaves)
    return Simulator(fn, out, workers, cache, limit, name)


# -- inside JAX --------------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once(simulator: Simulator, *args: jax.Array) -> tuple:
    return tuple(y[0] for y in simulator._many(*(x[None] for x in args)))


@_once.defjvp
def _no_gradient(simulator: Simulator, primals: tuple, tangents: tuple) -> Any:
    raise ValueError(
        f"simulator '{simulator.name}': a gradient was asked for, and none goes through a function on the host. Take a kernel "
        "that needs none, inf.RandomWalk() or inf.Slice(); or train an emulator, which has gradients, and stay exact: "
        "emu = sur.emulate(program, site, budget=64, key=key), and inf.delayed_acceptance(inf.NUTS(), "
        "program.intervene({site: emu})). Where its arguments are not to be learned, use jax.lax.stop_gradient on them."
    )


def _batched(simulator: Simulator) -> Callable:
    """The call for a batch: arguments have a leading axis of one length, or of one where all of the batch share them."""

    @jax.custom_batching.custom_vmap
    def many(*args: jax.Array) -> tuple:
        (num,) = np.broadcast_shapes(*(x.shape[:1] for x in args))
        shapes = tuple(jax.ShapeDtypeStruct((num, *y.shape), canonicalize_dtype(y.dtype)) for y in simulator.leaves)
        if num == 0:
            return tuple(jnp.zeros(y.shape, y.dtype) for y in shapes)
        pieces = [_cut(x) for x in args]
        host = _Host(simulator, tuple((x.shape, len(p)) for x, p in zip(args, pieces, strict=True)))
        return jax.pure_callback(host, shapes, *(p for each in pieces for p in each), vmap_method="broadcast_all")

    @many.def_vmap
    def rule(axis_size: int, in_batched: Sequence[bool], *args: jax.Array) -> tuple:
        lengths = [x.shape[1 if mapped else 0] for x, mapped in zip(args, in_batched, strict=True)]
        (num,) = np.broadcast_shapes(*((length,) for length in lengths))

        def flat(x: jax.Array, mapped: bool) -> jax.Array:
            if not mapped and x.shape[0] == 1:
                return x
            x = jnp.broadcast_to(x, (axis_size, num, *x.shape[2 if mapped else 1 :]))
            return x.reshape(axis_size * num, *x.shape[2:])

        outputs = many(*map(flat, args, in_batched))
        return tuple(y.reshape(axis_size, num, *y.shape[1:]) for y in outputs), (True,) * len(outputs)

    return many


@dataclass(frozen=True)
class _Host:
    """What JAX calls: equal where the simulator and the shapes are, so that it is compiled once."""

    simulator: Simulator
    forms: tuple[tuple[tuple[int, ...], int], ...]  # of each argument, its shape and how many pieces it comes in

    def __call__(self, *pieces: Any) -> Arrays:
        columns, left = [], iter(pieces)
        for shape, num in self.forms:
            parts = [np.asarray(next(left)) for _ in range(num)]
            columns.append((np.concatenate(parts) if num > 1 else parts[0]).reshape(shape))
        return self.simulator.answer(columns)


def _cut(x: jax.Array) -> list[jax.Array]:
    """An array in pieces that JAX copies at once."""
    most = max(1, PIECE // x.dtype.itemsize)
    if x.size <= most:
        return [x]
    flat = x.reshape(-1)
    return [flat[i : i + most] for i in range(0, x.size, most)]


def _own(x: np.ndarray, i: int) -> Any:
    """Row i as the function gets it, to do with as it likes: a NumPy number, or an array of its own."""
    row = x[i % len(x)]
    return row.copy() if row.ndim else row[()]


def _floating(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and bool(np.issubdtype(dtype, np.inexact))


def _form(out: Any) -> str:
    return str(jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", out)).replace("'", "")


def _name(fn: Any) -> str:
    """The function's name, with what is bound to it: the same in every process."""
    if isinstance(fn, functools.partial):
        bound = [*map(_value, fn.args), *(f"{k}={_value(v)}" for k, v in fn.keywords.items())]
        return f"{_name(fn.func)}({', '.join(bound)})"
    return getattr(fn, "__qualname__", type(fn).__qualname__)


def _value(x: Any) -> str:
    if isinstance(x, np.ndarray | jax.Array):
        return keys_of([np.asarray(x)[None]], 1)[0].hex()[:12]
    return re.sub(r" at 0x[0-9a-f]+", "", repr(x))
