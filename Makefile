# `make quickstart` and `make test` are all a newcomer needs: each makes .venv and installs everything.

PYTHON ?= python3
VENV ?= .venv
# Installed before anything else, so that nothing pulls in another build of it. For a GPU, say, or a newer release:
#   make quickstart TORCH=torch
TORCH ?= torch==2.13.0

# What `make experiments` asks, and how long that may take. Interrupted, it goes on with the same words.
DATASETS ?= demo movielens lastfm
QUESTIONS ?= rq2 rq3 rq1 behaviour retrieve
STEPS ?= 600
SEEDS ?= 3
REDRAWS ?= 20
RESULTS ?= build/experiments

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test lint types tests format experiments clean

quickstart: $(INSTALLED)
	$(BIN)/llara-app quickstart

test: lint types tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: $(INSTALLED)
	$(BIN)/python -m pytest

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

experiments: $(INSTALLED)
	$(BIN)/python -m benchmarks.experiments $(DATASETS:%=--dataset %) $(QUESTIONS:%=--question %) \
		--max-steps $(STEPS) --seeds $(SEEDS) --redraws $(REDRAWS) --results $(RESULTS)

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
