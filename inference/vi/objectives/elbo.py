"""ELBO: the evidence lower bound, E_q[log p(x, data) - log q(x)] = log evidence - KL(q || posterior).

(Jordan, Ghahramani, Jaakkola and Saul, Machine Learning 37, 1999; by sampling: Ranganath, Gerrish and Blei, "Black box
variational inference", AISTATS 2014, arXiv:1401.0118.)

```python
inf.maximize(elbo, program | data, guide(phi), key=key)
```
"""

import ppl

from ..expectation import expectation
from .match import same_sites


@expectation
def elbo(model, guide):
    """log evidence - KL(guide || posterior); at the posterior the log evidence, without variance."""
    same_sites(model, guide)
    choices, log_q = ppl.draw(guide)
    return model.log_density(choices) - log_q
