"""Answer questions about programs: MCMC and one `Posterior` type.

```python
import inference as inf

posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=jax.random.key(0))
print(posterior.summary())
```
"""

from . import metrics
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
from .placement import Sharded, Threads, Vectorized
from .posterior import Posterior
from .stopping import TargetESS
from .store import Store

__all__ = [
    "HMC",
    "MAMS",
    "MCLMC",
    "MEADS",
    "NUTS",
    "SGHMC",
    "SGLD",
    "At",
    "Barker",
    "ChEES",
    "DiscreteGibbs",
    "EllipticalSlice",
    "GibbsWithGradients",
    "Independence",
    "IntegerWalk",
    "Kernel",
    "LatentSlice",
    "Pathfinder",
    "Posterior",
    "RandomWalk",
    "SamplingWarning",
    "Sharded",
    "Slice",
    "Store",
    "Superchains",
    "TargetESS",
    "Threads",
    "Uniform",
    "UntilStable",
    "Vectorized",
    "adaptation",
    "adapted",
    "cycle",
    "delayed_acceptance",
    "from_blackjax",
    "gibbs",
    "involutive",
    "learn_centering",
    "mala",
    "mcmc",
    "metrics",
    "minibatches",
    "mixture",
    "parallel_tempering",
    "pseudo_marginal",
    "repeat",
    "tempered",
]
