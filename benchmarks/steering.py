"""Steering a language model: sequential Monte Carlo against searches, at equal tokens, where the posterior is known exactly.

    python -m benchmarks.steering [--seeds 20] [--write]

The model is a random recurrent network of 8 tokens, sentences have at most 6 of them and may end before, so all 262,144 are
enumerated. The target is the model's law times exp(score). The score is a random sum over pairs of tokens, with a verdict on
the whole that its parts do not show ("honest" scores: no verdict; "misleading" ones: a verdict against what pleased early).
A budget is a number of tokens evaluated: calls of the network for one prefix. Finished sentences cost nothing, and the first
token is known without a call. Repeated prefixes are counted as often as they are evaluated, for the filters; the searches
remember what they evaluated. Looking one step ahead costs none: the next log probabilities are known. For particle Gibbs the
length of the sentence that is kept stands for those of all particles. Measured by method and budget, over seeds:

- `score`: of the answer, the best sentence that was finished, less the best there is (0: found).
- `TV`: total variation to the exact law of the *first and the last token* by the weighted sentences; searches have none.
- `log Z`: bias and standard deviation of log evidence.
- `tokens`: evaluated in fact.

Searches rank prefixes by log p + score: beam search keeps the best prefixes of a length; A* opens the best prefix of all, with
the score so far and no bound on what is to come (Chatziveroglou, 2025, arXiv:2505.13672, has a reward model in its place).
"""

import argparse
import heapq
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
from benchmarks.report import machine, table, write
from inference.smc.conditional import conditional_smc, filtered_path, walk
from inference.smc.entropic import entropic_filter
from inference.smc.renewal import Traced
from inference.steering import LookAhead, Stateful, language_model

KINDS, LENGTH, WIDTH, END = 8, 6, 8, 0
BUDGETS = (100, 400, 1600)
rng = np.random.default_rng(7)
NET = [jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((WIDTH, WIDTH), (KINDS, WIDTH), (WIDTH, KINDS))]
PAIRS = jnp.asarray(1.2 * rng.normal(size=(KINDS, KINDS)), jnp.float32)
PLEASES = jnp.asarray(rng.normal(size=KINDS), jnp.float32)
SENTENCES = np.array(list(itertools.product(range(KINDS), repeat=LENGTH)), np.int32)


def after(hidden, token):
    mix, embed, out = NET
    hidden = jnp.tanh(mix @ hidden + embed[token])
    logits = 1.3 * hidden @ out
    return jax.nn.log_softmax(logits.at[END].add(-1.0)), hidden


FIRST = (jax.nn.log_softmax(jnp.zeros(KINDS).at[END].set(-4.0)), jnp.zeros(WIDTH))


def parts(tokens, num):
    """Pairs of neighbours."""
    return jnp.sum(jnp.where(jnp.arange(1, LENGTH) < num, PAIRS[tokens[:-1], tokens[1:]], 0.0))


