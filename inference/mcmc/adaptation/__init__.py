"""Adaptation: how kernels learn their settings in warm-up.

```python
inf.adapted(inf.NUTS(), estimator=inf.adaptation.FisherDiagonal(), schedule=inf.adaptation.Schedule(final=0.3))
```
"""

from .covariance import Covariance
from .dual_averaging import DualAveraging
from .fisher import FisherDense, FisherDiagonal
from .low_rank import FisherLowRank
from .pooled import Pooled
from .warmup import Schedule

__all__ = ["Covariance", "DualAveraging", "FisherDense", "FisherDiagonal", "FisherLowRank", "Pooled", "Schedule"]
