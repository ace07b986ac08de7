"""Gate: are these data like those that a network was trained on? Where they are not, nobody checked what it says of them.

```python
gate = Gate.fit(features)             # (n, f): summaries of n simulated data sets
gate(gate_features)                   # p-value: the share of simulations that lie as far out
gate.threshold(0.05)                  # the distance that one simulation in twenty exceeds
```
How far out is Mahalanobis's distance: that to the mean, in standard deviations along every direction of the features (Lee et
al., NeurIPS 2018). It is compared with distances of simulations that had no part in the mean and covariance, so the
p-value needs no law of the features, and is valid for any number n (split conformal prediction; Vovk et al., 2005):

    P(p-value of fresh simulated data <= a) <= a,        for every a.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

FLOOR = 1e-3  # the least deviation along any direction, in those of the features; or in their size, where they are constant


class Gate(eqx.Module):
    """See the file's docstring; made by `Gate.fit`. Arrays only, so it is saved with a network.

    - `middle`, `spread` (f,): mean and standard deviation of each feature.
    - `whiten` (f, f): takes standardised features to uncorrelated ones.
    - `distances` (m,): of simulations, from small to large.
    """

    middle: Array
    spread: Array
    whiten: Array
    distances: Array

    @staticmethod
    def fit(features: Array) -> "Gate":
        """From features (n, f) of independent simulations: half of them say the mean and covariance, the others the distances.

        The false alarms of a threshold at 5 % vary with the simulations by sqrt(0.05 * 0.95 / (n / 2)): 0.7 % at n = 2,000.

        Raises:
            ValueError: for features that are no table of finite numbers, or have fewer than 40 rows, or 4 for each feature.

        Example:
            `Gate.fit(jax.random.normal(jax.random.key(0), (1000, 3)))(jnp.zeros(3))`
        """
        table = np.asarray(features, np.float64)
        if table.ndim != 2 or table.shape[1] == 0 or not np.isfinite(table).all():
            what = f"shape {table.shape}" if table.ndim != 2 or table.shape[1] == 0 else "numbers that are not finite"
            raise ValueError(
                f"Gate.fit: expected features as a table (n, f) of finite numbers, one row a simulation, got {what}."
            )
        least = max(40, 4 * table.shape[1])
        if len(table) < least:
            raise ValueError(
                f"Gate.fit: {table.shape[1]} features need at least {least} simulations, got {len(table)}. Simulate more, or "
                "summarise the data by fewer numbers."
            )
        ours, others = table[: len(table) // 2], table[len(table) // 2 :]
        middle, spread = ours.mean(axis=0), ours.std(axis=0)
        still = spread <= 1e-6 * np.abs(middle)  # but for rounding
        spread = np.where(still, np.maximum(np.abs(middle), 1.0), spread)
        standard = (ours - middle) / spread
        values, vectors = np.linalg.eigh(standard.T @ standard / len(ours))
        whiten = vectors / np.sqrt(np.maximum(values, FLOOR**2 * np.max(values, initial=1.0)))
        middle, spread, whiten = (jnp.asarray(x, jnp.float32) for x in (middle, spread, whiten))
        gate = Gate(middle, spread, whiten, jnp.zeros(0))
        return eqx.tree_at(lambda g: g.distances, gate, jnp.sort(gate.distance(jnp.asarray(others, jnp.float32))))

    def distance(self, features: Array) -> Array:
        """Of features (..., f) to the mean of those of simulations, (...); what is not finite is infinitely far."""
        if jnp.shape(features)[-1:] != self.middle.shape:
            raise ValueError(
                f"the gate was fitted to {self.middle.shape[0]} features, but got shape {jnp.shape(features)}: give (..., f)."
            )
        white = ((features - self.middle) / self.spread) @ self.whiten
        far = jnp.linalg.norm(white, axis=-1)
        return jnp.where(jnp.isfinite(far), far, jnp.inf)

    def __call__(self, features: Array) -> Array:
        """The p-value (...) of features (..., f): small where hardly a simulation lies as far out."""
        num = len(self.distances)
        beyond = num - jnp.searchsorted(self.distances, self.distance(features), side="left")
        return (beyond + 1) / (num + 1)

    def threshold(self, false_alarm: float = 0.05) -> Array:
        """The distance above which the p-value is at most `false_alarm`; infinite where there were too few simulations."""
        num = len(self.distances)
        allowed = math.floor(false_alarm * (num + 1)) - 1  # how many may lie as far out
        return self.distances[num - allowed - 1] if 0 <= allowed < num else jnp.where(allowed < 0, jnp.inf, -jnp.inf)

    def __repr__(self) -> str:
        return f"Gate over {self.middle.shape[0]} features, with the distances of {len(self.distances)} simulations"
