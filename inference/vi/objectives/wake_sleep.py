"""Wake-sleep: the model learns from what the guide makes of data, the guide from what the model dreams.

- `sleep`: choices and data are simulated from the model, and the guide, a function of data, learns to tell the choices from
  the data: E_model[log q(x | data)]. With true parameters in the model it is all an amortised guide needs.
- `wake`: choices come from the guide, and the model learns to make them: E_q[log p(x, data)].
- `p_wake`, `q_wake`, of K draws from the guide, weighted to the posterior: the bound of `iwelbo`, for the model; the weighted
  mean of log q(x_k), for the guide. `reweighted_wake_sleep` is both, from the same draws.

Each has a gradient for one of the two alone: the other is stopped. No gradient goes through a draw, so discrete sites cost
nothing extra. (Hinton, Dayan, Frey and Neal, Science 268, 1995; Bornschein and Bengio, "Reweighted wake-sleep", ICLR 2015,
arXiv:1406.2751; Le, Kosiorek, Siddharth, Teh and Wood, UAI 2019, arXiv:1805.10469.)

```python
inf.maximize(reweighted_wake_sleep(10), program(theta) | data, guide(phi), free=("model", "guide"), key=key)
inf.maximize(sleep, program | data, jax.tree_util.Partial(recognise, phi), key=key)     # recognise(phi, data): a program
```
"""

from functools import cache
from typing import Any

import ppl
from ppl.choices import flatten, nest
from ppl.log_sums import log_mean

from ..expectation import Expectation, expectation
from ..strategies.strategy import zero
from .iwelbo import iwelbo
from .match import same_sites
from .population import check_num, population, posterior_mean
from .stl import stopped


@expectation
def sleep(model, guide):
    """E_model[log guide(data)(x)], of a program with data and a function from data, a nested dict, to a guide.

    The program's data say which sites are data; their values do not matter.
    """
    data, latent = dreamt(model)
    awake = guide(data)
    same_sites(model, awake)
    return awake.log_density(latent)


@expectation
def wake(model, guide):
    """E_guide[log model(x)], with a gradient for the model alone."""
    same_sites(model, guide)
    choices, _ = ppl.draw(stopped(guide))
    return model.log_density(choices)


@cache
def p_wake(num: int) -> Expectation:
    """The bound of `iwelbo(num)`, of (model, guide), with a gradient for the model alone."""
    check_num("p_wake", num)

    @expectation
    def p_wake(model, guide):
        return iwelbo(num).fn(model, stopped(guide))

    return p_wake


@cache
def q_wake(num: int) -> Expectation:
    """E_posterior[log guide(x)] by `num` draws from the guide, of (model, guide), with a gradient for the guide alone."""
    check_num("q_wake", num)

    @expectation
    def q_wake(model, guide):
        return _followed(stopped(model), guide, num)[1]

    return q_wake


@cache
def reweighted_wake_sleep(num: int) -> Expectation:
    """The bound of `iwelbo(num)`, of (model, guide); its gradient is that of `p_wake` and of `q_wake`."""
    check_num("reweighted_wake_sleep", num)

    @expectation
    def reweighted_wake_sleep(model, guide):
        log_w, followed = _followed(model, guide, num)
        return log_mean(log_w) + zero(followed)

    return reweighted_wake_sleep


def _followed(model, guide, num: int):
    """Log weights (num,) of draws from the guide, and the mean of its log density by them: how it follows the posterior."""
    choices, log_w = population(model, stopped(guide), num)
    return log_w, posterior_mean(log_w, ppl.vmap(guide.log_density)(choices))


def dreamt(model) -> tuple[dict[str, Any], dict[str, Any]]:
    """New data, and the latent choices that they come of, both nested dicts.

    Raises:
        ValueError: for what is no program with data.
    """
    if not isinstance(model, ppl.Program) or not model.data:
        raise ValueError(
            "sleep needs a program with data, program | data, so as to know which sites are data. Data that are written in "
            "the model with obs= cannot be dreamt."
        )
    choices = flatten(ppl.draw(stopped(model).without())[0])
    data = {name: x for name, x in choices.items() if name in model.data}
    return nest(data), nest({name: x for name, x in choices.items() if name not in data})
