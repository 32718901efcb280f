# Two commands on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
RUNS := $(VENV)/.installed-to-run
STAMP := $(VENV)/.installed

CLAIMS ?= *
SEEDS ?= 5

.PHONY: help run test test-slow check format claims reproduce results docs bench bench-check gpu-check hostile clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(RUNS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dlrunner needs Python 3.11 or newer"; exit 1; }
	@echo "installing into $(VENV): one or two minutes; 1.8 GB on disk with the CPU build of torch, 6.4 GB with CUDA"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(STAMP): $(RUNS)
	@echo "installing what tests, checks and documentation need into $(VENV): one minute, 0.7 GB"
	$(PIP) -e '.[dev]'
	@touch $@

run: $(RUNS)  ## install, train on MovieLens, print where the results are
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

claims: $(RUNS)  ## reproduce the quick published results on the data that is available
	$(BIN)/dlrun reproduce --quick --seeds 3 --out runs/claims/quick

reproduce: $(RUNS)  ## reproduce published results: make reproduce CLAIMS='movielens-*' SEEDS=5
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --out runs/claims/reproduced

results: $(RUNS)  ## the same, and update docs/results.json and docs/results.md
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --results docs/results.json --markdown docs/results.md

docs: $(STAMP)  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # Material's note on MkDocs 2, which is excluded

bench: $(STAMP)  ## measure speed against fastai, Lightning and plain loops; update benchmarks/ and docs/speed.md
	$(BIN)/python -m benchmarks

bench-check: $(STAMP)  ## check for a performance regression against the stored ratios; 6 minutes
	$(BIN)/python -m benchmarks check

gpu-check: $(STAMP)  ## check five tasks on this GPU, in each precision, compiled, resumed; under ten minutes; without one: list the checks
	$(BIN)/python -m benchmarks.gpu_check

SEED ?= 0

hostile: $(STAMP)  ## fault injection: kills, full disks, damaged folders, wrong settings …; under ten minutes
	$(BIN)/python -m tests.hostile --seed $(SEED)

clean:  ## remove the environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache dist build
