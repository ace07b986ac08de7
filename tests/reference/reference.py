"""One published posterior: the program that has it, and the numbers that are known about it.

The numbers come from posteriordb (see `data/README.md`); `data/index.json` holds the exact text of every model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ppl import Program

DATA = Path(__file__).parent / "data"
Data = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Reference:
    """What a posterior needs beyond its published numbers.

    Its sites, or deterministic values, bear the reference's parameter names, so draws can be compared by name.

    Attributes:
        build: from the data to the conditioned program, in the coordinates of the published text.
        constant: our log density minus the published one, which does not normalise truncated priors.
        better: the same posterior in coordinates that are kinder to a sampler; the program itself, if none are needed.
        in_logs: positive parameters without a finite variance, whose moments are compared on the log scale.
    """

    build: Callable[[Data], Program]
    constant: float = 0.0
    better: Callable[[Program, Data], Program] = lambda program, data: program
    in_logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """Names of the reported scalars (`theta[1]` is the first), their moments, thinned draws, and one log density."""

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    mcse: np.ndarray
    draws: np.ndarray | None  # (2000, len(names)), nearly independent
    point: dict[str, np.ndarray]
    log_density: float


@cache
def _index() -> dict[str, Any]:
    return {entry["name"]: entry for entry in json.loads((DATA / "index.json").read_text())["posteriors"]}


def data(name: str) -> dict[str, np.ndarray]:
    """The data of a posterior, by field."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key.removeprefix("data/"): arrays[key] for key in arrays.files if key.startswith("data/")}


def published(name: str) -> Published:
    """The published numbers of a posterior."""
    entry = _index()[name]
    with np.load(DATA / f"{name}.npz") as arrays:
        draws = arrays["ref_draws"].astype(float) if "ref_draws" in arrays.files else None
    moments = [np.array(entry["reference"][key]) for key in ("mean", "sd", "mcse_of_mean")]
    point = {site: np.array(value) for site, value in entry["check"]["point"].items()}
    return Published(tuple(entry["parameter_names"]), *moments, draws, point, entry["check"]["log_density"])


def scalars(values: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """The reported scalars out of values by site, stacked on a new last axis after the (chain, draw) axes.

    Example:
        `scalars(posterior.draws, ("theta[1]", "mu"))` has shape (chains, draws, 2).
    """

    def pick(name: str) -> np.ndarray:
        site, _, index = name.rstrip("]").partition("[")
        value = np.asarray(values[site])
        return value[..., int(index) - 1] if index else value

    return np.stack([pick(name) for name in names], axis=-1)
