"""`StopGradient(resampler)`: the same draws, with gradients that are right in the mean.

Each new particle's weight is multiplied by w / stop_gradient(w) of its ancestor, which is 1, but has the gradient that
choosing the ancestor would have. So the gradient of the evidence is unbiased, though of more variance than with
`OptimalTransport` (Scibior and Wood, arXiv:2106.10314, 2021).
"""

from jax import lax

from .resampler import ByIndex, Resampled, Resampler


class StopGradient(Resampler):
    """Resampling that can be differentiated: `StopGradient(Systematic())`."""

    resampler: ByIndex

    def __call__(self, key, particles, log_weights, num: int | None = None) -> Resampled:
        return _carried(self.resampler(key, particles, lax.stop_gradient(log_weights), num), log_weights)

    def pinned(self, key, particles, log_weights, num: int | None = None, *, pin=0) -> Resampled:
        return _carried(self.resampler.pinned(key, particles, lax.stop_gradient(log_weights), num, pin=pin), log_weights)


def _carried(new: Resampled, log_weights) -> Resampled:
    chosen = log_weights[new.ancestors]
    return new._replace(log_weights=new.log_weights + chosen - lax.stop_gradient(chosen))
