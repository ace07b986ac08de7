"""NumPyro models run here unmodified: their log density is NumPyro's own, to rounding."""

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import eqx_module
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density
from numpyro.primitives import _PYRO_STACK

import inference as inf
import ppl
from ppl.interpreters import Simulate
from tests.ppl.numpyro_models import CASES, NON_CENTRED, SERIES, SIGMA8, Y8, Case, X, eight_schools, random_walk

UNDRAWABLE = ("improper", "angles, three reparameterisations")  # improper priors
QUICK = {"xla_backend_optimization_level": 0}  # each program runs once, so compiling is all the cost


def fresh(case: Case) -> Case:
    """The case with copies of its arrays: JAX remembers a NumPy constant of a compiled function in one precision."""
    args, kwargs = jax.tree.map(lambda a: a.copy() if isinstance(a, np.ndarray) else a, (case.args, case.kwargs))
    return case._replace(args=args, kwargs=kwargs)


def densities(case: Case, program: ppl.Program) -> tuple[jax.Array, jax.Array]:
    """Ours and NumPyro's, at some choices."""
    if case.values is not None:
        choices = jax.tree.map(jnp.asarray, case.values)
    else:
        target = ppl.Target(program)
        choices = target.constrain(jnp.sin(1.0 + jnp.arange(float(target.dim))))
    return program.log_density(choices), log_density(case.model, case.args, case.kwargs, choices)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_log_density_is_numpyros(case, precision):
    case = fresh(case)
    program = ppl.from_numpyro(case.model)(*case.args, **case.kwargs)
    found, expected = jax.jit(lambda p: densities(case, p), compiler_options=QUICK)(program)
    assert jnp.isfinite(expected)
    assert found.dtype == expected.dtype == precision
    np.testing.assert_allclose(found, expected, rtol=1e-5 if precision == "float32" else 1e-10)
    assert _PYRO_STACK == []


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in UNDRAWABLE], ids=lambda c: c.name)
def test_latent_sites_are_numpyros(case):
    def draw():
        trace = handlers.trace(handlers.seed(case.model, rng_seed=0)).get_trace(*case.args, **case.kwargs)
        sites = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
        return {name: site["value"] for name, site in sites.items() if name not in case.fixed}

    expected = {name: (x.shape, x.dtype) for name, x in jax.eval_shape(draw).items()}
    rows = ppl.from_numpyro(case.model)(*case.args, **case.kwargs).sites()
    assert {name: (r.shape, r.dtype) for name, r in rows.items() if r.kind == "latent"} == expected


KEY = jax.random.key(4)


def centred():
    """Eight schools in the coordinates that its posterior allows."""
    return ppl.from_numpyro(handlers.reparam(eight_schools, config=NON_CENTRED))(SIGMA8, y=Y8)


def test_data_by_the_pipe_are_data_by_obs():
    written = ppl.from_numpyro(eight_schools)(SIGMA8, Y8)
    piped = ppl.from_numpyro(eight_schools)(SIGMA8) | {"y": Y8}
    choices = {"mu": 1.0, "tau": 2.0, "theta": jnp.ones(8)}
    np.testing.assert_allclose(written.log_density(choices), piped.log_density(choices), rtol=1e-6)
    assert written.sites()["y"].kind == piped.sites()["y"].kind == "observed"
    assert written.log_likelihoods(choices)["y"].shape == (8,)


def test_simulating_agrees_with_assessing():
    program = ppl.from_numpyro(random_walk)(SERIES)
    trace = jax.jit(program.simulate)(KEY)
    assert {name: value.shape for name, value in trace.choices.items()} == {"drift": (), "e": (12, 2), "z": (12,)}
    np.testing.assert_allclose(program.log_density(trace.choices), trace.log_density, rtol=1e-5)
    assert program.values(trace.choices)["level"].shape == (12,)


