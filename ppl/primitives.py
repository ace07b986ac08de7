"""The verbs of the language. Each asks the current interpreter what it means.

```python
@ppl.model
def regression(x):
    slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(slope * x, 1.0))
```
"""

from collections.abc import Callable
from typing import Any, TypeVar

from . import distributions
from .interpreter import Interpreter, current, outside
from .program import Model, Program

T = TypeVar("T")


def sample(name: str, generative: Any, *, obs: Any = None, strategy: Any = None) -> Any:
    """Make the random choice called `name`.

    Args:
        name: unique within its program (a site inside `ppl.vmap` or `ppl.scan` is named once, its value gains an axis).
        generative: a distribution (of any batch and event shape; the site's density is the sum over the batch), or a
            Program, whose choices are nested under `name`.
        obs: data for this site, written in the model; the same as `observe`. A NumPy masked array is data with missing
            entries, which become latent.
        strategy: how the gradient of an objective that draws this program is estimated here, for example `inf.vi.Score()`; it
            matters to variational inference alone (see `inference.vi`).

    Returns:
        The value, of shape `generative.shape()`; for a Program its return value.

    Raises:
        ValueError: outside a program, for a name used twice, for data of a wrong shape, inside a raw JAX transformation.

    Example:
        `theta = ppl.sample("theta", dist.Normal(0.0, 1.0))`
    """
    if not isinstance(name, str):
        raise ValueError(
            "ppl.sample takes a name and then a distribution, as in sample('x', dist.Normal(0.0, 1.0)), but the name it got "
            f"is of type {type(name).__name__}."
        )
    interpreter = _interpreter("sample", name)
    if isinstance(generative, Program):
        if obs is not None:
            raise ValueError(f"site '{name}' is a program: give it data with sample('{name}', program | data), not with obs=.")
        return interpreter.program(name, generative)
    if not distributions.is_distribution(generative):
        raise ValueError(_not_generative(name, generative))
    return interpreter.sample(name, generative, obs, strategy)


def observe(name: str, distribution: Any, value: Any) -> Any:
    """State that the site `name` took `value`: data written inside a model. Returns the data.

    Example:
        `ppl.observe("y", dist.Normal(mu, sigma), y)`
    """
    return sample(name, distribution, obs=value)


def factor(name: str, log_weight: Any) -> None:
    """Multiply the density by `exp(log_weight)`: an unnormalised likelihood term (arrays are summed).

    Example:
        `ppl.factor("penalty", -0.5 * jnp.sum(w**2))`
    """
    _interpreter("factor", name).factor(name, log_weight)


def deterministic(name: str, value: T) -> T:
    """Name a computed value, so that posteriors keep it and interventions may replace it. Returns the value.

    Example:
        `odds = ppl.deterministic("odds", jnp.exp(logit))`
    """
    return _interpreter("deterministic", name).deterministic(name, value)


def call(name: str, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call `fn(*args, **kwargs)`, by name: a costly deterministic step that `program.intervene({name: other})` may replace.

    Example:
        `voltage = ppl.call("voltage", solve_battery, theta)`
    """
    return _interpreter("call", name).call(name, fn, args, kwargs)


def _interpreter(verb: str, name: str) -> Interpreter:
    interpreter = current()
    if interpreter is None:
        raise outside(verb, name)
    return interpreter


def _not_generative(name: str, x: Any) -> str:
    if isinstance(x, Model):
        return (
            f"sample('{name}', ...) got the model '{x.__name__}' itself. Call it with its arguments to make a program: "
            f"sample('{name}', {x.__name__}(...))."
        )
    if isinstance(x, type):
        return f"sample('{name}', ...) got the class {x.__name__}. Give its parameters: {x.__name__}(...)."
    return (
        f"sample('{name}', ...) got {type(x).__name__}, but a distribution (such as dist.Normal(0., 1.)) or a program "
        "was expected."
    )
