"""Artifacts: a trained network as one file, which says what it is, and is read without executing anything.

```python
sur.save(net, "curves.npz")
net = sur.load("curves.npz", curves(32))          # with the program that it was trained on: a file holds no functions
net = sur.load("noise.npz", noise, priors=meta())         # a Distribution Transformer: with what it was trained on, too
emulator = sur.load("spectrum.npz")                       # an emulator holds all that it needs
```
An .npz file of arrays and an entry `header`, JSON text: schema, version, the network's structure, how it was trained, and a
few draws of the program with their log densities, and what its deterministic sites, a simulator's outputs, are there. By these
a program is known again: where it finds others it is another program, or has other arguments, and the network would answer for
the wrong one.

Law: what is loaded computes the same numbers, bit for bit.
"""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from inference.fixed import Fixed
from inference.provenance import versions
from inference.vi.guides.networks import Network
from ppl import dist
from ppl.choices import flatten, paths, put

from . import heads
from .cases import Cases
from .columns import Column, Columns
from .distribution_transformer import Components, DistributionTransformer, Exercises, Numbers
from .distribution_transformer import Net as TransformerNet
from .emulators import accuracy, charts, components, emulator, gaussian_process, kernels, kriging, trend
from .emulators.emulator import Emulator
from .gaps import Gapped
from .heads.supported import Still
from .neural_likelihood import NeuralLikelihood, Pairs
from .neural_posterior import Net as PosteriorNet
from .neural_posterior import NeuralPosterior
from .pfn import PFN, Points
from .pfn import Net as PointsNet
from .tokens import Reader, Seeds, Writer
from .trunk import MLP, Block, Linear, Trunk

SCHEMA, VERSION = "evidentia.surrogate", 1
PROBES = 3  # draws of the program that are kept
NOT_KEPT = ("fit",)  # fields that are not part of what a network says
GIVEN = ("program", "model", "priors")  # fields that a file cannot hold: `load` is given them

CLASSES: dict[str, type] = {
    f"{kind.__module__.removeprefix('surrogates.')}.{kind.__name__}": kind
    for kind in (
        NeuralPosterior, PosteriorNet, Gapped, Cases, NeuralLikelihood, Pairs, PFN, PointsNet, Points,
        DistributionTransformer, TransformerNet, Exercises, Numbers, Components,
        Column, Columns, Reader, Seeds, Writer, Linear, MLP, Block, Trunk, Fixed, Network,
        *(getattr(heads, name) for name in heads.__all__ if name != "Head"),
        gaussian_process.Process, kriging.Solved, emulator.LeaveOneOut, accuracy.Accuracy, components.Basis, charts.Charts,
        charts.Identity, charts.Log, charts.Reciprocal, charts.BoxCox, charts.Logit, charts.Monotone,
        kernels.SquaredExponential, kernels.Matern52, trend.Constant, trend.Linear, trend.Quadratic,
    )
}  # fmt: skip
NAMES = {kind: name for name, kind in CLASSES.items()}


def save(net: Any, path: Any) -> None:
    """Write a trained network, or an emulator, to the file `path`, exactly that name.

    - `net`: as `pfn`, `neural_posterior` and their like return it, or as a family of emulators does.

    Raises:
        ValueError: for what is none of these.

    Example:
        `save(net, "curves.npz")`
    """
    arrays: dict[str, Any] = {}
    if isinstance(net, Emulator):
        return _write(path, {"structure": _encoded(net, arrays), "trained": {}}, arrays)
    program = _program(net)
    structure = _encoded(net, arrays)
    probes = jax.vmap(program.simulate)(jax.random.split(jax.random.key(0), PROBES)).choices
    sites = [list(at) for at, _ in paths(probes)]
    arrays |= {f"probe/{i}": np.asarray(x) for i, (_, x) in enumerate(paths(probes))}
    arrays |= {f"probe/{name}": x for name, x in _said(program, probes).items()}
    trained = {} if net.fit is None else net.fit.provenance | {"score": net.fit.value}
    return _write(path, {"structure": structure, "sites": sites, "trained": trained}, arrays)


