"""Evidentia's side of the variational benchmark: how guides of a model are found, and where chains that begin at one are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

import inference as inf
from benchmarks.vi_models import Model
from inference import vi
from inference.mcmc.initial import Initial, Start
from inference.metrics import LowRank

RATE, CLIP, SAMPLES = 0.01, 10.0, 8  # of Adam, of the gradient's norm, a step


class Guided(NamedTuple):
    """A guide, the program that it is for, and steps a second of what found it."""

    program: Any
    guide: Any
    speed: float | None = None


def optimizer(steps: int) -> optax.GradientTransformation:
    """Ours and the peer's: Adam, its rate falling to a hundredth, gradients cut to a norm."""
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(optax.cosine_decay_schedule(RATE, steps, alpha=0.01)))


def climbed(program, family, steps: int, key, init: Initial | None = None) -> Guided:
    fit = inf.maximize(
        inf.elbo, program, inf.guide_for(program, family, init=init), optimizer=optimizer(steps), steps=steps,
        samples=SAMPLES, key=key, progress=False,
    )  # fmt: skip
    return Guided(program, fit["guide"], steps / fit.provenance["sampling_seconds"])


GUIDES: dict[str, Callable[[Model, int, Any], Guided]] = {
    "mean field": lambda m, steps, key: climbed(m.program, vi.MeanField(), steps, key),
    "full rank": lambda m, steps, key: climbed(m.program, vi.FullRank(), steps, key),
    "spline flow, from Pathfinder": lambda m, steps, key: climbed(
        m.program, vi.Coupling(layers=2, width=16), steps, key, init=inf.Pathfinder()
    ),
    "mean field, centred": lambda m, steps, key: climbed(m.centred, vi.MeanField(), steps, key),
    "autoregressive, centred": lambda m, steps, key: climbed(m.centred, vi.Autoregressive(), steps, key),
    "DADVI": lambda m, steps, key: Guided(m.program, inf.dadvi(m.program, key=key).run.guide),
    "DADVI, linear response": lambda m, steps, key: Guided(m.program, inf.dadvi(m.program, key=key).run.linear_response()),
    "Pathfinder": lambda m, steps, key: Guided(m.program, inf.pathfinder(m.program, key=key).run.guide),
    "Laplace": lambda m, steps, key: Guided(m.program, inf.laplace(m.program, key=key).run.guide),
}


class AtGuide(Initial):
    """Chains begin at draws of a mean field, with its scales."""

    guide: Any

    def position(self, key, target):
        return target.unconstrain(self.guide.simulate(key).choices)

    def begin(self, key, target):
        scale = jnp.exp(self.guide.law.log_scale)
        return Start(self.position(key, target), LowRank(scale, jnp.zeros((target.dim, 1)), jnp.ones(1)))
