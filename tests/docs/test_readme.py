"""The README says what is: its program runs, and what it shows of it is what is printed."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


@pytest.fixture(scope="module")
def names() -> dict:
    """What the README's first program defines, with fewer draws."""
    code = block("python").replace("draws=1000", "draws=200, warmup=200, progress=False")
    out: dict = {}
    exec(compile(code, "README.md", "exec"), out)
    return out


def test_eight_schools_in_fifteen_lines():
    code = [line for line in block("python").splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 15


def test_the_table_and_the_graph_are_those_printed(names):
    assert block("text").strip() == str(names["program"]).strip()
    assert block("mermaid").strip() == names["program"].graph().strip()


def test_the_summary_has_its_columns(names):
    text = str(names["posterior"].summary())
    for word in ("mean", "sd", "ess_bulk", "ess_tail", "r_hat", "divergences"):
        assert word in text


def test_the_further_lines_run(names, tmp_path, monkeypatch):
    import jax
    import numpy as np

    monkeypatch.chdir(tmp_path)
    code = block("python", 1).replace("ppl.from_numpyro(model)(*args)", "ppl.from_numpyro(lambda: None)")
    key = jax.random.key(1)
    exec(
        compile(code, "README.md", "exec"),
        names
        | {
            "np": np,
            "key": key,
            "choices": names["program"].simulate(key).choices,
            "y_with_nan": np.where(np.arange(8) == 2, np.nan, names["y"]),
            "new_sigma": names["sigma"][:3],
        },
    )
    assert (tmp_path / "schools.npz").exists()


def test_the_lines_about_populations_run(names):
    import jax
    import numpy as np

    code = block("python", 2).replace("10_000", "500").replace("particles=500", "particles=100, progress=False")
    code = code.replace("tempering(), key=key", "tempering(moves=3), key=key, particles=200, progress=False")
    series = np.random.default_rng(0).normal(size=100).cumsum()
    out = names | {"key": jax.random.key(1), "series": series}
    exec(compile(code, "README.md", "exec"), out)
    assert out["run"]["z"].shape[-1] == 100
    # three ways to one number would be more; these two see the same program
    off = abs(out["melted"].log_evidence - out["nested"].log_evidence)
    assert off < 5 * np.hypot(out["melted"].log_evidence_error, out["nested"].log_evidence_error)


def test_the_lines_about_objectives_run(names):
    import jax

    code = block("python", 3).replace("steps=2000", "steps=500, progress=False")
    out = names | {"key": jax.random.key(1)}
    exec(compile(code, "README.md", "exec"), out)
    assert out["exact"].log_evidence > out["fit"].value - 0.5  # a bound is below, but for its noise
    assert "evidence" in repr(out["rough"])


@pytest.mark.slow
def test_the_lines_about_costly_likelihoods_run(names):
    import jax
    import numpy as np

    def discharge(current, diffusion):
        t = np.linspace(0.0, 1.0, 40)
        return 4.0 - 0.2 * t / current - 0.3 * np.sqrt(t / diffusion)

    code = (
        block("python", 4).replace("budget=24", "budget=16, progress=False").replace("calls=1000", "calls=600, progress=False")
    )
    voltages = discharge(2.0, 2.0) + 0.003 * np.random.default_rng(0).normal(size=40)
    out = names | {"key": jax.random.key(1), "discharge": discharge, "voltages": voltages}
    exec(compile(code, "README.md", "exec"), out)
    ledger = out["exact"].ledger
    assert out["solver"].counts.run <= ledger.total <= 616 and ledger.guarantee.startswith("Consistent")
    assert abs(out["exact"]["current"].mean() - 2.0) < 1.0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target
