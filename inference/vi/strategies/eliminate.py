"""Eliminate: log densities averaged over all values of the site, exactly; along a `ppl.scan` for a chain in T * K^2.

```python
elbo.using({"z": Eliminate()}).estimate(key, hidden_markov(y), guide(phi))
```
Where `Enumerate` tries all joint values, K^T of a chain, this passes the law of the chain's state from step to step, in the
guide and then in the model's density, as the forward algorithm does. So it is for objectives that are linear in log densities,
such as the ELBO: others get a sentence. There is no value of such a site to compute with; other sites of its program may not
depend on it, and the objective may only give it to `log_density`. (See `ppl/averaged.py`.)
"""

from ppl import distributions

from .strategy import Strategy, refuse


class Eliminate(Strategy):
    """See the file's docstring."""

    def check(self, address, d):
        if distributions.num_values(d) is None:
            raise refuse("Eliminate()", address, d, "needs a known, finite number of values")

    def choose(self, d, key):
        raise AssertionError("an eliminated site has no value")


class ToEliminate(ValueError):
    """Raised where a program is run that has a site to be eliminated: whoever draws the program draws it without."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"site '{address}' has the strategy Eliminate(), which is for sites of a program that is drawn by "
            "ppl.draw(program). Here give it another strategy, such as Enumerate()."
        )
        self.address = address
