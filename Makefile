# make demo | test | lint | bench | help        PYTHON=python3.12 chooses another Python for the environment
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NPROC  ?= 2
DEMO   := runs/demo-data

.PHONY: help demo test slurm lint bench clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(BIN)/.ready  ## Make two small datasets, train them jointly on 2 processes, evaluate, draw predictions
	@$(BIN)/python -m ddptrain.data.synthetic $(DEMO)
	@rm -rf runs/demo
	@$(BIN)/ddptrain train configs/demo.yaml --nproc $(NPROC)
	@$(BIN)/ddptrain predict runs/demo $(DEMO)/skyview/VisDrone2019-DET-val/images $(DEMO)/streets/JPEGImages --limit 12
	@echo
	@echo "Curves and pictures:  $(BIN)/tensorboard --logdir runs/demo/tensorboard"
	@echo "Predictions:          runs/demo/predictions/"

test: $(BIN)/.ready  ## Run the test suite, without the slow tests on Slurm
	$(BIN)/python -m pytest -q -n 2 -m "not (slurm and slow)" $(ARGS)

slurm: $(BIN)/.ready  ## Run all tests on a private Slurm (apt-get install slurm-wlm munge)
	$(BIN)/python -m pytest -q -n 2 tests/slurm $(ARGS)

lint: $(BIN)/.ready  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BIN)/.ready  ## Run the benchmarks (hours: some train whole runs)
	for f in benchmarks/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

clean:  ## Remove the environment and all caches, not the runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
