"""Answer questions about programs: MCMC, sequential Monte Carlo, variational inference, and one `Posterior` type.

```python
import inference as inf

posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

from . import exact, metrics, optimise, resampling, steering, vi
from . import smc as steps
from .diagnostics import SamplingWarning
from .kernel import Kernel
from .mcmc import adaptation
from .mcmc.adaptation.centring import learn_centering
from .mcmc.adaptation.stable import UntilStable
from .mcmc.adaptation.warmup import adapted
from .mcmc.barker import Barker
from .mcmc.chees import ChEES
from .mcmc.combine import cycle, mixture, repeat
from .mcmc.delayed_acceptance import delayed_acceptance
from .mcmc.discrete_gibbs import DiscreteGibbs
from .mcmc.elliptical_slice import EllipticalSlice
from .mcmc.from_blackjax import from_blackjax
from .mcmc.gibbs import gibbs
from .mcmc.gibbs_with_gradients import GibbsWithGradients
from .mcmc.hmc import HMC, mala
from .mcmc.independence import Independence
from .mcmc.initial import At, Superchains, Uniform
from .mcmc.integer_walk import IntegerWalk
from .mcmc.involutive import involutive
from .mcmc.latent_slice import LatentSlice
from .mcmc.mams import MAMS
from .mcmc.mclmc import MCLMC
from .mcmc.meads import MEADS
from .mcmc.minibatch import minibatches
from .mcmc.nuts import NUTS
from .mcmc.parallel_tempering import parallel_tempering
from .mcmc.pathfinder import Pathfinder
from .mcmc.pseudo_marginal import pseudo_marginal
from .mcmc.random_walk import RandomWalk
from .mcmc.sample import mcmc
from .mcmc.sghmc import SGHMC
from .mcmc.sgld import SGLD
from .mcmc.slice import Slice
from .mcmc.tempering import tempered
from .optimise.dadvi import dadvi
from .optimise.laplace import laplace
from .optimise.maximize import maximize
from .optimise.mode import find_mode
from .optimise.pathfinder import pathfinder
from .optimise.svgd import svgd
from .placement import Sharded, Threads, Vectorized
from .posterior import Posterior
from .resampling import Systematic, When
from .smc.annealed_importance import annealed_importance
from .smc.backward import Backward
from .smc.collapse import collapse
from .smc.entropic import entropic_filter
from .smc.ibis import ibis
from .smc.importance import importance
from .smc.nested_sampling import nested_sampling
from .smc.particle_filter import particle_filter
from .smc.particle_gibbs import ParticleGibbs
from .smc.persistent import persistent
from .smc.pmmh import pmmh
from .smc.resample_move import resample_move
from .smc.sample import smc
from .smc.smc2 import smc2
from .smc.smoothing import smooth
from .smc.tempering import tempering
from .smc.waste_free import waste_free
from .stopping import TargetESS
from .store import Store
from .vi.expectation import expectation
from .vi.guides.guide import guide_for
from .vi.objectives.elbo import elbo
from .vi.objectives.iwelbo import iwelbo

__all__ = [
    "HMC",
    "MAMS",
    "MCLMC",
    "MEADS",
    "NUTS",
    "SGHMC",
    "SGLD",
    "At",
    "Backward",
    "Barker",
    "ChEES",
    "DiscreteGibbs",
    "EllipticalSlice",
    "GibbsWithGradients",
    "Independence",
    "IntegerWalk",
    "Kernel",
    "LatentSlice",
    "ParticleGibbs",
    "Pathfinder",
    "Posterior",
    "RandomWalk",
    "SamplingWarning",
    "Sharded",
    "Slice",
    "Store",
    "Superchains",
    "Systematic",
    "TargetESS",
    "Threads",
    "Uniform",
    "UntilStable",
    "Vectorized",
    "When",
    "adaptation",
    "adapted",
    "annealed_importance",
    "collapse",
    "cycle",
    "dadvi",
    "delayed_acceptance",
    "elbo",
    "entropic_filter",
    "exact",
    "expectation",
    "find_mode",
    "from_blackjax",
    "gibbs",
    "guide_for",
    "ibis",
    "importance",
    "involutive",
    "iwelbo",
    "laplace",
    "learn_centering",
    "mala",
    "maximize",
    "mcmc",
    "metrics",
    "minibatches",
    "mixture",
    "nested_sampling",
    "optimise",
    "parallel_tempering",
    "particle_filter",
    "pathfinder",
    "persistent",
    "pmmh",
    "pseudo_marginal",
    "repeat",
    "resample_move",
    "resampling",
    "smc",
    "smc2",
    "smooth",
    "steering",
    "steps",
    "svgd",
    "tempered",
    "tempering",
    "vi",
    "waste_free",
]
