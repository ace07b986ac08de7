"""NumPyro's side of the variational benchmark: SVI with automatic guides, and NUTS, of the same models."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.handlers import replay, seed, substitute, trace
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO, init_to_uniform
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from benchmarks.vi_models import Model

GUIDES: dict[str, Callable] = {
    "NumPyro AutoNormal": AutoNormal,
    "NumPyro AutoMultivariateNormal": AutoMultivariateNormal,
}


class Fitted(NamedTuple):
    """Steps a second, draws (draws, scalars) of the guide, and their log weights (draws,)."""

    speed: float
    draws: np.ndarray
    log_weights: np.ndarray


def climbed(model: Model, guide: Callable, optimizer: Any, *, steps: int, samples: int, draws: int, key) -> Fitted:
    """A guide from the origin of the unconstrained space, with first scales of 0.1, as ours begin."""
    guide = guide(model.peer, init_loc_fn=init_to_uniform(radius=0), init_scale=0.1)
    svi = SVI(model.peer, guide, optimizer, Trace_ELBO(num_particles=samples))
    key_fit, key_draw = jax.random.split(key)
    state = svi.init(key_fit)  # before the step is traced: it makes the guide
    step = jax.jit(lambda state: jax.lax.scan(lambda state, _: svi.update(state), state, length=steps))
    compiled = step.lower(state).compile()
    began = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state))
    speed = steps / (time.perf_counter() - began)
    values, log_weights = _drawn(model, guide, svi.get_params(state), jax.random.split(key_draw, draws))
    return Fitted(speed, model.scalars(values), np.asarray(log_weights))


def _drawn(model: Model, guide, params, keys):
    """Values of all sites of the model, drawn from a guide, and log densities of the model over those of the guide."""

    def one(key):
        approximate = trace(substitute(seed(guide, key), params)).get_trace()
        exact = trace(replay(model.peer, approximate)).get_trace()
        log_p, log_q = (
            sum(site["fn"].log_prob(site["value"]).sum() for site in sites.values() if site["type"] == "sample")
            for sites in (exact, approximate)
        )
        return {name: site["value"] for name, site in exact.items() if site["type"] != "plate"}, log_p - log_q

    return jax.jit(jax.vmap(one))(keys)


def long_run(model: Model, *, draws: int, key) -> dict[str, np.ndarray]:
    """4 chains of NUTS side by side: values by site, leaves (chain, draw, ...)."""
    chains = MCMC(
        NUTS(model.peer, target_accept_prob=0.95), num_warmup=1000, num_samples=draws, num_chains=4,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    chains.run(key)
    return chains.get_samples(group_by_chain=True)
