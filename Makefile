# Two commands on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

CLAIMS ?= *
SEEDS ?= 5

.PHONY: help run test test-slow check format claims reproduce results bench bench-check gpu-check hostile clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dlrunner needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(STAMP)  ## install, train on MovieLens, print where the results are
	$(BIN)/dlrun task=collab optim=adamw
	@echo
	@echo "In this folder: source $(BIN)/activate, then  dlrun --help"

test: $(STAMP)  ## the test suite; with DLRUNNER_DATA the real-data tests too
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## only the slow tests, which `make test` leaves out
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## format with ruff
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

claims: $(STAMP)  ## reproduce the quick published results on the data that is available
	$(BIN)/dlrun reproduce --quick --seeds 3 --out runs/claims/quick

reproduce: $(STAMP)  ## reproduce published results: make reproduce CLAIMS='movielens-*' SEEDS=5
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --out runs/claims/reproduced

results: $(STAMP)  ## the same, and update docs/results.json and the table in README.md
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --results docs/results.json --readme README.md

bench: $(STAMP)  ## measure speed against fastai, Lightning and plain loops; update benchmarks/ and README.md
	$(BIN)/python -m benchmarks

bench-check: $(STAMP)  ## check for a performance regression against the stored ratios; 6 minutes
	$(BIN)/python -m benchmarks check

gpu-check: $(STAMP)  ## check all features on this GPU; under ten minutes; without one: list the checks
	$(BIN)/python -m benchmarks.gpu_check

SEED ?= 0

hostile: $(STAMP)  ## fault injection: kills, full disks, damaged folders, wrong settings …; under ten minutes
	$(BIN)/python -m tests.hostile --seed $(SEED)

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist build