def _write(path: Any, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    header = {"schema": SCHEMA, "version": VERSION, **header, "versions": versions()}
    with open(path, "wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)


def load(path: Any, program: Any = None, *, priors: ppl.Program | None = None) -> Any:
    """Read a network that `save` wrote, with what it was trained on, spelled as it was in training; or an emulator, alone.

    - `program`: the one that it was trained on; data that it has do not matter. Of a Distribution Transformer the function
      from a prior to a program.
    - `priors`: of a Distribution Transformer, the program that draws them.

    Raises:
        ValueError: for a file that is damaged, of another kind or of a newer version; for a program with other sites or
            another density.

    Example:
        `load("curves.npz", curves(32)).given({"x": x, "y": y})`
    """
    header, arrays = _opened(path)
    try:
        structure = header["structure"]
        kind = CLASSES[structure["class"]]
        given = _given(path, kind, program, priors)
        net = _decoded(structure, arrays, given)
        sites = [] if issubclass(kind, Emulator) else header["sites"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is damaged: its parts do not fit ({type(error).__name__}: {error}).") from error
    if not isinstance(net, Emulator):
        _recognise(path, _program(net), sites, arrays)
    return net


def _opened(path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file that is whole, and of a kind and a version that are known."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays["header"]))
        kind, version = header.get("schema"), header.get("version")
    except FileNotFoundError:
        raise
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or is no saved network ({type(error).__name__}: {error}).") from error
    if kind != SCHEMA:
        raise ValueError(f"{path} is no saved network: its header names the kind {kind!r}.")
    if version > VERSION:
        raise ValueError(
            f"{path} was written by a newer version (schema {version}; this reads up to {VERSION}). Update evidentia."
        )
    return header, arrays


def _program(net: Any) -> ppl.Program:
    source = getattr(net, "cases", None) or getattr(net, "points", None)
    if type(net) not in NAMES or source is None:
        raise ValueError(f"save: expected a network as sur.pfn and its like return it, got {type(net).__name__}.")
    return source.program


def _given(path, kind: type, program: Any, priors: Any) -> dict[str, Any]:
    """The fields that a file cannot hold. Raises ValueError for what no network of this kind is trained on."""
    if issubclass(kind, Emulator):
        if program is not None or priors is not None:
            raise ValueError(f"{path} is an emulator, which is trained on no program: load it with the path alone.")
        return {}
    if kind is DistributionTransformer:
        if isinstance(program, ppl.Program) or not callable(program) or not isinstance(priors, ppl.Program):
            raise ValueError(
                f"{path} is a Distribution Transformer: load it with the function from a prior to a program, and priors=, the "
                f"program that draws priors; got {type(program).__name__} and {type(priors).__name__}."
            )
        return {"model": program, "priors": priors}
    if priors is not None or not isinstance(program, ppl.Program):
        also = "" if priors is None else " and priors="
        raise ValueError(
            f"{path} is a {kind.__name__}: load it with the program that it was trained on, alone; got "
            f"{type(program).__name__}{also}."
        )
    return {"program": program.without()}


def _recognise(path, program: ppl.Program, sites: list[list[str]], arrays) -> None:
    """Raise ValueError unless the program has the sites and the densities of the one that the network was trained on."""
    table = {".".join(at): arrays[f"probe/{i}"].shape[1:] for i, at in enumerate(sites)}
    own = {name: row.shape for name, row in program.sites().items() if row.kind == "latent"}
    for name in [*table, *own]:
        if table.get(name) != own.get(name):
            theirs, mine = (f"has shape {t[name]}" if name in t else "is not there" for t in (table, own))
            raise ValueError(
                f"{path} was trained on another program: site '{name}' {theirs} in it, and {mine} in this one. Give the "
                "program and the arguments that it was trained with."
            )
    choices: dict[str, Any] = {}
    for i, at in enumerate(sites):
        put(choices, tuple(at), arrays[f"probe/{i}"])
    for name, found in _said(program, choices).items():
        known = arrays[f"probe/{name}"]
        if found.shape != known.shape or not np.allclose(found, known, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError(
                f"{path} was trained on another program, or with other arguments: of its probes the {name} is "
                f"{_short(known)}, and in this program {_short(found)}."
            )


def _said(program: ppl.Program, choices: Any) -> dict[str, np.ndarray]:
    """What a program says of several choices: their log densities, and the values of deterministic sites."""
    values = flatten(jax.vmap(program.values)(choices))
    said = {f"value of {name}": values[name] for name, row in program.sites().items() if row.kind == "deterministic"}
    return jax.tree.map(np.asarray, {"log density": jax.vmap(program.log_density)(choices), **said})


def _short(x: np.ndarray) -> str:
    return np.array2string(x, precision=3, threshold=6, edgeitems=2).replace("\n", "")


# -- structure as JSON -------------------------------------------------------------------------------------------------------


def _encoded(x: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON can say; arrays go to `arrays`."""
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, tuple) and type(x) not in NAMES:
        return {"tuple": [_encoded(item, arrays) for item in x]}
    if isinstance(x, jax.Array | np.ndarray):
        name = f"array/{len(arrays)}"
        arrays[name] = np.asarray(x)
        return {"array": name}
    if isinstance(x, np.dtype):
        return {"dtype": str(x)}
    if isinstance(x, Still):
        return {"support": _support(x.support)}
    if type(x) not in NAMES:
        raise ValueError(f"save: a {type(x).__name__} cannot be saved; known are {', '.join(CLASSES)}.")
    fields = {name: getattr(x, name) for name in _fields(type(x)) if name not in (*NOT_KEPT, *GIVEN)}
    return {"class": NAMES[type(x)], "fields": {name: _encoded(value, arrays) for name, value in fields.items()}}


def _fields(kind: type) -> tuple[str, ...]:
    """Of a module, or of a named tuple."""
    return getattr(kind, "_fields", None) or tuple(f.name for f in dataclasses.fields(kind))


def _decoded(x: Any, arrays: dict[str, np.ndarray], given: dict[str, Any]) -> Any:
    if not isinstance(x, dict):
        return x
    if "tuple" in x:
        return tuple(_decoded(item, arrays, given) for item in x["tuple"])
    if "array" in x:
        return jnp.asarray(arrays[x["array"]])
    if "dtype" in x:
        return jnp.dtype(x["dtype"])
    if "support" in x:
        return Still(_constraint(x["support"]))
    kind = CLASSES[x["class"]]
    if issubclass(kind, tuple):
        return kind(*(_decoded(x["fields"][name], arrays, given) for name in _fields(kind)))
    new = object.__new__(kind)  # fields as they were: what a constructor checks was checked
    for field in dataclasses.fields(kind):
        if field.name in GIVEN:
            value = given[field.name]
        elif field.name not in x["fields"] and field.default is not dataclasses.MISSING:
            value = field.default  # a field that is younger than the file
        else:
            value = None if field.name in NOT_KEPT else _decoded(x["fields"][field.name], arrays, given)
        object.__setattr__(new, field.name, value)
    return new


# -- supports ----------------------------------------------------------------------------------------------------------------

_c: Any = dist.constraints
PLAIN = {
    name: getattr(_c, name)
    for name in (
        "real", "real_vector", "positive", "nonnegative", "unit_interval", "simplex", "ordered_vector",
        "positive_ordered_vector", "circular", "lower_cholesky", "positive_definite", "corr_cholesky", "corr_matrix",
        "sphere", "softplus_positive",
    )
}  # fmt: skip
BOUNDED: dict[str, Callable] = {"interval": _c.interval, "greater_than": _c.greater_than, "less_than": _c.less_than}


def _support(support: Any) -> dict[str, Any]:
    """A support as plain values."""
    for name, known in PLAIN.items():
        if support is known:
            return {"plain": name}
    if isinstance(support, type(_c.independent(_c.real, 1))):
        return {"independent": _support(support.base_constraint), "axes": support.reinterpreted_batch_ndims}
    for name, make in BOUNDED.items():
        example = make(0.0, 1.0) if name == "interval" else make(0.0)
        if type(support) is type(example):
            bounds = [getattr(support, b) for b in ("lower_bound", "upper_bound") if hasattr(support, b)]
            return {"bounded": name, "bounds": [np.asarray(b, np.float64).tolist() for b in bounds]}
    raise ValueError(f"save: the support {support} cannot be saved; known are {', '.join([*PLAIN, *BOUNDED])}.")


def _constraint(told: dict[str, Any]) -> Any:
    if "plain" in told:
        return PLAIN[told["plain"]]
    if "independent" in told:
        return _c.independent(_constraint(told["independent"]), told["axes"])
    return BOUNDED[told["bounded"]](*(b if isinstance(b, float) else np.asarray(b, np.float32) for b in told["bounds"]))
