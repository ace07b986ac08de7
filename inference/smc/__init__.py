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
from .entropic import Entropic
from .exchange import ByPath, ByWeight, Exchange
from .extend import Extend
from .history import Folding, History, Last, Paths
from .ibis import Next, WhereUneven
from .in_order import InOrder
from .inner_filters import InnerFilters
from .loop import Method
from .move import Move, UntilMoved
from .path import Bridge, Growing, Path
from .program_path import ByStep, Twist
from .rejuvenate import Rejuvenate
from .resample import Resample
from .reweight import ByCESS, ByESS, Ladder, Reweight
from .site_order import Renew, SiteOrder
from .step import Step, Stepped, sequence
from .tempering_path import Tempering
from .threshold import Thresholds
from .window import Window

__all__ = [
    "AncestorTree",
    "Bridge",
    "ByCESS",
    "ByESS",
    "ByPath",
    "ByStep",
    "ByWeight",
    "DataOrder",
    "Entropic",
    "Exchange",
    "Extend",
    "Folding",
    "Growing",
    "History",
    "InOrder",
    "InnerFilters",
    "Ladder",
    "Last",
    "Method",
    "Move",
    "Next",
    "Path",
    "Paths",
    "Population",
    "Rejuvenate",
    "Renew",
    "Resample",
    "Reweight",
    "SiteOrder",
    "Step",
    "Stepped",
    "Tempering",
    "Thresholds",
    "Twist",
    "UntilMoved",
    "WhereUneven",
    "Window",
    "sequence",
]
