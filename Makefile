# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test check lint types imports docs gpu wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(READY)  ## walk one network through rotated digits and record the run in MLflow
	$(BIN)/cl-manifold run

test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

check: lint types imports docs test  ## lint, types, import rules, docs and tests: what must pass before a commit

lint: $(READY)  ## format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)  ## check types
	$(BIN)/pyright

imports: $(READY)  ## check who may import whom
	$(BIN)/lint-imports

docs: $(READY)  ## build these pages into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

gpu: $(READY)  ## what needs a GPU: tests, and a benchmark that writes gpu.json
	$(BIN)/python -m pytest -m gpu tests/gpu
	$(BIN)/python -m tests.gpu.benchmark gpu.json

wheel: $(READY)  ## build a wheel into dist/
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:  ## remove the environment and caches; runs in mlruns/ stay
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# compat mode leaves one static path, which type checkers of other projects can follow
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cl-manifold needs Python 3.11 or newer; run make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]' --config-settings editable_mode=compat
	touch $@
