"""Extend: one stage more of a growing path, such as a step of a program's loop.

How particles are extended and weighted (by the program itself, by a guide, with a twist) is the path's: see `program_path.py`.
"""

import jax.numpy as jnp

from ..population import Population, is_weight
from .path import Growing
from .step import Step, Stepped


class Extend(Step):
    """Extend by one stage. Statistics: the level, under the path's name for it; `ess`, the effective sample size after;
    `num_nonfinite`, how many log ratios were not numbers (they count as weight zero)."""

    def check(self, path) -> None:
        if not isinstance(path, Growing):
            raise ValueError(f"Extend: {type(path).__name__} does not grow; use Reweight(...) and Move(...).")

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        population, log_ratio = path.extend(key, population)
        population = population.reweighted(log_ratio)
        info = {
            path.level_name: population.level,
            "ess": population.ess,
            "num_nonfinite": jnp.sum(~is_weight(log_ratio), dtype=jnp.int32),
        }
        return Stepped(population, (), info)
