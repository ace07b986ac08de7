"""Forward KL: -KL(posterior || guide), by draws from the guide, or from elsewhere, that are weighted to the posterior.

    KL  =  E_posterior[log p(x, data) - log q(x)] - log evidence ,   both by weights w_k = p(x_k, data) / r(x_k), x_k from r

It makes the guide cover all the posterior, where the ELBO would choose a part. Its gradient reaches the guide alone, through
log q alone: that of the mean of log q(x_k) by the weights, so that a site's strategy does not matter. The estimate is
self-normalised: its bias falls as 1/K. (Bornschein and Bengio, "Reweighted wake-sleep", ICLR 2015, arXiv:1406.2751.) For
amortised guides `sleep` does the same by simulation.

```python
inf.maximize(forward_kl(100), program | data, guide(phi), key=key)
inf.maximize(forward_kl(100), program | data, guide(phi), prior, key=key)     # draws from the prior
```
"""

from functools import cache

import ppl
from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from .match import same_sites
from .population import check_num, not_in_part, posterior_mean
from .stl import stopped


@cache
def forward_kl(num: int) -> Expectation:
    """-KL(posterior || guide) by `num` draws, an objective of (model, guide, proposal).

    - `proposal`: where draws come from, a program over the model's latent sites; the guide, if none is given.
    """
    check_num("forward_kl", num)

    @expectation
    def forward_kl(model, guide, proposal=None):
        proposal = guide if proposal is None else proposal
        same_sites(model, guide)
        same_sites(model, proposal)
        not_in_part(model, guide, proposal)

        def one():
            choices, log_r = ppl.draw(stopped(proposal))
            log_p = stopped(model).log_density(choices)
            return log_p - log_r, log_p - guide.log_density(choices)

        log_w, log_ratio = ppl.vmap(one, axis_size=num)()
        return log_mean(log_w) - posterior_mean(log_w, log_ratio)

    return forward_kl
