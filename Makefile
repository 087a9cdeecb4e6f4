# `make demo` and `make test` work on a fresh machine with Python >= 3.11 and make; everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test chaos check format docs lock clean
help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("make PYTHON=python3.12 …: 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

demo: $(READY) ## real recorded mainnet trades in your browser, no network needed
	$(BIN)/headrace demo

test: $(READY) ## all tests, against real servers on this machine
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

chaos: $(READY) ## kill and freeze order workers, then count: nothing lost, nothing twice (the control must fail)
	$(BIN)/headrace bench orders_chaos --store sqlite
	$(BIN)/headrace bench orders_chaos --store postgres
	! $(BIN)/headrace bench orders_chaos --orders 300 --kills 10 --stops 2 --engine naive

check: $(READY) ## format, lint, types and layers, in under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the sources in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

lock: ## resolve the dependencies anew into requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade --group dev --group docs pyproject.toml -o requirements-dev.lock

clean: ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache docs/_build .coverage
