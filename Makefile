# Two commands on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

CLAIMS ?= *
SEEDS ?= 5

.PHONY: help run test check format claims reproduce results bench bench-check gpu-check hostile clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dlrunner needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

run: $(STAMP)  ## install, train on MovieLens, say where everything is
	$(BIN)/dlrun task=collab optim=adamw
	@echo
	@echo "In this folder: source $(BIN)/activate, then  dlrun --help"

test: $(STAMP)  ## the whole test suite; real-data tests where DLRUNNER_DATA holds the data
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## let ruff rewrite
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

claims: $(STAMP)  ## earn the quick published figures again, on the real data that is there
	$(BIN)/dlrun reproduce --quick --seeds 3 --out runs/claims/quick

reproduce: $(STAMP)  ## earn some claims again: make reproduce CLAIMS='movielens-*' SEEDS=5
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --out runs/claims/earned

results: $(STAMP)  ## the same, and write what was measured into docs/results.json and README's table
	$(BIN)/dlrun reproduce '$(CLAIMS)' --seeds $(SEEDS) --results docs/results.json --readme README.md

bench: $(STAMP)  ## speed against fastai, Lightning and plain loops, into benchmarks/ and README (installs those apart)
	$(BIN)/python -m benchmarks

bench-check: $(STAMP)  ## is dlrunner still as fast? ratios to whom is installed, beside the stored ones; 6 minutes
	$(BIN)/python -m benchmarks check

gpu-check: $(STAMP)  ## does all that a GPU run needs work on this GPU? under ten minutes; without one: what it would do
	$(BIN)/python -m benchmarks.gpu_check

SEED ?= 0

hostile: $(STAMP)  ## break it on purpose: kills, full disks, damaged folders, wrong settings …; under ten minutes
	$(BIN)/python -m tests.hostile --seed $(SEED)

clean:  ## remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist build
