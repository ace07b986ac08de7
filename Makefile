# Every target makes .venv on its first use and stamps it, so that later runs are offline and instant.
#   make demo          eight schools: summary, model graph, eight_schools.png
#   make test          the tests            (ARGS="tests/ppl -k scan", SLOW_SHARE=2/5 adds a fifth of the slow ones)
#   make test-slow     the slow statistical tests only, all of them unless SLOW_SHARE is given
#   make lint types    ruff; pyright        (make format rewrites the files)
#   make docs          the HTML documentation, tutorials executed  (EVIDENTIA_DOCS_FAST=1: small settings)
#   make wheel         dist/evidentia-*.whl
#   make clean         removes everything that these targets made

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
SLOW_SHARE ?=

BIN := .venv/bin
# A stamp carries the check sum of pyproject.toml: another checksum, another installation; nothing else causes one.
SUM := $(shell cksum < pyproject.toml | cut -d' ' -f1)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 40

.PHONY: demo test test-slow lint format types docs wheel venv clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

demo: .venv/installed-demo-$(SUM)
	$(BIN)/python docs/demo/eight_schools.py

test: .venv/installed-test-$(SUM)
	$(PYTEST) $(if $(SLOW_SHARE),--slow-share $(SLOW_SHARE)) $(ARGS)

test-slow: .venv/installed-test-$(SUM)
	$(PYTEST) -m slow $(if $(SLOW_SHARE),--slow-share $(SLOW_SHARE),--slow) $(ARGS)

lint: .venv/installed-dev-$(SUM)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/installed-dev-$(SUM)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: .venv/installed-dev-$(SUM) .venv/installed-test-$(SUM)
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

# A worker takes neighbouring pages, and tutorials are neighbours: with fewer workers one of them would run them all.
docs: .venv/installed-docs-$(SUM)
	$(BIN)/python -m sphinx -W --keep-going -j 12 -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheel: .venv/installed-dev-$(SUM)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel --outdir dist

venv: .venv/installed-demo-$(SUM) .venv/installed-test-$(SUM) .venv/installed-docs-$(SUM) .venv/installed-dev-$(SUM)

# Building without isolation keeps re-installation offline; hatchling is all that it needs.
.venv/installed-%-$(SUM): | .venv/created
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[$*]'
	@rm -f .venv/installed-$*-*
	@touch $@

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Evidentia needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12 ..."; exit 1; }
	@rm -rf .venv
	@echo "making .venv and installing; this happens once and takes a minute or two"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet 'hatchling>=1.26'
	@touch $@

clean:
	rm -rf .venv dist docs/_build eight_schools.png .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
