"""NumPyro's NUTS: all chains in one program as `MCMC` runs them, or each on a host device of its own.

`MCMC(chain_method="parallel")` traces and compiles anew in every run, so the kernel is called by itself there.
"""

import time

import jax
from jax import Array
from numpyro.infer import MCMC, NUTS

from benchmarks.numpyro_models import MODELS
from benchmarks.peers.devices import keys, per_device, twice
from benchmarks.peers.measure import CHAINS, DRAWS, WARMUP, Run
from tests.reference.models import data


def vectorized(name: str, seed: int) -> Run:
    """The first run compiles, the second does not; a third warm-up counts the gradients of the warm-up."""
    model, args = MODELS[name](data(name))
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )

    def sample() -> float:
        start = time.perf_counter()
        mcmc.run(jax.random.key(seed), *args, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - start

    whole = sample()
    again = sample()
    # NumPyro traces and compiles its search for a start anew in every run; that is no sampling, so it does not count
    start = time.perf_counter()
    jax.block_until_ready(mcmc.sampler.init(keys(seed), WARMUP, None, args, {}))
    again -= time.perf_counter() - start
    draws, steps = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields()["num_steps"].sum()
    mcmc.warmup(jax.random.key(seed), *args, extra_fields=("num_steps",), collect_warmup=True)
    return Run(whole, again, int(steps + mcmc.get_extra_fields()["num_steps"].sum()), draws)


def parallel(name: str, seed: int) -> Run:
    model, args = MODELS[name](data(name))

    def chain(key: Array, args: tuple):
        kernel = NUTS(model)
        state = kernel.init(key, WARMUP, None, args, {})

        def step(state, _):
            state = kernel.sample(state, args, {})
            return state, (state.z, state.num_steps)

        _, (positions, steps) = jax.lax.scan(step, state, length=WARMUP + DRAWS)
        positions = jax.tree.map(lambda x: x[WARMUP:], positions)
        return jax.lax.map(kernel.postprocess_fn(args, {}), positions), steps.sum()

    (draws, steps), whole, again = twice(per_device(chain), keys(seed), args)
    return Run(whole, again, int(steps.sum()), draws)
