"""Networks in files: what is loaded computes the same numbers, also in another process; everything else gets a sentence."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from surrogates.artifact import load, save
from surrogates.distribution_transformer import distribution_transformer
from surrogates.heads import Mixture
from surrogates.neural_likelihood import neural_likelihood
from surrogates.neural_posterior import neural_posterior
from surrogates.pfn import pfn
from tests.surrogates.programs import normal_rows, rates, scales, variance

KEY, NUM = jax.random.key(0), 5
SMALL = {"key": KEY, "steps": 2, "batch": 4, "width": 8, "depth": 1, "heads": 2, "progress": False}


@ppl.model
def bumps(spread=1.0):
    parts = dist.MultivariateNormal(sample("means", dist.Normal(0.0, spread).expand([2]))[:, None], jnp.eye(1))
    return dist.MixtureSameFamily(dist.Categorical(sample("weights", dist.Dirichlet(jnp.ones(2)))), parts)


@ppl.model
def seen(prior):
    sample("z", dist.Normal(sample("u", prior)[0], 0.5))


@ppl.model
def sources():
    """A row is an entry, and so is each number of z."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    ppl.vmap(lambda _: sample("y", dist.Normal(mu, 2.0)))(jnp.arange(NUM))
    sample("z", dist.Normal(mu, 2.0).expand([2]))


