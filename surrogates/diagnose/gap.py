"""Gap: how many nats a posterior is from the exact one, averaged over data.

    gap  =  E[log p(truth | data) - log q(truth | data)]  =  E over data of KL(exact posterior || q)

Taken over the same truths and data its error is small: what varies from truth to truth, the entropy, is in both. Where the
caller knows floors, the best that can be done within some limits, the gap is split along them:

    gap  =  [exact -> floor 1]  +  [floor 1 -> floor 2]  +  ...  +  [last floor -> q, the rest]

such as the posterior of what the network is told (the information floor), and of that the best that its head can say (the
family floor). Only the rest can be trained away. Each floor keeps the limits of those before it.

Without an exact posterior there is still the prior to beat: E[log q - log prior] is the information gained, in nats.
"""

from itertools import pairwise

import equinox as eqx
import numpy as np

from inference.checks.verdict import Verdict

from .check import Check, Outcome, above, mean_and_error, said

EXACT, BELOW = "exact", "below the prior"


class Gap(Check):
    """A gap of `at_most` so many nats, where an exact posterior is given; and no worse than the prior."""

    at_most: float = eqx.field(default=0.02, static=True)

    def __call__(self, study, simulated, key):
        log_q = simulated.at_truth.posterior
        values = {BELOW: simulated.at_truth.prior - log_q}
        p_values = {BELOW: above(values["below the prior"], 0.0)}
        score = f"log q {_mean(log_q)} at the truth, {_mean(-values[BELOW])} above the prior"
        found, wanted, split = f"{_mean(-values[BELOW])} above the prior", "above it", []
        if EXACT in simulated.others:
            values |= pieces(simulated.others, log_q)
            p_values["gap"] = above(values["gap"], self.at_most)
            found, wanted = f"{_mean(values['gap'])} below the exact", f"{self.at_most:g} or less"
            split = [f"{name} {_mean(x)}" for name, x in values.items() if name not in (BELOW, "gap")]
        return Outcome(
            "log score (nats)",
            found,
            wanted,
            Verdict(p_values, values),
            "What the floors do not explain can be trained away: more steps, more simulations, a larger network.",
            "; ".join([score, *([f"gap = {' + '.join(split)}"] if split else [])]),
        )


def pieces(others: dict[str, np.ndarray], log_q: np.ndarray) -> dict[str, np.ndarray]:
    """The gap (S,), and the pieces that it is made of, from log densities at the truth; of `others` the exact is first."""
    out = {"gap": others[EXACT] - log_q}
    for before, after in pairwise(others):
        out[after] = others[before] - others[after]
    if len(others) > 1:
        out["rest"] = list(others.values())[-1] - log_q
    return out


def _mean(values: np.ndarray) -> str:
    return said(*mean_and_error(values))
