"""Sphinx configuration. ``make docs`` builds with warnings as errors and executes every tutorial."""

import ast
import importlib.metadata
import os
import re
from pathlib import Path

project = "Evidentia"
author = "The Evidentia developers"
copyright = "The Evidentia developers"  # noqa: A001 (Sphinx's own name)
release = importlib.metadata.version("evidentia")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build", "demo", "**/data", "**/.ipynb_checkpoints"]

# Tutorials are Markdown notebooks, executed at every build. They ask EVIDENTIA_DOCS_FAST themselves for their sizes. At small
# sizes most of what they cost is compilation, which takes half the time with these flags (as in tests/conftest.py).
if os.environ.get("EVIDENTIA_DOCS_FAST") and "_level=" not in os.environ.get("XLA_FLAGS", ""):
    flags = "--xla_backend_optimization_level=0"
    if importlib.metadata.version("jaxlib") < "0.11":
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "deflist", "dollarmath", "colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3

# Docstrings: a name in single backticks is code, and signatures show the defaults as they are written.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "Evidentia"
html_static_path = ["_static"]
html_css_files = ["evidentia.css"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5f8b",
        "color-brand-content": "#1f5f8b",
        "font-stack": "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
        "font-stack--monospace": "'JetBrains Mono', ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
    },
    "dark_css_variables": {"color-brand-primary": "#7fc1e8", "color-brand-content": "#7fc1e8"},
    "sidebar_hide_name": False,
}

# For the kernels that execute the tutorials.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # a notebook's progress bar, which nobody sees


def _prose(line):
    """A line of prose, of which `(n, *out)` and `|error|` are words, not emphasis and names to be filled in."""
    parts = line.split("`")
    for i in range(0, len(parts), 2):  # between backticks is code
        parts[i] = re.sub(r"(?<![*\w])\*(?=\w)(?![^*]*\w\*)", r"\\*", parts[i])
        if not line.lstrip().startswith("| "):  # a row of a table
            parts[i] = re.sub(r"\|(?=\S)([^|]*\S)\|", r"\\|\1\\|", parts[i])
    return "`".join(parts)


def _code(app, what, name, obj, options, lines):
    """Docstrings mark code as Markdown does, with fences or by four spaces after a blank line; Sphinx wants directives."""
    if what == "module":  # read as written: Sphinx has taken the code's indentation for the docstring's own
        lines[:] = (ast.get_docstring(ast.parse(Path(obj.__file__).read_text()), clean=False) or "").splitlines()
    out, fence, before, block = [], None, "", False  # before: the last line with words on it
    for i, line in enumerate(lines):
        stripped = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        if stripped.startswith("```"):
            fence = indent if fence is None else None
            out += [f"{indent}.. code-block:: {stripped[3:] or 'text'}", ""] if fence is not None else [""]
        elif fence is not None:
            out.append(f"    {line}".rstrip())
        else:
            begins = indent.startswith("    ") and not lines[i - 1].strip()
            block = block and (not stripped or indent.startswith("    "))
            if begins and before and not before.startswith((" ", "- ", "* ")) and not before.endswith(":"):
                out += [".. code-block:: python", ""]
                block = True
            out.append(line if block else _prose(line))
        before = line if stripped else before
    lines[:] = out


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _code, priority=400)  # before napoleon reads the sections
