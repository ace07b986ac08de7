"""Every mistake in asking for a posterior gets this sentence, before any time is spent; a run that went wrong, a warning."""

import warnings

import jax.numpy as jnp
import pytest

import inference as inf

from .bad_input import DATA, schools
from .bad_runs import CASES, mcmc

SENTENCES = {
    "no chains": "mcmc: chains must be a whole number of at least 1, got 0.",
    "no draws": "mcmc: draws must be a whole number of at least 1, got 0.",
    "half a draw": "mcmc: draws must be a whole number of at least 1, got 10.5.",
    "less than no warm-up": "mcmc: warmup must be a whole number of at least 0, or UntilStable(...), got -1.",
    "no warm-up": (
        "mcmc: warmup=0 leaves the step size and metric of NUTS unlearned; give them, "
        "NUTS(step_size=..., metric=...), or allow a warm-up."
    ),
    "no warm-up for a combination": (
        "mcmc: warmup=0 leaves the step size and metric of NUTS unlearned; give them, "
        "NUTS(step_size=..., metric=...), or allow a warm-up."
    ),
    "a combination to adapt": (
        "adapted: Cycle has nothing to learn. Of a combination, the members are adapted by themselves."
    ),
    "a number as key": "mcmc: key must be one typed key, for example jax.random.key(0).",
    "an old key": "mcmc: key must be one typed key, for example jax.random.key(0).",
    "the kernel's class": "mcmc: the kernel is the class NUTS; make one: NUTS().",
    "no kernel": "mcmc: expected a kernel such as NUTS() as second argument, got str.",
    "a model": "a program or a target was expected, but got Model. Call the model with its arguments first.",
    "a function": ("a program or a target was expected, but got function. Use Target.from_log_density for a function."),
    "a discrete latent site": (
        "site 'n' is discrete (Poisson), and NUTS moves continuous sites only. Sum it out in the model (a mixture or a "
        "forward recursion), condition on it, or give it a kernel of its own: "
        'inf.gibbs({"n": inf.DiscreteGibbs(), ...: inf.NUTS()}).'
    ),
    "nothing latent": "the program has no latent site: all its choices are data, so there is nothing to infer.",
    "a site in one branch": (
        "site 'x' exists in only one branch of a ppl.cond or ppl.switch, so it has no density in the "
        "others. Sample it before the branch, or in every branch under that name."
    ),
    "no first position: impossible data": (
        "mcmc: no first position found for chain 0 in 100 tries: site 't' has log density -inf at "
        "index 1. Check the model there, or say where to begin: init=At({...})."
    ),
    "no first position: NaN": (
        "mcmc: no first position found for chain 0 in 100 tries: site 'penalty' has log density nan. "
        "Check the model there, or say where to begin: init=At({...})."
    ),
    "a first position that misses a site": "no value was given for site 'theta'; every latent site needs one.",
    "a first position of an unknown site": (
        "the choices name a site 'm', but the program has none of that name. Did you mean 'mu'?"
    ),
    "a first position outside the support": (
        "mcmc: no first position found for chain 0 in 100 tries: site 'tau' has log density nan; site "
        "'theta' has log density nan at index 0; site 'tau' is not finite itself. Check the model "
        "there, or say where to begin: init=At({...})."
    ),
    "a budget in no unit": 'budget: expected seconds or text like "90s", "5min" or "2h", got \'a while\'.',
    "a budget of nothing": "budget: expected a positive number of seconds, got 0.",
    "a tree too deep": "NUTS: max_depth must be between 1 and 20, got 50.",
    "an acceptance of one": "adapted: target_acceptance must lie between 0 and 1, got 1.0.",
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name):
    with pytest.raises(ValueError) as caught:
        CASES[name]()
    assert str(caught.value) == SENTENCES[name]


def test_every_case_has_a_sentence():
    assert SENTENCES.keys() == CASES.keys()


def run(kernel, **settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        posterior = mcmc(kernel=kernel, **settings)
    return posterior, [str(w.message) for w in caught if issubclass(w.category, inf.SamplingWarning)]


def test_a_run_in_which_all_diverge_comes_back_with_a_warning():
    dim = 5
    kernel = inf.NUTS(step_size=1e8, metric=inf.metrics.Diagonal(jnp.ones(dim)))
    posterior, said = run(kernel, draws=10, warmup=0)
    assert said == [
        "Every draw diverged: the chains did not move. The density may be wrong or badly scaled; check it at a point "
        "you know, standardise the data, or start with init=At({...})."
    ]
    assert posterior["mu"].shape == (2, 10)


def test_some_divergences_name_the_remedy():
    kernel = inf.NUTS(step_size=0.9, metric=inf.metrics.Diagonal(jnp.ones(5)))
    _, said = run(kernel, draws=200, warmup=0)
    assert any("draws ended in a divergence" in s and "program.reparam()" in s for s in said), said


def test_the_program_is_unharmed():
    """After a refused run the same program runs."""
    with pytest.raises(ValueError):
        mcmc(chains=0)
    assert jnp.isfinite((schools() | DATA).log_density({"mu": 0.0, "tau": 1.0, "theta": jnp.zeros(3)}))
