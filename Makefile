# `make demo` and `make test` work on a fresh machine with Python >= 3.11 and make; everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FIT := import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Headrace needs Python 3.11 or newer, and this is %d.%d: make PYTHON=/path/to/python3.11 ..." % v[:2])
# Each test that starts the command line would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: help demo fast test test-cores test-long coverage packages attack fuzz chaos bench instructions check format docs messages lock upgrade clean
help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# Two environments in one folder: what the demo needs; what tests, checks and docs need besides.
define install
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) on PATH: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c '$(FIT)'
	@$(PYTHON) tools/install.py --venv $(VENV) $(1)
endef

$(VENV)/.demo: requirements.lock pyproject.toml
	$(call install,requirements.lock)
	@touch $@

$(VENV)/.dev: requirements.lock requirements-dev.lock tests/install/pip.lock pyproject.toml
	$(call install,requirements.lock requirements-dev.lock --fetch tests/install/pip.lock)
	@touch $(VENV)/.demo $@

demo: $(VENV)/.demo ## real recorded mainnet trades in your browser, no network needed
	$(BIN)/headrace demo

# A file's tests stay in one process, in their order: servers that they share are started once.
# PROFILE=thorough tries all examples of Hypothesis, in place of a quarter.
test: $(VENV)/.dev ## all tests but the long ones, against real servers on this machine, in some ten minutes on two cores
	$(BIN)/python -m pytest -n auto --dist loadfile --hypothesis-profile=$(or $(PROFILE),quick)

test-long: $(VENV)/.dev ## the long forms of tests, and all examples of Hypothesis: some take minutes, some need the network
	$(BIN)/python -m pytest -n auto --dist loadfile -m 'long or hypothesis' --hypothesis-profile=thorough

coverage: $(VENV)/.dev ## all tests but the long ones, and the lines of Headrace that none of them reaches
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report=term:skip-covered

fast: $(VENV)/.demo ## build the core in Rust and install it beside Headrace; needs cargo
	@command -v cargo >/dev/null || { echo "There is no cargo on PATH: https://rustup.rs" >&2; exit 1; }
	cargo build --release --locked --manifest-path native/Cargo.toml
	$(BIN)/python tools/install_core.py native/target/release

test-cores: $(VENV)/.dev ## what each installed core must give
	$(BIN)/python -m pytest -m 'long or not long' tests/contracts/test_cores.py tests/ingest/test_golden.py

packages: $(VENV)/.dev ## build the wheel and the npm package into dist/
	@mkdir -p dist
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist .
	npm pack --pack-destination dist ./clients/js

attack: $(VENV)/.dev ## hostile nodes, bombs and spoilt input: the table of docs/discussions/attacks.md
	$(BIN)/python -m pytest -n auto -m 'long or not long' tests/hostile tests/fuzz tests/solana/test_rpc_answers.py

fuzz: $(VENV)/.dev ## coverage-guided fuzzing of every door, SECONDS (60) each
	$(BIN)/python -m tests.fuzz.run all $(or $(SECONDS),60)

chaos: $(VENV)/.dev ## kill and freeze order workers, then count: nothing lost, nothing twice (the control must fail)
	$(BIN)/headrace bench orders_chaos --store sqlite
	$(BIN)/headrace bench orders_chaos --store postgres
	! $(BIN)/headrace bench orders_chaos --orders 300 --kills 10 --stops 2 --engine naive

# DRIVERS: a folder with the load programs and peers of the gateway at scale; see headrace bench gateway --help.
bench: $(VENV)/.dev ## all measurements in turn, recorded with their date in benchmarks/, then one table with ratios; for a quiet machine
	$(BIN)/headrace bench pipeline --write benchmarks/pipeline
	$(BIN)/headrace bench decode --write benchmarks/decode
	$(if $(DRIVERS),$(BIN)/headrace bench gateway --drivers $(DRIVERS) --scenario rates --clients 1000 --write benchmarks/gateway)
	$(BIN)/headrace bench gateway --write benchmarks/gateway
	$(BIN)/headrace bench orders --write benchmarks/orders
	$(BIN)/python benchmarks/table.py

# Paths without a server around them: their counts vary by less than one percent.
COUNTED := accounts accounts_rust trades trades_rust whole fan_out
instructions: $(VENV)/.dev ## instructions of each path beside those recorded for this Python, at most 5 % more; RECORD='why' records
	$(BIN)/python benchmarks/instructions/measure.py $(COUNTED) $(if $(RECORD),--write '$(RECORD)',--guard 5)

check: $(VENV)/.dev ## format, lint, types and layers, in under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## rewrite the sources in the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

messages: $(VENV)/.dev ## make the messages of Yellowstone anew from geyser.proto
	cd src && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
		headrace/sources/yellowstone/messages/geyser.proto

lock: ## bring the three locks up to date with pyproject.toml; what is pinned stays
	$(COMPILE) --group dev --group docs pyproject.toml -o requirements-dev.lock
	$(COMPILE) --group build --constraint requirements-dev.lock pyproject.toml -o requirements.lock
	$(COMPILE) --group build --extra postgres --extra redis --extra yellowstone --constraint requirements-dev.lock \
		pyproject.toml -o deploy/requirements.lock

upgrade: ## resolve the dependencies anew into the locks
	$(MAKE) lock COMPILE='$(COMPILE) --upgrade'

clean: ## remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache docs/_build .coverage
