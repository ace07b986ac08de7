"""Reparameterised: the value is a differentiable function of parameters and of noise that does not depend on them.

Most continuous families; of Gamma, Beta, Dirichlet and Student's t the derivative is implicit, from the distribution function
(Kingma and Welling, ICLR 2014; Figurnov, Mohamed and Mnih, NeurIPS 2018). The default where it is possible.
"""

from ppl import distributions

from .strategy import Chosen, Strategy, refuse


class Reparameterised(Strategy):
    """See the file's docstring. The objective must be differentiable in the value: not `x > 0`."""

    def check(self, address, d):
        if not d.has_rsample:
            raise refuse("Reparameterised()", address, d, "needs values that are differentiable functions of parameters")

    def choose(self, d, key):
        return Chosen(distributions.draw(d, key))
