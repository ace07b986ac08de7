"""A Distribution Transformer as the proposal of a particle filter: few particles in place of many.

A target moves in the plane, held by a spring: position and velocity, with noise in both. Two stations measure how far away it
is, a third in which direction. The likelihood is sharper than the noise of a step, so a bootstrap filter throws most
particles away. The network is told where a particle would be without noise, and by how much the data differ from what would
then be seen, and says the noise: one step's posterior, which a guided filter weighs, so its answer is exact for any network
(Doucet, Godsill and Andrieu, Statistics and Computing 10, 2000). (The paper's section 4.3.1 has another model with four
dimensions and several sensors, whose details it does not give.)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
import surrogates as sur
from benchmarks.dt_oracles import gaussians
from inference.compiled import compiled
from inference.smc.loop import begin, finish
from ppl import dist, sample

LENGTH, DEFENSE = 50, 0.05
MOVE = jnp.array([[1.0, 0.0, 0.2, 0.0], [0.0, 1.0, 0.0, 0.2], [-0.2, 0.0, 0.9, 0.0], [0.0, -0.2, 0.0, 0.9]])
SPREAD, NOISE = jnp.array([0.3, 0.3, 0.3, 0.3]), jnp.array([0.1, 0.1, 0.02])
STATIONS = jnp.array([[-4.0, -3.0], [4.0, -3.0]])


def measured(x):
    """Distances from two stations, and the direction from a third at (0, -6)."""
    away = x[:2] - STATIONS
    return jnp.append(jnp.sqrt(jnp.sum(away**2, -1)), jnp.arctan2(x[0], x[1] + 6.0))


@ppl.model
def target():
    def step(x, _):
        noise = sample("noise", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
        x = MOVE @ x + SPREAD * noise
        sample("z", dist.Normal(measured(x), NOISE).to_event(1))
        return x, None

    ppl.scan(step, jnp.zeros(4), length=LENGTH)


@ppl.model
def places():
    """Where particles may be, before noise: a little wider than where the target goes."""
    return sample("x", dist.Normal(jnp.zeros(4), jnp.array([1.3, 1.3, 1.0, 1.0])).to_event(1))


@ppl.model
def one_step(x):
    noise = sample("noise", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    sample("surprise", dist.Normal(measured(x + SPREAD * noise) - measured(x), NOISE).to_event(1))


def trained(*, key, steps: int, **settings: Any) -> sur.DistributionTransformer:
    settings = {"batch": 128, "width": 32, "depth": 2, "components": 3, "progress": False} | settings
    return sur.distribution_transformer(
        one_step, priors=places(), data=("surprise",), hidden=0.0, key=key, steps=steps, **settings
    )


@ppl.model
def proposed(law):
    sample("noise", law)


def proposal(net: sur.DistributionTransformer):
    """Of the filter: what the network says, and for a twentieth of the particles the program's own noise."""

    def propose(x, _, data):
        place = MOVE @ x
        said: Any = net.net.law(place, {"surprise": data["z"] - measured(place)})
        parts: Any = said.component_distribution
        weights = jnp.append((1.0 - DEFENSE) * said.mixing_distribution.probs, DEFENSE)
        means = jnp.concatenate([parts.loc, jnp.zeros((1, 4))])
        return proposed(gaussians(weights, means, jnp.concatenate([parts.scale_tril, jnp.eye(4)[None]])))

    return propose


def log_evidences(method, particles: int, data, keys) -> np.ndarray:
    """Of series `data` (S, LENGTH, 3), a run for each of `keys` (R,): (S, R)."""

    def run(path, key):
        return finish(method.stage, path, key, begin(method.stage, path, key, particles)).population.log_evidence

    out = []
    for z in data:
        path = method.way.of(target() | {"z": z})
        program = compiled(run, ("dt_smc", method, particles), path, keys[0])
        out.append([float(program(path, key)) for key in keys])
    return np.array(out)


def compared(net: sur.DistributionTransformer, key, num: int, runs: int, most: int = 50_000) -> dict[str, np.ndarray]:
    """Log evidences (num, runs) of a guided filter and a bootstrap filter with 500 particles, and of one with `most`."""
    data = jax.vmap(lambda key: target().simulate(key).choices["z"])(jax.random.split(key, num))
    keys = jax.random.split(jax.random.fold_in(key, 1), runs)
    bootstrap, guided = inf.particle_filter(), inf.particle_filter(proposal=proposal(net))
    return {
        "guided": log_evidences(guided, 500, data, keys),
        "bootstrap": log_evidences(bootstrap, 500, data, keys),
        "reference": log_evidences(bootstrap, most, data, keys[:2]),
    }
