"""Eight schools, from a model to a picture: ``make demo``.

Eight schools coached their pupils for a test; each reports an effect and its standard error (Rubin 1981). How much of
what they report is the schools, and how much is chance?
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from picture import picture

import inference as inf
import ppl
from ppl import dist, sample

SCHOOLS = [f"school {letter}" for letter in "ABCDEFGH"]
Y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
PICTURE = Path("eight_schools.png")


@ppl.model
def eight_schools(sigma):
    """Effects of eight schools around a common mean, each seen through its own noise."""
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def school(s):
        theta = sample("theta", dist.Normal(mu, tau))
        return sample("y", dist.Normal(theta, s))

    return ppl.vmap(school)(sigma)


def flat(posterior):
    """All chains end to end, as plain arrays."""
    draws = {name: np.asarray(posterior[name]) for name in ("mu", "tau", "theta")}
    draws["diverging"] = np.asarray(posterior.stats["diverging"])
    return {name: values.reshape(-1, *values.shape[2:]) for name, values in draws.items()}


def heading(text):
    """A line that stands out between blocks of output."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}\n", flush=True)


def main():
    """Sample, print, draw."""
    program = eight_schools(SIGMA) | {"y": Y}
    heading("The program")
    print(program)
    heading("Its graph (Mermaid)")
    print(program.graph())

    heading("NUTS on the model as it is written")
    as_written = inf.mcmc(program, inf.NUTS(), key=jax.random.key(0), chains=4, draws=1000)
    print(as_written.summary())

    heading("The same model, non-centred: program.reparam()")
    posterior = inf.mcmc(program.reparam(), inf.NUTS(), key=jax.random.key(1), chains=4, draws=1000)
    print(posterior.summary("mu", "tau", "theta"))

    picture(SCHOOLS, np.asarray(Y), np.asarray(SIGMA), flat(posterior), flat(as_written), PICTURE)
    heading(f"The picture is in {PICTURE.resolve()}")


if __name__ == "__main__":
    main()
