"""Another program's posterior, to begin at: its draws stand where otherwise draws from the prior would.

    gamma_b = gamma_A^(1 - b) gamma_B^b,  from the posterior of program A to that of program B, over the same latent sites

A may have other data, another likelihood, a surrogate in place of a costly call: whatever is wrong with it is put right on the
way, exactly. The evidence of B is that of A times the ratio of the two, and errs by both (Gelman and Meng, Statistical Science
13, 1998). Draws of a Markov chain have no evidence; a ratio is asked for by saying that it is one.

```python
rough = inf.smc(model.intervene({"voltage": emulator}) | data, inf.tempering(), key=key)
exact = inf.smc(model | data, inf.tempering(reference=rough), key=key)
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.choices import flatten, nest

from .. import io
from ..population import Population
from ..posterior import Posterior
from ..resampling import Systematic

BLOCKS = 64  # of the draws of Markov chains: neighbours count as one family


class OtherPosterior(NamedTuple):
    """Draws (M, dim) on a target's positions, the family (M,) that each is of, and what is known of the evidence."""

    positions: jax.Array
    families: jax.Array
    log_evidence: jax.Array
    log_evidence_error: jax.Array

    @staticmethod
    def of(posterior: Posterior, target: ppl.Target) -> "OtherPosterior":
        """Raises ValueError for draws that are not of all latent sites, or without an evidence."""
        if posterior.log_evidence is None:
            raise ValueError(
                "smc: the reference has no log evidence (it is of Markov chains), so none could be told at the end. Begin "
                "at a posterior from inf.smc; or, for the ratio of the evidences of the two programs, give it that of 1: "
                "dataclasses.replace(posterior, log_evidence=0.0, log_evidence_error=0.0)."
            )
        chains, draws = posterior.shape
        flat = flatten(io.in_memory(posterior.draws))
        choices = {}
        for slot in target.slots:
            there = flat.get(slot.address)
            shape = target.program.sites()[slot.address].shape
            if there is None or there.shape[2:] != shape:
                told = "is not there" if there is None else f"has shape {there.shape[2:]}, but the program's has {shape}"
                raise ValueError(
                    f"smc: in the draws of the reference site '{slot.address}' {told}. They must hold all latent sites: keep "
                    "whole paths, history=Paths()."
                )
            choices[slot.address] = jnp.asarray(there).reshape(chains * draws, *shape)
        positions = jax.jit(jax.vmap(lambda target, x: target.unconstrain(nest(x)), (None, 0)))(target, choices)
        if "slot" in posterior.stats:  # draws of weighted particles: copies of one are one family
            families = np.unique(np.asarray(posterior.stats["slot"]), return_inverse=True)[1].ravel()
        else:
            each = -(-BLOCKS // chains)
            families = (np.arange(chains)[:, None] * each + np.arange(draws) * each // draws).ravel()
        known = (posterior.log_evidence, posterior.log_evidence_error or 0.0)
        return OtherPosterior(positions, jnp.asarray(families, jnp.int32), *(jnp.asarray(x, positions.dtype) for x in known))

    def start(self, key, num: int, at) -> Population:
        """`num` particles `at(position)` of equal weight: each draw as often as any other, but for one."""
        slots = Systematic().ancestors(key, jnp.zeros(len(self.positions), self.positions.dtype), num)
        # Families have numbers below `num`, as slots have.
        families = jnp.unique(self.families[slots], return_inverse=True, size=num)[1].astype(jnp.int32)
        new = Population.of(jax.vmap(at)(self.positions[slots]))
        new = new._replace(families=families, log_divided=self.log_evidence, settled=self.log_evidence_error**2)
        return new._replace(log_apart=-jnp.log(new._apart))
