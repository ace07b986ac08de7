"""Metropolis resampling: every slot runs a short Markov chain over indices. It needs ratios of weights only, never their sum.

So no particle waits for all others, which suits GPUs and weights that are not far apart. After `num_steps` it is nearly
unbiased: the bias falls as (1 - 1 / r)^num_steps, where r is the largest weight over the mean (Murray, Lee and Jacob, JCGS 25,
2016, arXiv:1301.4019, section 3.2 on how many steps to take).
"""

import jax
import jax.numpy as jnp
from jax import lax

from .resampler import ByIndex


class Metropolis(ByIndex):
    """Metropolis resampling: `Metropolis(num_steps=32)`. Biased, by what the chains have not forgotten of their starts."""

    num_steps: int = 32

    def ancestors(self, key, log_weights, num: int):
        def step(i, now):
            key_new, key_accept = jax.random.split(jax.random.fold_in(key, i))
            new = jax.random.randint(key_new, (num,), 0, len(log_weights))
            log_u = jnp.log(jax.random.uniform(key_accept, (num,), log_weights.dtype))
            # not "<" of a difference: of two weights of zero, the new one is taken
            return jnp.where(log_u + log_weights[now] <= log_weights[new], new, now)

        return lax.fori_loop(0, self.num_steps, step, jnp.arange(num) % len(log_weights))

    def ancestors_pinned(self, key, log_weights, num: int, pin):
        return self.ancestors(key, log_weights, num).at[0].set(pin)  # slots are independent, and alike
