"""Every piece of bad input in the table gets this sentence: the site, what was expected, what came, what to do.

The sentences are compared whole, so that a change of wording is seen in review; `bad_input.py` and `bad_runs.py` hold what
is done wrong.
"""

import pytest

from .bad_input import CASES

TWICE = (
    "two sites are named '{}'. Every site of a program needs its own name; repeat a site with ppl.vmap or ppl.scan, and a "
    "whole model by sampling it under a name."
)
RAW = (
    "site 'inside' lies inside a raw JAX transformation (such as jax.vmap, jax.lax.scan, jax.lax.cond, jax.jit, jax.grad or "
    "jax.checkpoint), which the program cannot see into. Use ppl.vmap, ppl.scan, ppl.cond, ppl.switch, ppl.fori_loop or "
    "ppl.remat in its place: their signatures are the same. jax.jit goes around a whole program, not inside one."
)

SENTENCES = {
    "data: a misspelled site": (
        "the data name a site 'tehta', but the program has none of that name. Did you mean 'theta' or 'tau'?"
    ),
    "data: a name like no other": (
        "the data name a site 'qqq', but the program has none of that name. Known names: 'mu', 'tau', 'theta' and 'y'."
    ),
    "data: a misspelled site in a nested program": (
        "the data name a site 'sub.thta', but the program has none of that name. Did you mean "
        "'sub.theta' or 'sub.tau' or 'sub.y'?"
    ),
    "data: an array for a nested program": (
        "'sub' in the data is a nested program with sites 'sub.mu', 'sub.tau', 'sub.theta', "
        "'sub.size', 'sub.noise' and 'sub.y'; give a dict of its sites."
    ),
    "data: no dict": "the data must be a dict from site names to values, but got ndarray.",
    "data: a deterministic site": (
        "site 'size' cannot be given by the data: it is deterministic, computed from other sites; to "
        "set it use program.intervene({'size': value})."
    ),
    "data: a call": (
        "site 'noise' cannot be given by the data: it is a call; to replace its function use "
        "program.intervene({'noise': function})."
    ),
    "data: a factor": "site 'penalty' cannot be given by the data: it is a factor, which has no value.",
    "data: twice": (
        "site 'y' cannot be given by the data: it already has data. Leave it out, or take its data "
        "away with program.without('y') (if obs= gave them, in the model)."
    ),
    "data: twice, the first time in part": (
        "site 'y' cannot be given by the data: it already has data. Leave it out, or take its data "
        "away with program.without('y') (if obs= gave them, in the model)."
    ),
    "data: obs= and |": (
        "site 'y' cannot be given by the data: it already has data. Leave it out, or take its data "
        "away with program.without('y') (if obs= gave them, in the model)."
    ),
    "data: in the nested program and outside": (
        "site 'sub.y' cannot be given by the data: it already has data. Leave it out, or take its "
        "data away with program.without('sub.y') (if obs= gave them, in the model)."
    ),
    "data: an intervened site": "site 'mu' cannot be given by the data: it was set by an intervention.",
    "choices: one missing": "no value was given for site 'y'; every latent site needs one.",
    "choices: two missing": "no value was given for sites 'theta' and 'y'; every latent site needs one.",
    "choices: misspelled": "the choices name a site 'mux', but the program has none of that name. Did you mean 'mu'?",
    "choices: given data": (
        "site 'y' cannot be given by the choices: it already has data. Leave it out, or take its data "
        "away with program.without('y') (if obs= gave them, in the model)."
    ),
    "choices: a number": "the choices must be a dict from site names to values, but got float.",
    "constraints: misspelled": (
        "the constraints name a site 'thetas', but the program has none of that name. Did you mean 'theta'?"
    ),
    "constraints: wrong shape": (
        "site 'theta' has shape (3,) (in vmap[3]), but the constraints have shape (4,) for it. Give "
        "one value for each entry, axes of enclosing plates first, or change the model's arguments."
    ),
    "without: unknown": "site 'Y' has no data to take away. Known names: 'y'.",
    "without: a site that has no data": "site 'mu' has no data to take away. Known names: 'y'.",
    "intervene: unknown": (
        "the interventions name a site 'ta', but the program has none of that name. Did you mean 'tau' or 'theta'?"
    ),
    "intervene: no dict": "the interventions must be a dict from site names to values, but got list.",
    "intervene: a function for a site": (
        "the interventions give a function for 'theta', but no ppl.call has that name. Known names: 'noise'."
    ),
    "intervene: a value for a call": (
        "site 'noise' cannot be given by the interventions: it is a call; to replace its function use "
        "program.intervene({'noise': function})."
    ),
    "intervene: an unknown call": (
        "the interventions give a function for 'sub.nois', but no ppl.call has that name. Did you mean 'sub.noise'?"
    ),
    "reparam: unknown": "reparam names a site 'thet', but the program has none of that name. Did you mean 'theta'?",
    "reparam: no function": (
        "the reparameterisation of site 'theta' must be a function (name, distribution) -> value, "
        "such as ppl.NonCentered(), but got str."
    ),
    "reparam: a site with data": "site 'y' cannot be reparameterised: it is observed, and only latent sites can.",
    "reparam: a centring of wrong shape": (
        "the centring of site 'theta' has shape (2,), but the site has (3,). Give one number, or one for each entry."
    ),
    "reparam: partly, no location and scale": (
        "site 'tau' cannot be non-centred: HalfNormal is not a location-scale family. Write your own function "
        "(name, distribution) -> value."
    ),
    "reparam: no location and scale": (
        "site 'tau' cannot be non-centred: HalfNormal is not a location-scale family. Write your own "
        "function (name, distribution) -> value."
    ),
    "reparam: no dict": "the reparameterisations must be a dict from site names to values, but got str.",
    "data: too long": (
        "site 'y' has shape (3,), but the data have shape (4,) for it. Give one value for each entry, "
        "axes of enclosing plates first, or change the model's arguments."
    ),
    "data: a scalar for a plate": (
        "site 'theta' has shape (3,) (in vmap[3]), but the data have shape () for it. Give one value "
        "for each entry, axes of enclosing plates first, or change the model's arguments."
    ),
    "data: text": ("the value of site 'mu' in the data cannot be used: it has dtype <U4, but numbers were expected."),
    "data: None": ("the value of site 'mu' in the data cannot be used: it has dtype object, but numbers were expected."),
    "data: ragged": (
        "the value of site 'y' in the data cannot be used: its rows differ in length, but an array was expected."
    ),
    "data: complex": (
        "the value of site 'mu' in the data cannot be used: it has dtype complex128, but numbers were expected."
    ),
    "data: NaN": (
        "the data of site 'y' hold NaN, first at index 1 (2 of 3). If these are missing values, pass "
        "numpy.ma.masked_invalid(data): the missing entries then become latent."
    ),
    "data: NaN written in the model": (
        "the data of site 'y' hold NaN, first at index 1 (1 of 2). If these are missing values, pass "
        "numpy.ma.masked_invalid(data): the missing entries then become latent."
    ),
    "data: negative for a positive site": (
        "the data of site 'tau' lie outside the support of HalfNormal (positive): -1.0. Check the "
        "data, or choose a distribution with that support."
    ),
    "data: a fraction for a count": (
        "the data of site 'n' lie outside the support of Poisson (integer nonnegative), first at "
        "index 2: 2.5. Check the data, or choose a distribution with that support."
    ),
    "data: a negative count": (
        "the data of site 'n' lie outside the support of Poisson (integer nonnegative), first at "
        "index 3: -1. Check the data, or choose a distribution with that support."
    ),
    "data: outside, written in the model": (
        "the data of site 'y' lie outside the support of Bernoulli (boolean), first at index 1: 2. "
        "Check the data, or choose a distribution with that support."
    ),
    "data: not a simplex": (
        "the data of site 'p' lie outside the support of Dirichlet (simplex), first at index 0: [0.5 "
        "0.5 0.5]. Check the data, or choose a distribution with that support."
    ),
    "data: part of an event": (
        "the data of site 'p' are missing part of an event: the last axis of Dirichlet is one value. "
        "Give all of an event, or none of it."
    ),
    "data: infinite": (
        "the data of site 'mu' lie outside the support of Normal (real): inf. Check the data, or "
        "choose a distribution with that support."
    ),
    "obs=: wrong shape": (
        "the data of site 'y' have shape (4,), but its distribution Normal has shape (3,). They must "
        "agree, or the distribution be repeated over the data."
    ),
    "obs=: text": "the data of site 'y' cannot be used: it has dtype <U4, but numbers were expected.",
    "obs=: for a program": "site 'sub' is a program: give it data with sample('sub', program | data), not with obs=.",
    "sample: outside a model": (
        "ppl.sample('x', ...) was called outside a running program. Put it in a function decorated "
        "with @ppl.model, call that to get a program, and ask the program, e.g. "
        "program.simulate(key)."
    ),
    "factor: outside a model": (
        "ppl.factor('f', ...) was called outside a running program. Put it in a function decorated "
        "with @ppl.model, call that to get a program, and ask the program, e.g. "
        "program.simulate(key)."
    ),
    "sample: a class": "sample('x', ...) got the class Normal. Give its parameters: Normal(...).",
    "sample: a model": (
        "sample('x', ...) got the model 'schools' itself. Call it with its arguments to make a "
        "program: sample('x', schools(...))."
    ),
    "sample: a number": (
        "sample('x', ...) got float, but a distribution (such as dist.Normal(0., 1.)) or a program was expected."
    ),
    "sample: no name": "a site's name must be a non-empty string, but sample got ''.",
    "sample: the arguments swapped": (
        "ppl.sample takes a name and then a distribution, as in sample('x', dist.Normal(0.0, 1.0)), "
        "but the name it got is of type Normal."
    ),
    "sample: one name twice": TWICE.format("x"),
    "sample: one name twice in a nested program": TWICE.format("sub.x"),
    "sample: one name in and after a plate": TWICE.format("x"),
    "sample: one name in a Python loop": TWICE.format("x"),
    "sample: two names of one checksum": (
        "sites 'plumless' and 'buckeroo' would share their random numbers, because the checksums of "
        "their names happen to agree. Rename one of them."
    ),
    "sample: one address twice": (
        "two sites have the address 'a.x': one is named so, one lies in a nested program. Rename one."
    ),
    "deterministic: a dict": (
        "deterministic site 'parts' must be one array of numbers, but got dict. Name each part by itself."
    ),
    "deterministic: text": "deterministic site 'label' must be an array of numbers, but got 'high'.",
    "factor: None": "factor site 'f' must be an array of numbers, but got None.",
    "Python if": (
        "the model branches in Python (if, while, and, or) on a random value, which is not known "
        "while the program is traced. Use ppl.cond or ppl.switch, or jnp.where."
    ),
    "Python if, under jit": (
        "the model branches in Python (if, while, and, or) on a random value, which is not known "
        "while the program is traced. Use ppl.cond or ppl.switch, or jnp.where."
    ),
    "Python range": (
        "the model needs a random value as a Python integer (range, shape, list index), which is not "
        "known while the program is traced. Sizes and bounds must come from the model's arguments; "
        "index arrays, not lists."
    ),
    "Python float": (
        "the model needs a random value as a Python number (int, float, a shape), which is not known "
        "while the program is traced. Sizes must come from the model's arguments; use jax.numpy for "
        "arithmetic."
    ),
    "NumPy on a random value": (
        "the model hands a random value to NumPy, which cannot be traced. Use jax.numpy, or jax.pure_callback."
    ),
    "a random mask": (
        "the model selects entries by a random mask, so that their number is random. Use jnp.where, which keeps the shape."
    ),
    "branches: a site of two shapes": (
        "site 'x' has shape (2,) in one branch of ppl.cond or ppl.switch and () in another. Give the "
        "sites different names, or the same shape."
    ),
    "branches: a site and a program": (
        "site 'x' is a nested program in one branch of ppl.cond or ppl.switch and a single value in "
        "another. Give the sites different names."
    ),
    "branches: data in one": (
        "site 'x' has kind observed in one branch of ppl.cond or ppl.switch and latent in another. "
        "Give the sites different names, or the same kind."
    ),
    "branches: discrete in one": (
        "site 'x' has type discrete in one branch of ppl.cond or ppl.switch and continuous in "
        "another. Give the sites different names, or the same type."
    ),
    "branches: results of two shapes": (
        "the branches of ppl.cond or ppl.switch must return values of the same structure and shapes, "
        "but <lambda> returns float32[2] and normal returns float32[]."
    ),
    "scan: lengths differ": "ppl.scan needs one length, from `length` or the leading axes of `xs`, but found [3, 4].",
    "scan: xs differ": "ppl.scan needs one length, from `length` or the leading axes of `xs`, but found [2, 3].",
    "scan: no length": "ppl.scan needs one length, from `length` or the leading axes of `xs`, but found none.",
    "scan: along a scalar": "ppl.scan walks along the leading axis of every array in `xs`, but one of them is a scalar.",
    "fori_loop: a random bound": (
        "ppl.fori_loop inside a model needs bounds that are Python integers, for they say how many "
        "choices there are. Run to a fixed bound, and leave out the rest with ppl.cond or jnp.where."
    ),
    "raw jax.vmap": RAW,
    "raw jax.jit": RAW,
    "raw jax.grad": RAW,
    "raw jax.checkpoint": RAW,
    "raw jax.lax.scan": RAW,
    "raw jax.lax.cond": RAW,
    "raw jax.vmap around ppl.vmap": RAW,
    "simulate: a number as key": "simulate needs a typed random key such as jax.random.key(0), but got int 0.",
    "simulate: an old key": (
        "simulate needs a typed random key such as jax.random.key(0), but got an array of dtype uint32 and shape (2,)."
    ),
    "simulate: many keys": (
        "simulate needs one random key, but got an array of keys of shape (3,). Map over it with "
        "jax.vmap, or pass one of them."
    ),
    "predict: neither draws nor num": "predict needs either draws, or num for draws from the prior.",
    "predict: no draws wanted": "predict needs num of at least 1, but got 0.",
    "predict: draws of another program": (
        "no draw belongs to a latent site of the program: it has 'mu', 'tau', 'theta', 'size', "
        "'noise' and 'y', the draws 'alpha'."
    ),
    "predict: draws of two sizes": "draws of site 'tau' have leading axes (4,), but others have (5,).",
    "retval: of a trace from vmap": "this trace has been through a JAX transformation: use program.retval(trace.choices).",
    "target: a model": "a program or a target was expected, but got Model. Call the model with its arguments first.",
    "target: a function": (
        "a program or a target was expected, but got PjitFunction. Use Target.from_log_density for a function."
    ),
    "target: nothing latent": "the program has no latent site: all its choices are data, so there is nothing to infer.",
    "target: a site in one branch": (
        "site 'x' exists in only one branch of a ppl.cond or ppl.switch, so it has no density in the "
        "others. Sample it before the branch, or in every branch under that name."
    ),
    "target: a position of wrong length": "a position of this target has shape (8,), but got (3,).",
    "target: missing entries that jit hides": (
        "which entries of site 'y' are missing is not known inside a JAX transformation, so the "
        "dimension of the target is not either. Make the Target outside, and pass it as an argument."
    ),
    "target: unconstrain with a site missing": "no value was given for sites 'tau' and 'theta'; every latent site needs one.",
    "from_log_density: no scalar": "the log density must be a scalar, but the function returned shape (3,). Sum it.",
    "from_log_density: unknown support": "supports name 'b', which the example does not have. It has 'a'.",
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence(name):
    with pytest.raises(ValueError) as caught:
        CASES[name]()
    # JAX's own first line follows where it says more; it is not ours to fix
    ours = str(caught.value).partition(" Values that come from outside through jax.jit")[0]
    assert ours == SENTENCES[name]


def test_every_case_has_a_sentence():
    assert SENTENCES.keys() == CASES.keys() and len(CASES) >= 45


def test_nothing_is_lost_by_a_mistake():
    """After every mistake of the table the next program runs as before: no interpreter is left behind."""
    import jax

    from .bad_input import schools

    before = schools().simulate(jax.random.key(0))
    for mistake in CASES.values():
        with pytest.raises(ValueError):
            mistake()
    after = schools().simulate(jax.random.key(0))
    assert float(before.log_density) == float(after.log_density)
