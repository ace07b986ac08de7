"""Steps, ways and histories, from which methods of sequential Monte Carlo are made: `inf.steps`. See `step.py`.

```python
from inference import steps

stage = steps.sequence(steps.Reweight(steps.ByESS(0.5)), steps.Resample(inf.Systematic()), steps.Move(inf.HMC()))
posterior = inf.smc(program | data, steps.Method(steps.Tempering(), stage), key=key)
```
"""

from ..population import Population
from .ancestor_tree import AncestorTree
from .data_order import DataOrder
from .extend import Extend
from .history import History, Last, Paths
from .loop import Method
from .move import Move, UntilMoved
from .path import Bridge, Growing, Path
from .program_path import ByStep
from .resample import Resample
from .reweight import ByCESS, ByESS, Ladder, Reweight
from .step import Step, Stepped, sequence
from .tempering_path import Tempering
from .threshold import Thresholds

__all__ = [
    "AncestorTree",
    "Bridge",
    "ByCESS",
    "ByESS",
    "ByStep",
    "DataOrder",
    "Extend",
    "Growing",
    "History",
    "Ladder",
    "Last",
    "Method",
    "Move",
    "Path",
    "Paths",
    "Population",
    "Resample",
    "Reweight",
    "Step",
    "Stepped",
    "Tempering",
    "Thresholds",
    "UntilMoved",
    "sequence",
]
