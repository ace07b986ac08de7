"""The code on how-to pages runs, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "how_to"


def code(page: str) -> str:
    """The Python on a page, one block after another; runs make no noise."""
    blocks = re.findall(r"^```python\n(.*?)^```", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)
    return "\n".join(blocks).replace("inf.NUTS(),", "inf.NUTS(), progress=False,")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::inference.SamplingWarning")
@pytest.mark.parametrize("page", ["numpyro.md", "neural_networks.md", "many_chains.md", "host_functions.md"])
def test_the_page_runs(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pages write files
    space: dict = {}
    exec(compile(code(page), page, "exec"), space)
    assert space["posterior"].shape[0] >= 2
    assert "Program" in capsys.readouterr().out