def early(tokens, num):
    """What pleases in the first half."""
    return 1.5 * jnp.sum(jnp.where(jnp.arange(LENGTH) < jnp.minimum(num, LENGTH // 2), PLEASES[tokens], 0.0))


def whole(tokens, num):
    return parts(tokens, num) - early(tokens, num)


SCORES = {
    "honest": (parts, None),  # the score of a prefix is the hint
    "misleading": (whole, lambda tokens, num: parts(tokens, num) + early(tokens, num)),
}


def counted(sentences):
    """(num,) tokens of each, its end counted."""
    ended = np.cumsum(sentences == END, axis=-1) > 0
    return np.minimum(np.sum(~ended, axis=-1) + 1, LENGTH)


@partial(jax.jit, static_argnums=0)
def weigh_all(score, sentences):
    """log p and score of (num, LENGTH) sentences; -inf where something follows the end."""

    def one(tokens):
        def say(so_far, token):
            (log_probs, hidden), total, ended, num = so_far
            total = total + jnp.where(ended, jnp.where(token == END, 0.0, -jnp.inf), log_probs[token])
            return (after(hidden, token), total, ended | (token == END), num + ~ended), None

        (_, total, _, num), _ = jax.lax.scan(say, (FIRST, 0.0, jnp.array(False), 0), tokens)
        said = jnp.where(jnp.arange(LENGTH) < num, tokens, 0)
        return total, score(said, num)

    return jax.lax.map(one, sentences, batch_size=1 << 14)


class Truth:
    """All there is to know about a target."""

    def __init__(self, score):
        log_p, scores = (np.asarray(x, float) for x in weigh_all(score, jnp.asarray(SENTENCES)))
        joint = np.where(np.isfinite(log_p), log_p + scores, -np.inf)
        self.log_evidence = float(np.logaddexp.reduce(joint))
        self.law = np.exp(joint - self.log_evidence)
        self.log_p, self.scores, self.best = log_p, scores, scores[np.isfinite(log_p)].max()
        self.both = self.shares(SENTENCES, self.law)

    def index(self, sentences):
        return sentences @ (KINDS ** np.arange(LENGTH)[::-1])

    def shares(self, sentences, weights):
        pair = sentences[:, 0] * KINDS + sentences[:, -1]
        return np.bincount(pair, weights=weights, minlength=KINDS**2)

    def off(self, sentences, weights) -> float:
        return 0.5 * float(np.abs(self.shares(sentences, weights / weights.sum()) - self.both).sum())


# -- filters ----------------------------------------------------------------------------------------------------------------


def filtered(method, particles: int):
    """A function of a path and keys: of each run sentences, their weights, log evidence, and tokens evaluated."""

    @jax.jit
    def run(path, stage, keys):
        def one(key):
            last, asked = walk(stage, path, key, particles, going)
            population = last.population
            return population.particles.carry.tokens, population.weights, population.log_evidence, jnp.sum(asked[:-1])

        return jax.lax.map(one, keys)

    return lambda path, keys: list(zip(*run(path, method.stage, keys), strict=True))


def going(population):
    """How many sentences have to be evaluated to go on."""
    return jnp.sum(~population.particles.carry.ended)


def gibbs(path, key, particles: int, budget: int):
    """Sentences of a chain of conditional filters, the first of which has no sentence given; until the budget is spent."""
    method = inf.particle_filter()
    if ("gibbs", particles, path.twist) not in RUNS:
        again = jax.jit(lambda path, key, tokens: conditional_smc(
            key, path, method, {"token": tokens}, particles=particles, renewal=Traced()
        ).choices["token"])  # fmt: skip
        first = jax.jit(lambda path, key: filtered_path(key, path, method, particles=particles).choices["token"])
        RUNS["gibbs", particles, path.twist] = first, again
    first, again = RUNS["gibbs", particles, path.twist]
    tokens, out, spent = first(path, key), [], 0
    while spent < budget:
        out.append(np.asarray(tokens))
        spent += particles * max(1, int(counted(np.asarray(tokens)) - 1))  # its length stands for that of all
        tokens = again(path, jax.random.fold_in(key, len(out)), tokens)
    return np.array(out), np.ones(len(out)), np.nan, spent


RUNS: dict = {}


# -- searches ---------------------------------------------------------------------------------------------------------------


class Asked:
    """The model for searches: log probabilities after a prefix. A search pays once for each."""

    table = {(): (np.asarray(FIRST[0]), FIRST[1])}  # of all searches: to save the time of this benchmark

    def __init__(self, hint, score):
        self.seen = {()}
        self.value = {True: VALUES(score), False: VALUES(hint)}

    def after(self, prefix):
        if prefix not in self.table:
            log_probs, hidden = ONE(self.table[prefix[:-1]][1], prefix[-1])
            self.table[prefix] = np.asarray(log_probs), hidden
        self.seen.add(prefix)
        return self.table[prefix][0]

    @property
    def spent(self) -> int:
        return len(self.seen) - 1  # the first token is known

    def rank(self, prefix, log_p):
        return log_p + self.value[done(prefix)](prefix)


ONE = jax.jit(after)


def done(prefix) -> bool:
    return len(prefix) == LENGTH or (len(prefix) > 0 and prefix[-1] == END)


class VALUES:
    """A score as a function of tuples, remembered."""

    tables: dict = {}

    def __init__(self, score):
        if score not in self.tables:
            self.tables[score] = {}, jax.jit(jax.vmap(score))
        self.seen, self.fn = self.tables[score]

    def __call__(self, prefix):
        if prefix not in self.seen:
            near = [(*prefix[:-1], k) for k in range(KINDS)] if prefix else [prefix]
            padded = np.array([[*p, *[0] * (LENGTH - len(p))] for p in near], np.int32)
            self.seen.update(zip(near, np.asarray(self.fn(padded, np.full(len(near), len(prefix)))), strict=True))
        return float(self.seen[prefix])


def a_star(asked: Asked, budget: int):
    """Open the best prefix of all until the budget is spent; all finished ones seen."""
    heap, finished = [(0.0, (), 0.0)], []
    while heap and asked.spent < budget:
        _, prefix, log_p = heapq.heappop(heap)
        for token, more in enumerate(asked.after(prefix)):
            new = (*prefix, token)
            if done(new):
                finished.append(new)
            else:
                heapq.heappush(heap, (-asked.rank(new, log_p + more), new, log_p + more))
    return finished


def beam(asked: Asked, width: int):
    """The best `width` prefixes of every length."""
    kept, finished = [((), 0.0)], []
    while kept:
        grown = [((*prefix, k), log_p + more) for prefix, log_p in kept for k, more in enumerate(asked.after(prefix))]
        grown = sorted(grown, key=lambda x: -asked.rank(*x))[:width]
        finished += [prefix for prefix, _ in grown if done(prefix)]
        kept = [x for x in grown if not done(x[0])]
    return finished


def padded(sentences):
    return np.array([[*p, *[END] * (LENGTH - len(p))] for p in sentences], np.int32)


# -- the table --------------------------------------------------------------------------------------------------------------


def compare(name: str, seeds: int) -> list[tuple]:
    score, hint = SCORES[name]
    truth = Truth(score)
    speaker = Stateful(after, FIRST)
    program = language_model(speaker, LENGTH, score=score, hint=hint, end=END)
    length = float(truth.law @ (counted(SENTENCES) - 1))  # tokens of a sentence that are evaluated, in the posterior
    blind = language_model(speaker, LENGTH, score=score, hint=lambda tokens, num: 0.0, end=END)
    filters = {
        "best-of-N": (blind, inf.particle_filter(resample=inf.When(inf.Systematic(), ess=0.0))),
        "particle filter": (program, inf.particle_filter()),
        "particle filter, ePF": (program, entropic_filter()),
        "particle filter, look-ahead": (program, inf.particle_filter(twist=LookAhead(8))),
    }
    rows = []
    for budget in BUDGETS:
        keys = jax.random.split(jax.random.key(0), seeds)
        for method_name, (own, method) in filters.items():
            path = method.way.of(own)
            run = filtered(method, max(4, int(budget / length)))
            rows.append(row(method_name, budget, truth, run(path, keys)))
        path = inf.particle_filter().way.of(program)
        found = [gibbs(path, key, max(4, int(budget / length) // 10), budget) for key in keys]
        rows.append(row("particle Gibbs", budget, truth, found))
        asked = Asked(score if hint is None else hint, score)
        found = padded(a_star(asked, budget))
        rows.append(row("A*", budget, truth, [(found, None, np.nan, asked.spent)]))
        for width in (int(1.2**i) + i for i in itertools.count()):
            asked = Asked(score if hint is None else hint, score)
            wider = padded(beam(asked, width))
            if asked.spent > budget or width > budget:
                break
            found, spent = wider, asked.spent
        rows.append(row("beam search", budget, truth, [(found, None, np.nan, spent)]))
    return rows


def row(name: str, budget: int, truth: Truth, runs) -> tuple:
    runs = [(np.asarray(s), w if w is None else np.asarray(w, float), float(z), float(n)) for s, w, z, n in runs]
    short = np.array([truth.scores[truth.index(s)].max() - truth.best for s, *_ in runs])
    off = "" if runs[0][1] is None else f"{np.mean([truth.off(s, w) for s, w, *_ in runs]):.3f}"
    errors = np.array([z for _, _, z, _ in runs]) - truth.log_evidence
    evidence = "" if np.isnan(errors).any() else f"{errors.mean():+.3f}, {errors.std():.3f}"
    error = f" +- {short.std() / np.sqrt(len(short)):.2f}" if len(short) > 1 else ""
    made = budget, name, f"{short.mean():.2f}{error}", off, evidence, f"{np.mean([n for *_, n in runs]):.0f}"
    print(*made, sep=" | ", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/steering.md")
    args = parser.parse_args()
    header = ("budget", "", "score of the answer", "TV", "log Z: bias, sd", "tokens")
    parts = []
    for name in SCORES:
        parts += [f"Scores of prefixes are {name}:", table(header, compare(name, args.seeds))]
    if args.write:
        note = (
            f"A random recurrent network, {KINDS} tokens, sentences of at most {LENGTH}; {args.seeds} seeds (searches are "
            "deterministic); float32. The score of the answer is that of the best sentence finished, less the best of all."
        )
        write("steering", "Steering a language model at equal tokens", f"{note} {machine(('jax',))}", *parts)


if __name__ == "__main__":
    main()
