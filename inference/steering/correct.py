"""Correct: Feynman-Kac correctors, for laws of which only scores are known.

Let S = sum_i a_i s_i be the score that the exponents a_i make of the scores s_i, r the reward, with exponent b. Between two
levels, v = sigma_k^2 - sigma_{k+1}^2, a particle takes the step

    x' = x + v/2 [ (1 + nu) S + nu b grad r ] + sqrt(nu v) z ,                     z ~ N(0, I), any nu > 0,
    log w += v/2 [ S . (S + b grad r) - sum_i a_i s_i . s_i ] + b' r(x, sigma') - b r(x, sigma) .

For annealing the log weight is a (a - 1) v/2 s . s, for guidance w (w - 1) v/2 d . d with d = s_1 - s_2, for a product
v s_1 . s_2: no divergence is needed. The formula is the limit of small steps, and is taken as it stands: no weight is
centred, clamped or floored, so that estimates converge with the number of levels. (Skreta, Akhound-Sadegh, Ohanesian,
Bondesan, Aspuru-Guzik, Doucet, Brekelmans, Tong and Neklyudov, ICML 2025, arXiv:2503.02819.)

Where densities are known too, `Denoise` is right with any number of levels.
"""

import jax
import jax.numpy as jnp

from ..population import Population
from ..smc.step import Step, Stepped
from .denoise import passed
from .noise_path import CorrectedPath, Noisy


class Correct(Step):
    """Go on by one noise level, and correct the weights. Statistics as of `Denoise`.

    - `noise`: nu above. The less noise, the narrower the cloud is than its target, and the heavier are the tails of the
      weights: for a Gaussian to the power a their variance is infinite where nu <= 1 - 1 / a. The more noise, the more levels
      are needed.
    """

    noise: float = 1.0

    def __check_init__(self):
        if not self.noise > 0:
            raise ValueError(f"Correct: noise must be above 0, got {self.noise!r}.")

    def check(self, path) -> None:
        if not isinstance(path, CorrectedPath):
            raise ValueError(f"Correct: {type(path).__name__} is not for correctors. Begin with Correcting(levels, shape).")

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        old, new = path.levels[population.level], path.levels[population.level + 1]
        variance = old**2 - new**2

        def one(key, position):
            x = path.seen(position)
            drift, rate, log_reward = drift_and_rate(path.law, x, old, new, self.noise)
            there = x + variance * drift + jnp.sqrt(self.noise * variance) * jax.random.normal(key, x.shape, x.dtype)
            return there.reshape(-1), variance * rate + log_reward

        keys = jax.random.split(key, len(population.log_weights))
        positions, log_ratio = jax.vmap(one)(keys, population.particles.position)
        population = population._replace(particles=Noisy(positions)).reweighted(log_ratio, population.level + 1)
        return Stepped(population, (), passed(path, population, log_ratio))


def drift_and_rate(law, x, old, new, nu):
    """Drift, rate of the log weight (both for one unit of variance), and what the reward's exponent adds to the log weight."""
    scores, squares, pull = jnp.zeros_like(x), jnp.zeros(()), jnp.zeros_like(x)
    log_reward = jnp.zeros(())
    for (factor, e), (_, e_new) in zip(law.weighed(old), law.weighed(new), strict=True):
        gradient = factor.gradient(x, old)
        if factor.is_law:
            scores, squares = scores + e * gradient, squares + e * jnp.sum(gradient**2)
        else:
            pull = pull + e * gradient
            log_reward = log_reward + e_new * factor.value(x, new) - e * factor.value(x, old)
    drift = 0.5 * ((1 + nu) * scores + nu * pull)
    return drift, 0.5 * (jnp.sum(scores * (scores + pull)) - squares), log_reward
