"""Fixed: what optimisers leave as it is, though it holds arrays.

```python
guide(phi, inf.vi.Fixed(x))     # phi is learned, x is not; the guide's function uses x.value
```
"""

from typing import Any

import equinox as eqx


class Fixed(eqx.Module):
    """`value`, a pytree of any kind. An optimiser learns nothing in it, and no gradient is asked for."""

    value: Any
