# Everything runs from .venv, which is made from requirements.lock (exact versions with hashes) and from a wheel of
# this project, not editable. Needs only python3 (3.11 or newer) with venv and pip, and make.
# Stamps are named after the contents they stand for: nothing is fetched or installed twice, a deleted file counts.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv
CODE := protocol lockbox_node tests benchmarks simulations

HASH := sha256sum | cut -c1-16
LOCK_HASH := $(shell cat requirements.lock | $(HASH))
WHEEL_HASH := $(shell find pyproject.toml README.md protocol lockbox_node -type f -not -path '*/__pycache__/*' -print0 \
	| LC_ALL=C sort -z | xargs -0 sha256sum | $(HASH))
LOCKED := $(STAMPS)/lock-$(LOCK_HASH)
INSTALLED := $(STAMPS)/wheel-$(LOCK_HASH)-$(WHEEL_HASH)

# Of `make sim`: seeds of each scenario, the first of them, virtual hours of each run.
SEEDS ?= 10
SEED ?= 1
HOURS ?= 0.2

.PHONY: help install demo test quick processes real long sim check static bench coverage lock clean

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/\1\t\2/p' Makefile | expand -t 12

install: $(INSTALLED)  ## Create .venv from the lock and install this project into it

demo: install  ## Run a real network of 24 nodes, lose a region, and get everything back
	$(BIN)/python -m benchmarks.demo

test: install  ## Run all checks and the whole test suite, side by side
	@$(MAKE) --no-print-directory -j 3 static quick processes

quick: install
	$(BIN)/python -m pytest -m 'not end_to_end and not root and not long'

processes: install
	$(BIN)/python -m pytest -m 'end_to_end and not root and not long'

real: install  ## Run the tests that need root: file systems that fill up, network namespaces that are cut apart
	$(BIN)/python -m pytest -m 'root and not long'

long: install  ## Run the long forms of the tests of faults
	$(BIN)/python -m pytest -m long -o faulthandler_timeout=0

sim: install  ## Run many seeds of every scenario; SEEDS=10 SEED=1 HOURS=0.2; writes build/simulations.md
	$(BIN)/python -m simulations all --sweep $(SEEDS) --seed $(SEED) --hours $(HOURS) --report build/simulations.md

check: static quick  ## Formats, lint, types, import floors, shape, fast tests

static: install
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/flake8 --select ASYNC --ignore ASYNC124,ASYNC910,ASYNC911,ASYNC912,ASYNC913 \
		--startable-in-context-manager run,serve,_listen,_keep_connected,_cancel_on_signal \
		--per-file-ignores "tests/*:ASYNC113,ASYNC114" $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## Run the benchmarks
	$(BIN)/python -m benchmarks

coverage: install  ## Run the test suite with branch coverage
	$(BIN)/python -m pytest --cov --cov-report=term

lock: $(LOCKED)  ## Write requirements.lock anew from pyproject.toml (asks the network)
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --group dev --upgrade \
		--python $(BIN)/python pyproject.toml -o requirements.lock

clean:  ## Remove everything that was made, the environment too
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# uv is in the lock too: its lines alone go through pip, with their hashes; uv installs the rest.
$(LOCKED): | $(STAMPS)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.lock
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	rm -f $(STAMPS)/lock-* $(STAMPS)/wheel-*
	touch $@

# The build backend comes from the lock as well. The wheel is installed by name, so that the environment does not
# record the path of the checkout and two machines hold the same files.
$(INSTALLED): $(LOCKED)
	rm -rf $(VENV)/wheel
	$(BIN)/hatchling build -t wheel -d $(VENV)/wheel
	$(UV) pip install --quiet --offline --no-index --no-cache --find-links $(VENV)/wheel --no-deps --reinstall \
		--compile-bytecode --python $(BIN)/python lockbox-node
	rm -f $(STAMPS)/wheel-*
	touch $@

$(STAMPS):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed (make PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	mkdir -p $@
