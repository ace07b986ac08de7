"""The cell's equations for a physics-informed network: diffusion in its two particles. All else is algebra, and exact.

The unknown of a particle is G(zeta, s), zeta = xi^2 and t = end s^2: what it holds inside of xi beyond the mean, over xi^3,

    x = mean + 3 G + 2 zeta G_zeta,    G_t = 2 D/R^2 (5 G_zeta + 2 zeta G_zeta_zeta) - rise,    G = 0 at zeta = 1 and at s = 0

(the integral of the diffusion equation over the ball inside xi). So the mass and the flux at the surface are exact, nothing is
singular at the centre, and no loss is needed but that of the equation inside: in units of the flux at the surface.

    G = -(rise R^2 / (10 D)) h^2 (1 - zeta) / (h + c (1 - h^2) (1 - zeta)) (1 + network),    h = tanh(5.64 sqrt(D t) / R)

is, at network = 0, right at the surface after short and after long times, were D what it is at the start: a level in closed
form, `Layered`, which the network corrects. `Bare` has none: s (1 - zeta) network in the place of all but the first factor.

```python
equations = SingleParticle.of(times)
emulator = Informed(equations, (Level(), Level())).fit(key)          # emulator(i0_a, Ds_c): voltages (n,) at the times
```
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.battery_cell import HOUR, Cell, Electrode, Parameters, flux, nominal, rise_of, terminal
from ppl import dist
from surrogates.emulators.physics import Equations, slope

SHORT = 5.64  # h ~ SHORT sqrt(D t)/R: 10/sqrt(pi), from the surface of a half-space
INSIDE = SHORT**2 / 10  # c: so that well inside the surface's layer nothing has changed yet


class Numbers(NamedTuple):
    """Of a particle, times in units of `end`: `rise`, a third of that of the mean; the Fourier number D end/R^2 of a filling,
    `fourier`, and at the `start`."""

    rise: Any
    fourier: Callable[[Any], Any]
    start: Any


class Form(eqx.Module):
    """What stands in for -10 D G / (rise R^2) where a network says `raw`; and what the network reads."""

    @abstractmethod
    def read(self, zeta, s, start) -> list[Array]:
        """Scalars in [-1, 1]; `start` is the Fourier number at the start."""

    @abstractmethod
    def write(self, zeta, s, start, raw) -> Array:
        """A scalar, zero at zeta = 1 and at s = 0."""


class Layered(Form):
    """The closed form of the file's docstring, times 1 + raw. The network reads how deep in the surface's layer a point is."""

    def read(self, zeta, s, start):
        h = jnp.tanh(SHORT * jnp.sqrt(start) * s)
        near = (1.0 - zeta) / (h + 1.0 - zeta + 1e-6)
        return [2.0 * zeta - 1.0, 2.0 * s - 1.0, 2.0 * h - 1.0, 2.0 * near - 1.0]

    def write(self, zeta, s, start, raw):
        h = jnp.tanh(SHORT * jnp.sqrt(start) * s)
        return h**2 * (1.0 - zeta) / (h + INSIDE * (1.0 - h**2) * (1.0 - zeta) + 1e-6) * (1.0 + raw)


class Bare(Form):
    """Nothing but what must be: zero where G is."""

    def read(self, zeta, s, start):
        return [2.0 * zeta - 1.0, 2.0 * s - 1.0]

    def write(self, zeta, s, start, raw):
        return s * (1.0 - zeta) * raw


LAYERED = Layered()


class SingleParticle(Equations):
    """See the file's docstring.

    - `times`: (n,) in seconds, at which voltages are observed. `rate`: of the discharge. `form`: of the field.
    """

    coordinates: dict[str, dist.Distribution]
    parameters: dict[str, dist.Distribution]
    times: Array
    cell: Cell = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    form: Form

    @staticmethod
    def of(times: Any, *, rate: float = 2.0, form: Form = LAYERED) -> "SingleParticle":
        """Of the papers' cell: over exchange currents `i0_a` in [0.5, 4] and diffusivities `Ds_c` in [1, 10]."""
        square = [dist.transforms.PowerTransform(2.0), dist.transforms.AffineTransform(1.0, -1.0)]
        near = dist.TransformedDistribution(dist.Uniform(0.0, 1.0), square)  # half of the points have zeta above 3/4
        coordinates = {"zeta": near, "s": dist.Uniform(0.0, 1.0)}
        parameters = {"i0_a": dist.Uniform(0.5, 4.0), "Ds_c": dist.LogUniform(1.0, 10.0)}
        return SingleParticle(coordinates, parameters, jnp.asarray(times, float), nominal(), rate, form)

    def numbers(self, side: str, diffusion: Any) -> Numbers:
        """Of the particle on this side."""
        electrode: Electrode = getattr(self.cell, side)
        end = HOUR / self.rate
        rise = rise_of(electrode, flux(electrode, self.cell, self.rate, 1.0)) * end

        def fourier(x):
            return diffusion * electrode.diffusivity(x) * (end / electrode.radius**2)

        return Numbers(rise, fourier, fourier(jnp.asarray(electrode.start, float)))

    def sides(self, diffusion: Any) -> dict[str, Numbers]:
        """Both particles; the diffusivity of the cathode's is multiplied."""
        return {"anode": self.numbers("anode", 1.0), "cathode": self.numbers("cathode", diffusion)}

    def features(self, zeta, s, i0_a, Ds_c):
        read = {side: self.form.read(zeta, s, own.start) for side, own in self.sides(Ds_c).items()}
        return {"anode": jnp.stack(read["anode"]), "cathode": jnp.stack([*read["cathode"], 2.0 * jnp.log10(Ds_c) - 1.0])}

    def field(self, raw, zeta, s, i0_a, Ds_c):
        sides = self.sides(Ds_c).items()
        return {side: -0.1 * own.rise / own.start * self.form.write(zeta, s, own.start, raw[side]) for side, own in sides}

    def residuals(self, field, zeta, s, i0_a, Ds_c):
        rest = (s, i0_a, Ds_c)
        g = field(zeta, *rest)
        g_s = slope(field, 1)(zeta, *rest)
        one, two = slope(field)(zeta, *rest), slope(slope(field))(zeta, *rest)
        left = {}
        for side, own in self.sides(Ds_c).items():
            x = getattr(self.cell, side).start + 3.0 * own.rise * s**2 + 3.0 * g[side] + 2.0 * zeta * one[side]
            inward = 2.0 * own.fourier(x) * (5.0 * one[side] + 2.0 * zeta * two[side])
            left[side] = (g_s[side] / (2.0 * s) - inward) / own.rise + 1.0
        return left

    def observed(self, field, i0_a, Ds_c):
        s = jnp.sqrt(self.times * (self.rate / HOUR))
        rest = (s, jnp.broadcast_to(i0_a, s.shape), jnp.broadcast_to(Ds_c, s.shape))
        steep = jax.vmap(slope(field))(jnp.ones_like(s), *rest)
        start = {side: getattr(self.cell, side).start for side in steep}
        at = {side: start[side] + 3.0 * own.rise * s**2 + 2.0 * steep[side] for side, own in self.sides(Ds_c).items()}
        return terminal(Parameters(i0_a=i0_a, Ds_c=Ds_c), at["anode"], at["cathode"], self.cell, self.rate)