SOURCES = sources() | {"y": jnp.arange(5.0), "z": np.ma.masked_invalid([0.0, np.nan])}
DATA = normal_rows(NUM) | {"y": jnp.arange(5.0)}
MIXED = dist.MixtureSameFamily(dist.Categorical(jnp.array([0.4, 0.6])), dist.MultivariateNormal(jnp.ones((2, 1)), jnp.eye(1)))
# name: (make, what load is given, what the network says)
KINDS = {
    "posterior": (
        lambda: neural_posterior(DATA, head=Mixture(1, 2), **SMALL),
        lambda: ((DATA,), {}),
        lambda net: net.given(DATA).log_density({"mu": jnp.float32(0.3)}),
    ),
    "posterior with gaps": (
        lambda: neural_posterior(SOURCES, head=Mixture(1, 2), gaps=0.2, **SMALL),
        lambda: ((SOURCES,), {}),
        lambda net: net.given(SOURCES).log_density({"mu": jnp.float32(0.3), "z": jnp.arange(2.0)}),
    ),
    "pfn": (
        lambda: pfn(normal_rows(NUM), context=("y",), query="y", **SMALL),
        lambda: ((normal_rows(NUM),), {}),
        lambda net: net.given({"y": jnp.arange(3.0)}).at({}).log_prob(0.3),
    ),
    "likelihood": (
        lambda: neural_likelihood(normal_rows(NUM), site="y", **SMALL),
        lambda: ((normal_rows(NUM),), {}),
        lambda net: net.given({"mu": 0.3}).log_prob(jnp.arange(4.0)),
    ),
    "transformer of numbers": (
        lambda: distribution_transformer(variance, priors=scales(), data=("z",), **SMALL),
        lambda: ((variance,), {"priors": scales()}),
        lambda net: net.mixture({"z": 0.7}, (2.0, 3.0)).log_prob(jnp.array([[0.1], [0.9]])),
    ),
    "transformer of mixtures": (
        lambda: distribution_transformer(seen, priors=bumps(), data=("z",), components=2, **SMALL),
        lambda: ((seen,), {"priors": bumps()}),
        lambda net: net.mixture({"z": 0.7}, MIXED).log_prob(jnp.array([[0.1], [0.9]])),
    ),
}
QUICK = ("pfn", "likelihood")  # the others take minutes to train and compile together
every = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in KINDS]
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Every kind of network, and its file; each is made once."""
    folder, found = tmp_path_factory.mktemp("nets"), {}

    def of(kind):
        if kind not in found:
            net, file = KINDS[kind][0](), folder / f"{kind}.npz"
            save(net, file)
            found[kind] = net, file
        return found[kind]

    return of


def loaded(kind, file):
    args, more = KINDS[kind][1]()
    return load(file, *args, **more)


@every
def test_saved_and_loaded_it_says_the_same(kind, kept):
    net, file = kept(kind)
    other = loaded(kind, file)
    for a, b in zip(jax.tree.leaves(net), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(KINDS[kind][2](net), KINDS[kind][2](other))


@pytest.mark.slow
def test_another_process_reads_the_same_bits(kept):
    """Of all kinds at once, since a process takes seconds to begin."""
    files = [str(kept(kind)[1]) for kind in KINDS]
    code = (
        "import sys, numpy as np\n"
        "from tests.surrogates.test_artifact import KINDS, loaded\n"
        "for kind, file in zip(KINDS, sys.argv[1:]):\n"
        "    print(kind, np.asarray(KINDS[kind][2](loaded(kind, file))).tobytes().hex())\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    said = [f"{kind} {np.asarray(KINDS[kind][2](kept(kind)[0])).tobytes().hex()}" for kind in KINDS]
    assert run.stdout.splitlines() == said


@every
def test_a_file_that_is_cut_is_refused(kind, kept, tmp_path):
    whole, cut = kept(kind)[1].read_bytes(), tmp_path / "cut.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged, or is no saved network"):
        loaded(kind, cut)


def test_files_of_other_programs_are_refused(kept):
    file = kept("posterior")[1]
    with pytest.raises(ValueError, match="another program, or with other arguments"):
        load(file, normal_rows(NUM, 3.0))
    with pytest.raises(ValueError, match=r"another program: site 'y' has shape \(5,\) in it, and has shape \(4,\)"):
        load(file, normal_rows(4))
    with pytest.raises(ValueError, match="site 'mu' has shape .* is not there"):
        load(file, rates(5))


@pytest.mark.slow
def test_transformers_know_their_model_and_their_priors(kept):
    """Of the joint program of priors and model each part is recognised by the densities of probes."""
    file = kept("transformer of mixtures")[1]
    with pytest.raises(ValueError, match="another program, or with other arguments"):
        load(file, seen, priors=bumps(2.0))
    with pytest.raises(ValueError, match=r"site 'program.v' is not there in it, and has shape \(\)|site 'p.*' has shape"):
        load(kept("transformer of numbers")[1], lambda prior: normal_rows(2), priors=scales())
    noisier = ppl.model(lambda prior: sample("z", dist.Normal(sample("u", prior)[0], 0.6)))
    with pytest.raises(ValueError, match="another program, or with other arguments"):
        load(file, noisier, priors=bumps())


@pytest.mark.slow
def test_what_a_network_is_loaded_with(kept):
    net, file = kept("transformer of numbers")
    for args in ((variance,), (variance, None), (scales(), scales()), (scales(), None)):
        with pytest.raises(ValueError, match="is a Distribution Transformer: load it with the function"):
            load(file, args[0], **({"priors": args[1]} if len(args) > 1 else {}))
    file = kept("posterior")[1]
    with pytest.raises(ValueError, match="is a NeuralPosterior: load it with the program .* got Program and priors="):
        load(file, DATA, priors=scales())
    with pytest.raises(ValueError, match="is a NeuralPosterior: load it with the program .* alone; got Model"):
        load(file, normal_rows)
    with pytest.raises(ValueError, match="expected a network as"):
        save(net.net, file)


def test_files_of_another_kind_are_refused(tmp_path):
    file = tmp_path / "other.npz"
    np.savez(file, header=np.array('{"schema": "evidentia.posterior"}'))
    with pytest.raises(ValueError, match="no saved network: its header names the kind 'evidentia.posterior'"):
        load(file, DATA)
    np.savez(file, header=np.array('{"schema": "evidentia.surrogate", "version": 99}'))
    with pytest.raises(ValueError, match="written by a newer version"):
        load(file, DATA)
    told = '{"schema": "evidentia.surrogate", "version": 1, "sites": [], "structure": {"class": "?"}}'
    np.savez(file, header=np.array(told))
    with pytest.raises(ValueError, match="is damaged: its parts do not fit"):
        load(file, DATA)
