"""Exact answers for Distribution Transformers: posteriors of one number by quadrature, of mixtures of Normals by conjugacy.

```python
there = quadrature(noise((3.0, 2.0)) | {"z": 0.7}, -10.0, 10.0)       # positions (800,) and their log probabilities
there.kl(net.mixture({"z": 0.7}, (3.0, 2.0)))                         # KL(exact || network), in nats
best_mixture(there, 5)                                                # the KL of the best mixture: the family's floor
```
A gap to an exact answer is the only fair score: a log score holds the posterior's entropy, which is nobody's fault. What a
mixture of so many components cannot say at all is its floor; what is above the floor is the network's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from inference.optimise.climb import climb
from ppl import dist
from surrogates.heads import Mixture
from surrogates.heads.mixture import Gaussians

COARSE, FINE, DEEP = 1000, 800, 25.0  # points; and how far below its top a log density is looked at


class Grid(NamedTuple):
    """A law of one number on evenly spaced positions (n,): log probabilities that sum to one, and the step."""

    positions: jax.Array
    log_probs: jax.Array
    step: jax.Array

    def log_weights(self, law) -> jax.Array:
        """Another law of vectors (1,), on the same positions."""
        return law.log_prob(self.positions[:, None]) + jnp.log(self.step)

    def kl(self, law) -> jax.Array:
        """KL(this || law), nats."""
        return jnp.sum(jnp.exp(self.log_probs) * (self.log_probs - self.log_weights(law)))


def quadrature(program: ppl.Program, low: Any, high: Any) -> Grid:
    """The posterior of a program with one latent number, whose position is between `low` and `high`. Traceable."""
    target = ppl.as_target(program)
    log_density = jax.vmap(lambda x: target.log_density(x[None]))
    coarse = jnp.linspace(low, high, COARSE)
    found = log_density(coarse)
    deep = found > jnp.max(found) - DEEP
    step = coarse[1] - coarse[0]
    first = jnp.min(jnp.where(deep, coarse, jnp.inf)) - step
    last = jnp.max(jnp.where(deep, coarse, -jnp.inf)) + step
    fine = jnp.linspace(first, last, FINE)
    return Grid(fine, jax.nn.log_softmax(log_density(fine)), fine[1] - fine[0])


def best_mixture(there: Grid, num: int, steps: int = 200) -> jax.Array:
    """The least KL of a mixture of `num` Normals, by L-BFGS from one start: so an upper bound on the floor. Traceable."""
    head = Mixture(1, num)
    shares = jnp.exp(there.log_probs)
    middle = jnp.sum(shares * there.positions)
    spread = jnp.sqrt(jnp.sum(shares * (there.positions - middle) ** 2))
    standard = Grid((there.positions - middle) / spread, there.log_probs, there.step / spread)
    return -climb(lambda raw: -standard.kl(head.law(raw)), head.start().astype(jnp.float32), steps=steps).value


def gaussians(weights, means, trils) -> Gaussians:
    """A mixture: weights (k,), means (k, d), Cholesky factors (k, d, d)."""
    return Gaussians(dist.Categorical(weights), dist.MultivariateNormal(means, scale_tril=trils))


def conditioned(prior: Gaussians, seen, noise, z) -> Gaussians:
    """The exact posterior of x, given z ~ Normal(seen @ x, noise): each component by Kalman's update, and weighed by how well
    it foresaw z. `seen` (m, d); `noise` (m,), deviations."""
    parts: Any = prior.component_distribution

    def one(mean, tril):
        with jax.default_matmul_precision("highest"):
            across = tril @ (tril.T @ seen.T)
            foreseen = dist.MultivariateNormal(seen @ mean, seen @ across + jnp.diag(noise**2))
            gain = jax.scipy.linalg.cho_solve((foreseen.scale_tril, True), across.T).T
            left = jnp.eye(len(mean)) - gain @ seen
            cov = left @ tril @ (left @ tril).T + (gain * noise) @ (gain * noise).T  # Joseph's form
        return mean + gain @ (z - seen @ mean), jnp.linalg.cholesky(cov), foreseen.log_prob(z)

    means, trils, log_foreseen = jax.vmap(one)(parts.loc, parts.scale_tril)
    return gaussians(jax.nn.softmax(prior.mixing_distribution.logits + log_foreseen), means, trils)


def kl_by_draws(key, exact: Gaussians, law: Gaussians, num: int) -> jax.Array:
    """KL(exact || law) estimated by `num` draws."""
    draws = exact.sample(key, (num,))
    return jnp.mean(exact.log_prob(draws) - law.log_prob(draws))


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean of values (n,), and its standard error."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std() / len(values) ** 0.5)