def test_return_values_and_predictions():
    def model(y=None):
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        return numpyro.sample("y", dist.Normal(loc, 0.01), obs=y)

    program = ppl.from_numpyro(model)(jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(program.retval({"loc": 0.0}), [3.0, 4.0])
    drawn = ppl.predict(program, KEY, {"loc": jnp.full(50, 7.0)})["y"]
    assert drawn.shape == (50, 2) and abs(drawn.mean() - 7.0) < 0.01


def test_programs_verbs_work_on_it():
    program = centred()
    assert program.sites()["theta"].kind == "deterministic"
    fixed = program.intervene({"theta": jnp.zeros(8)})
    choices = {"mu": 0.0, "tau": 1.0, "theta_decentered": jnp.zeros(8)}
    expected = dist.Normal(0.0, SIGMA8).log_prob(Y8).sum() - program.log_likelihoods(choices)["y"].sum()
    np.testing.assert_allclose(fixed.log_density(choices) - program.log_density(choices), expected, atol=1e-4)
    centred_again = ppl.from_numpyro(eight_schools)(SIGMA8, Y8).reparam()
    assert centred_again.sites()["theta_base"].shape == (8,)


def test_a_numpyro_model_nests_in_a_model_and_maps():
    schools = ppl.from_numpyro(eight_schools)

    @ppl.model
    def districts(sigma):
        return ppl.vmap(lambda s: ppl.sample("district", schools(s)))(sigma)

    program = districts(jnp.stack([SIGMA8, 2 * SIGMA8])) | {"district": {"y": np.stack([Y8, Y8])}}
    choices = {"mu": jnp.array([1.0, 2.0]), "tau": jnp.ones(2), "theta": jnp.ones((2, 8))}
    apart = [
        log_density(eight_schools, (s * SIGMA8, Y8), {}, jax.tree.map(lambda x, i=i: x[i], choices))[0]
        for i, s in enumerate([1, 2])
    ]
    np.testing.assert_allclose(program.log_density({"district": choices}), sum(apart), rtol=1e-5)


def test_equal_models_share_compiled_code():
    traced = []

    def model(x):
        traced.append(x)
        numpyro.sample("y", dist.Normal(numpyro.sample("loc", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    run = jax.jit(lambda program: program.interpret(Simulate, KEY)[0].total("log_prior"))
    run(ppl.from_numpyro(model)(1.0))
    count = len(traced)
    run(ppl.from_numpyro(model)(2.0))
    assert len(traced) == count


def test_a_reversed_scan_keeps_values_beside_their_inputs():
    def model(y):
        scan(step, jnp.zeros(()), y, reverse=True)

    def step(z, now):
        z = numpyro.sample("z", dist.Normal(0.5 * z, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=now)
        return z, None

    z = jnp.sin(jnp.arange(12.0))
    program = ppl.from_numpyro(model)(SERIES)
    # NumPyro's density reads values in order of execution, here last to first; its traces, like ours, are first to last
    np.testing.assert_allclose(program.log_density({"z": z}), log_density(model, (SERIES,), {}, {"z": z[::-1]})[0], rtol=1e-5)
    np.testing.assert_allclose(program.observed({"z": z})["y"], SERIES, rtol=1e-6)


def test_handlers_around_a_scan():
    choices = {"drift": 0.1, "e": jnp.ones((12, 2)), "z": jnp.arange(12.0)}
    plain = ppl.from_numpyro(random_walk)(SERIES).log_density(choices)
    scoped = ppl.from_numpyro(handlers.scope(random_walk, prefix="a"))(SERIES)
    np.testing.assert_allclose(scoped.log_density({f"a/{k}": v for k, v in choices.items()}), plain, rtol=1e-6)
    seeded = ppl.from_numpyro(handlers.seed(random_walk, rng_seed=1))(SERIES)
    np.testing.assert_allclose(seeded.log_density(choices), plain, rtol=1e-6)
    replayed = handlers.replay(random_walk, trace={"z": {"type": "sample", "value": choices["z"], "is_observed": False}})
    rest = {"drift": 0.1, "e": choices["e"]}
    np.testing.assert_allclose(ppl.from_numpyro(replayed)(SERIES).log_density(rest), plain, rtol=1e-6)
    # reparameterising a scan from outside fails in NumPyro, and works here
    outside = handlers.reparam(random_walk, config={"z": LocScaleReparam(0.0)})
    assert ppl.from_numpyro(outside)(SERIES).sites()["z_decentered"].shape == (12,)


def test_keys_inside_a_seeded_scan_differ_by_step():
    def model():
        def step(c, _):
            noise = jax.random.normal(numpyro.prng_key())
            numpyro.deterministic("noise", noise)
            return c + noise, None

        numpyro.sample("end", dist.Normal(scan(step, 0.0, None, length=5)[0], 1.0))

    noise = ppl.from_numpyro(handlers.seed(model, rng_seed=1))().values({"end": 0.0})["noise"]
    assert len(set(noise.tolist())) == 5


def test_fixed_network_weights_are_no_untrained_network():
    def model(x):
        net = eqx_module("net", eqx.nn.Linear(3, 1, key=KEY))
        numpyro.sample("y", dist.Normal(jax.vmap(net)(x)[:, 0], 1.0))

    weights = eqx.filter(eqx.nn.Linear(3, 1, key=KEY), eqx.is_inexact_array)
    fixed = handlers.substitute(model, data={"net$params": weights})
    assert ppl.from_numpyro(fixed)(X).sites()["y"].shape == (20,)


# -- what is refused, and that refusing leaves no trace ------------------------------------------------------------------


def subsampled():
    with numpyro.plate("rows", 100, subsample_size=10):
        numpyro.sample("x", dist.Normal(0.0, 1.0))


def untrained():
    net = eqx_module("net", eqx.nn.Linear(3, 1, key=KEY))
    numpyro.sample("y", dist.Normal(net(jnp.ones(3)), 1.0))


def unseeded():
    numpyro.sample("x", dist.Normal(jax.random.normal(numpyro.prng_key()), 1.0))


def raw_vmap():
    jax.vmap(lambda m: numpyro.sample("x", dist.Normal(m, 1.0)))(jnp.ones(3))


def twice():
    numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.deterministic("x", 0.0)


def misshapen():
    numpyro.sample("x", dist.Normal(jnp.zeros(3), 1.0), obs=jnp.ones(4))


REFUSED = [
    (subsampled, "plate 'rows' subsamples 10 of 100"),
    (untrained, "the network 'net' has weights that are neither sampled nor trained"),
    (unseeded, "numpyro.handlers.seed"),
    (raw_vmap, "site 'x' lies inside a raw JAX transformation"),
    (twice, "two sites are named 'x'"),
    (misshapen, r"the data of site 'x' have shape \(4,\)"),
    (handlers.mask(lambda: random_walk(SERIES), mask=jnp.ones(12, bool)), "handlers.mask with an array stands around a scan"),
    (handlers.scale(lambda: random_walk(SERIES), scale=jnp.ones(12)), "handlers.scale with an array"),
    (handlers.condition(lambda: random_walk(SERIES), data={"z": jnp.ones(5)}), "gives 5 values of site 'z' to a scan of 12"),
]


@pytest.mark.parametrize("model, sentence", REFUSED, ids=[s[:40] for _, s in REFUSED])
def test_what_cannot_be_is_said(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        ppl.from_numpyro(model)().sites()
    assert _PYRO_STACK == []


def test_only_numpyro_models_are_accepted():
    with pytest.raises(ValueError, match="needs a NumPyro model, that is a function, but got int"):
        ppl.from_numpyro(3)
    with pytest.raises(ValueError, match="'subsampled' is a model of this language already"):
        ppl.from_numpyro(ppl.model(subsampled))


def test_numpyros_stack_is_put_back():
    program = ppl.from_numpyro(eight_schools)(SIGMA8, Y8)

    def fails(x):
        with numpyro.plate("rows", 3), handlers.mask(mask=True):
            numpyro.sample("x", dist.Normal(0.0, 1.0))
            raise RuntimeError("no")

    with handlers.trace() as outer, handlers.seed(rng_seed=0):
        before = list(_PYRO_STACK)
        program.simulate(KEY)
        with pytest.raises(RuntimeError, match="no"):
            ppl.from_numpyro(fails)(1.0).simulate(KEY)
        assert _PYRO_STACK == before
    assert not outer and _PYRO_STACK == []


def test_threads_take_turns():
    program = ppl.from_numpyro(random_walk)(SERIES)
    choices = {"drift": jnp.array(0.1), "e": jnp.ones((12, 2)), "z": jnp.arange(12.0)}
    expected = float(program.log_density(choices))
    found, errors = [], []

    def work():
        try:
            for _ in range(5):  # a new function each time, so that every call traces the model
                found.append(float(jax.jit(lambda c: program.log_density(c))(choices)))
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    np.testing.assert_allclose(found, [expected] * 20, rtol=1e-5)


# -- inference -----------------------------------------------------------------------------------------------------------


def test_eight_schools_by_nuts():
    posterior = inf.mcmc(centred(), inf.NUTS(), key=KEY, chains=2, draws=1000, warmup=500, progress=False)
    assert posterior["theta"].shape == (2, 1000, 8)  # NumPyro's deterministic sites are kept
    assert abs(posterior["mu"].mean() - 4.4) < 0.6  # 4.37, sd 3.3, for these priors
    assert abs(posterior["tau"].mean() - 3.6) < 0.7


@pytest.mark.filterwarnings("ignore:R-hat")  # short runs
@pytest.mark.parametrize("name", ["walk, reparameterised inside", "ordered logistic"])
def test_others_by_nuts(name):
    case = next(c for c in CASES if c.name == name)
    program = ppl.from_numpyro(case.model)(*case.args, **case.kwargs)
    posterior = inf.mcmc(program, inf.NUTS(), key=KEY, chains=2, draws=200, warmup=300, progress=False)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(posterior.draws))
    if name.startswith("walk"):
        assert abs(posterior["z"][..., -1].mean() - 1.0) < 0.1
