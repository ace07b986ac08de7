"""Optimal transport: particles move to where resampled ones would be, as smoothly as can be, and so can be differentiated.

The plan P (N, N) with row sums 1/N and column sums w that moves particles the least, with an entropy that makes it smooth, is
found by Sinkhorn's iterations; the new particles are N P x. Weighted means of the particles stay exactly; other functions of
them are biased, the less the smaller `blur`. (Corenflos, Thornton, Deligiannidis and Doucet, ICML 2021, arXiv:2102.07850.)
"""

import jax
import jax.numpy as jnp
from jax import lax

from .resampler import Resampled, Resampler, logmeanexp


class OptimalTransport(Resampler):
    """Differentiable resampling of particles of floating-point numbers: `OptimalTransport(blur=0.5)`. Costs N^2.

    - `blur`: the strength of the entropy, for particles scaled to a spread of one.
    - `num_steps`: of Sinkhorn's iterations.

    Raises:
        ValueError: for another number of particles, for particles that hold integers, and when one is to be pinned.
    """

    blur: float = 0.5
    num_steps: int = 100

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        if num not in (None, len(log_weights)):
            raise ValueError(f"OptimalTransport: {len(log_weights)} particles stay as many, but {num} were asked for.")
        for x in jax.tree.leaves(particles):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"OptimalTransport: it mixes particles, which must be floating-point numbers, got {x.dtype}.")
        log_plan = self.log_plan(particles, log_weights)
        plan = jnp.exp(log_plan)
        new = jax.tree.map(lambda x: jnp.tensordot(plan, x, 1), particles)
        level = jnp.full_like(log_weights, logmeanexp(log_weights))
        return Resampled(new, level, jnp.argmax(log_plan, axis=1))

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin=0) -> Resampled:
        raise ValueError("OptimalTransport: it mixes particles, so none can be pinned. Use Systematic() in conditional SMC.")

    def log_plan(self, particles, log_weights):
        """log N P, (N, N): how much of each particle (column) goes into each new one (row)."""
        size = len(log_weights)
        table = jnp.concatenate([x.reshape(size, -1) for x in jax.tree.leaves(particles)], axis=1)
        log_w = jax.nn.log_softmax(log_weights)
        spread = lax.stop_gradient(jnp.std(table, axis=0, where=jnp.isfinite(table)))
        table = table / jnp.where(spread > 0, spread, 1.0)
        cost = jnp.sum((table[:, None] - table) ** 2, axis=-1) / (self.blur**2 * table.shape[1])

        def rows(columns):
            return -jax.nn.logsumexp(columns - cost, axis=1) - jnp.log(size)

        def step(_, columns):
            return log_w - jax.nn.logsumexp(rows(columns)[:, None] - cost, axis=0)

        columns = lax.fori_loop(0, self.num_steps, step, log_w)
        return rows(columns)[:, None] + columns - cost + jnp.log(size)
