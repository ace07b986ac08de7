"""Ahead-of-time compilation, once per structure, in the background.

Compiled programs can be called from any thread, whatever that thread's JAX settings are; and a second call of an algorithm
on a model of the same structure (other data of the same shapes, another key) compiles nothing.

```python
program = compiled(fn, "name", *args)     # traces now, compiles on another thread
program(*args)                            # waits for the compiler if need be
```
"""

import gc
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple

import equinox as eqx
import jax

# On CPUs. XLA's newer way to generate code takes twice as long for programs such as ours, its highest level of optimisation
# a tenth more; the programs then run no faster. (JAX 0.10, a run of NUTS: 4.5 s to compile it, 2.2 s with these.)
OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": 1,
    "xla_cpu_parallel_codegen_split_count": 8,  # parts that LLVM has at once; of 32, each is so small that it takes longer
}


class Entry(NamedTuple):
    """A program that is being compiled, and what it was made from."""

    made: Future
    lowered: Any


_programs: OrderedDict[Any, Entry] = OrderedDict()
_MOST = 64


def compiled(fn, name, *args, options: Mapping[str, Any] = OPTIONS):
    """`fn(*args)` compiled for arguments like `args`; the result is called with arguments of the same shapes.

    `name` (hashable) stands for `fn` in the cache: equal names promise equal functions. Leaves of `args` that are not
    arrays are constants of the program. `args` may hold `jax.ShapeDtypeStruct`s. `shapes` are those of the result, `text()`
    is the program before the compiler had it. `options` are the compiler's on CPUs; what they depend on belongs into `name`.
    """
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple((x.shape, x.dtype) if _is_array(x) else (type(x), x) for x in leaves)
    key = (name, structure, shapes)
    try:
        program = _programs.get(key)
    except TypeError:  # a constant that cannot be hashed: compile, and do not remember
        key, program = None, None
    if program is None:
        constants = [None if _is_array(x) else x for x in leaves]

        def flat(arrays):
            given = iter(arrays)
            return fn(*jax.tree.unflatten(structure, [next(given) if c is None else c for c in constants]))

        with _no_garbage():
            lowered = jax.jit(flat).lower(_arrays(leaves))
        told = dict(options) if jax.default_backend() == "cpu" else {}
        program = Entry(_in_background(lambda: _optimised(lowered, told)), lowered)
        if key is not None:
            _programs[key] = program
            while len(_programs) > _MOST:
                _programs.popitem(last=False)

    def call(*args):
        return program.made.result()(_arrays(jax.tree.leaves(args)))

    call.wait, call.shapes, call.text = program.made.result, program.lowered.out_info, program.lowered.as_text
    return call


@contextmanager
def _no_garbage():
    """Tracing makes a hundred thousand objects and drops few: to look through them for garbage again and again, as Python
    does, takes a tenth of the time and finds nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _optimised(lowered, options):
    """Compiled with those of the options that this version of XLA knows."""
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        known = {name: value for name, value in options.items() if f"No such compile option: '{name}'" not in str(error)}
        if len(known) == len(options):
            raise
        return _optimised(lowered, known)


def _arrays(leaves) -> list:
    return [x for x in leaves if _is_array(x)]


def _is_array(x) -> bool:
    return eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)


def _in_background(work) -> Future:
    future: Future = Future()

    def job():
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the program is called
            future.set_exception(error)

    threading.Thread(target=job).start()  # no daemon: an interpreter that ends in the middle of a compilation aborts
    return future
