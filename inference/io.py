"""Posteriors to and from files and ArviZ.

A saved posterior is one .npz file: an entry `header` with JSON text (schema, names, provenance) and one array per site and
statistic. Nothing in it is executed when it is read.
"""

import json
import zipfile
from typing import Any

import jax
import numpy as np

from ppl.choices import flatten, nest, paths, put

SCHEMA = "evidentia.posterior"
VERSION = 1
GROUPS = ("draws", "stats", "warmup_stats", "warmup_draws", "stages")
NUMBERS = ("log_evidence", "log_evidence_error")


def save(posterior, path) -> None:
    """Write `posterior` to the file `path`, exactly that name."""
    arrays, names = {}, {}
    for group in GROUPS:
        flat = list(paths(getattr(posterior, group)))
        names[group] = [list(p) for p, _ in flat]
        arrays.update({f"{group}/{i}": np.asarray(x) for i, (_, x) in enumerate(flat)})
    header = {"schema": SCHEMA, "version": VERSION, "names": names, "provenance": posterior.provenance}
    header |= {name: getattr(posterior, name) for name in NUMBERS}
    with open(path, "wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)


def load(path) -> Any:
    """Read a posterior that `save` wrote.

    Raises:
        ValueError: when the file is not a saved posterior, is damaged, or was written by a newer version.
    """
    from .posterior import Posterior

    try:
        with np.load(path, allow_pickle=False) as file:
            if "header" not in file.files:
                raise ValueError(f"{path} is not a saved posterior: it has no header.")
            header = json.loads(str(file["header"]))
            if not isinstance(header, dict) or header.get("schema") != SCHEMA:
                raise ValueError(f"{path} is not a saved posterior: its header names another kind of file.")
            if header["version"] > VERSION:
                raise ValueError(
                    f"{path} was written by a newer version (schema {header['version']}; this one reads up to {VERSION}). "
                    "Update evidentia."
                )
            groups = {
                group: _nested({tuple(path): file[f"{group}/{i}"] for i, path in enumerate(header["names"].get(group, []))})
                for group in GROUPS
            }
            log_evidence, error = (header.get(name) for name in NUMBERS)  # files of older versions lack them
            return Posterior(**groups, provenance=header["provenance"], log_evidence=log_evidence, log_evidence_error=error)
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, json.JSONDecodeError, TypeError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged or is not a saved posterior ({type(error).__name__}: {error}).") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is damaged or is not a saved posterior ({error}).") from error


def to_datatree(
    posterior,
    *,
    program=None,
    posterior_predictive=None,
    prior=None,
    prior_predictive=None,
    log_likelihood: bool = True,
    dims: dict | None = None,
    coords: dict | None = None,
):
    """An `xarray.DataTree` as ArviZ expects it.

    - `program`: the conditioned program; default: the posterior's own. It gives observed data and log likelihood.
    - `posterior_predictive`: nested dict of arrays (chain, draw, ...), from `posterior.predict(...)`.
    - `prior`, `prior_predictive`: nested dicts of arrays (draw, ...), from `ppl.predict(program, key, num=...)`.
    - `log_likelihood`: False leaves the pointwise log likelihood out (it is as large as the data times the draws).
    - `dims`, `coords`: names of the dimensions of each site, and their labels, for example
      `dims={"theta": ["school"]}, coords={"school": names}`.
    """
    import arviz_base

    program = posterior.program if program is None else program
    groups: dict[str, Any] = {"posterior": _flat(posterior.draws), "sample_stats": _flat(posterior.stats)}
    if program is not None:
        latent = _latent(program, in_memory(posterior.draws))
        one = jax.tree.map(lambda x: x[0, 0], latent)
        groups["observed_data"] = {k: np.asarray(v) for k, v in program.observed(one).items()}
        if log_likelihood:
            pointwise = jax.jit(jax.vmap(jax.vmap(lambda program, c: program.log_likelihoods(c), (None, 0)), (None, 0)))
            groups["log_likelihood"] = {k: np.asarray(v) for k, v in pointwise(program, latent).items()}
    if posterior_predictive is not None:
        groups["posterior_predictive"] = _flat(posterior_predictive)
    if prior is not None:
        groups["prior"] = _one_chain(prior)
    if prior_predictive is not None:
        groups["prior_predictive"] = _one_chain(prior_predictive)
    if posterior.warmup_draws:
        groups["warmup_posterior"] = _flat(posterior.warmup_draws)
    if posterior.warmup_stats:
        groups["warmup_sample_stats"] = _flat(posterior.warmup_stats)
    groups = {name: group for name, group in groups.items() if group}
    attrs = {"posterior": {"inference_library": "evidentia", "provenance": json.dumps(posterior.provenance)}}
    return arviz_base.from_dict(groups, dims=dims, coords=coords, save_warmup=True, attrs=attrs)


def _latent(program, draws):
    """The draws that are latent choices of `program`: what it needs to be run again."""
    latent = {name for name, row in program.sites().items() if row.kind == "latent"}
    return nest({name: x for name, x in flatten(draws).items() if name in latent})


def in_memory(tree):
    """Arrays in place of what lies on the disk; see `stream`."""
    return jax.tree.map(lambda x: x if isinstance(x, np.ndarray | jax.Array) else np.asarray(x), tree)


def _flat(tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in flatten(tree).items()}


def _one_chain(tree) -> dict[str, np.ndarray]:
    return {name: x[None] for name, x in _flat(tree).items()}


def _nested(leaves) -> dict[str, Any]:
    """The nested dict with these leaves by path."""
    out: dict[str, Any] = {}
    for path, value in leaves.items():
        put(out, path, value)
    return out
