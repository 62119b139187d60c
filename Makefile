# Every target sets up its own virtual environment in .venv: nothing else to install by hand.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WANTED := Python 3.11 or newer is needed: make PYTHON=python3.12

.PHONY: demo test test-all explore lint setup bench bench-tuned clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$(WANTED)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup lint
	$(BIN)/python -m pytest -n 2 -q

test-all: setup lint
	$(BIN)/python -m pytest -n 2 -q -m ''

# The properties with examples that nobody has tried yet; what it finds is printed with the line that reproduces it.
explore: setup
	$(BIN)/python -m pytest -n 2 -q --hypothesis-profile=explore

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.operators --json benchmarks/results/operators.json --markdown docs/performance.md
	$(BIN)/python -m benchmarks.networks --json benchmarks/results/networks.json --markdown docs/performance.md
	$(BIN)/python -m benchmarks.compile_time --json benchmarks/results/compile_time.json --markdown docs/performance.md

# Two hours. Cut it whenever you like: started again, it goes on (rows in RESULTS, trials in RECORDS).
RESULTS := benchmarks/results
RECORDS := build/records
SECONDS := 20
MINUTES := 3
TRIALS  := 150
TABLES  := --resume --markdown docs/tuned_performance.md

bench-tuned: setup
	$(BIN)/python -m pip install --quiet --editable '.[bench,tune]'
	mkdir -p $(RECORDS)
	$(BIN)/python -m benchmarks.tune_operators $(TABLES) --seconds $(SECONDS) --json $(RESULTS)/tune_operators.json --records $(RECORDS)/operators.db
	$(BIN)/python -m benchmarks.search_spaces gemm conv attention --missing
	$(BIN)/python -m benchmarks.search_quality --json $(RESULTS)/search_quality.json --markdown docs/tuned_performance.md
	$(BIN)/python -m benchmarks.space_throughput --json $(RESULTS)/space_throughput.json --markdown docs/cost.md
	$(BIN)/python -m benchmarks.estimate_quality --json $(RESULTS)/estimate_quality.json --markdown docs/cost.md
	$(BIN)/python -m benchmarks.ablation $(TABLES) --trials $(TRIALS) --json $(RESULTS)/ablation.json --records $(RECORDS)/ablation
	$(BIN)/python -m benchmarks.tune_networks $(TABLES) --minutes $(MINUTES) --json $(RESULTS)/tune_networks.json --records $(RECORDS)/networks.db

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
