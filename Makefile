# make demo | test-fast | test | lint | bench | bench-gpu | help        PYTHON=python3.12 chooses another Python for the environment
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NPROC  ?= 2
DEMO   := runs/demo-data
# more than two cores: many tests wait for their processes
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -q --dist worksteal
# a test that is skipped on its way may leave a file or a socket open
LEFT_OPEN := -W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning

.PHONY: help demo test-fast test test-learning test-slurm gpu bench-gpu lint schema docs dist bench clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo "A single test:  $(BIN)/python -m pytest tests/engine/test_state.py -k batch      more options of pytest:  make test ARGS='-x --lf'"
	@echo "Markers:        learning, slurm, slow, gpu; described in pyproject.toml"

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

# the same environment with what developers need
$(BIN)/.dev: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# the same with what builds distributions
$(BIN)/.dist: $(BIN)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dist]'
	@touch $@

demo: $(BIN)/.ready  ## Make two small datasets, train them jointly on 2 processes, evaluate, draw predictions (ARGS=train.epochs=2: shorter)
	@$(BIN)/python -m ddptrain.data.synthetic $(DEMO)
	@rm -rf runs/demo
	@$(BIN)/ddptrain train configs/demo.yaml --nproc $(NPROC) $(ARGS)
	@$(BIN)/ddptrain predict runs/demo $(DEMO)/skyview/VisDrone2019-DET-val/images $(DEMO)/streets/JPEGImages --limit 12
	@echo
	@echo "Curves and pictures:  $(BIN)/tensorboard --logdir runs/demo/tensorboard"
	@echo "Predictions:          runs/demo/predictions/"

test-fast: $(BIN)/.dev  ## After every save, under 2 minutes: everything that starts no process and trains nothing
	$(PYTEST) -n 2 -r fE --fast -m "not (learning or slurm)" $(LEFT_OPEN) $(ARGS)

test: $(BIN)/.dev  ## Before every push, about 12 minutes: all tests but test-learning and the slow ones on Slurm
	$(PYTEST) -n $(WORKERS) -m "not (learning or (slurm and slow))" $(ARGS)

test-learning: $(BIN)/.dev  ## The tests that train until something is learned
	$(PYTEST) -n 2 -m learning $(ARGS)

gpu: $(BIN)/.dev  ## Check what only a GPU can show, at most 10 minutes; on the CPU what is possible there
	$(BIN)/python benchmarks/gpu/check.py

bench-gpu: $(BIN)/.dev  ## Measure training of a detector beside its bare network, on a GPU (ARGS=--help for more)
	$(BIN)/python benchmarks/gpu/bench.py $(ARGS)

test-slurm: $(BIN)/.dev  ## All tests on a private Slurm, slow ones too (apt-get install slurm-wlm munge)
	$(PYTEST) -n $(WORKERS) -m slurm $(ARGS)

lint: $(BIN)/.dev  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: $(BIN)/.ready  ## Rewrite configs/schema.json, after a change of the config's keys
	$(BIN)/ddptrain config --schema > configs/schema.json

docs: $(BIN)/.dev  ## Build the documentation site in site/, with every warning an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean
	@echo "site/index.html"

dist: $(BIN)/.dist  ## Build wheel and source distribution, check them, train two steps with the wheel alone (ARGS=--download)
	$(BIN)/python -m tools.dist $(ARGS)

bench: $(BIN)/.dev  ## Run the benchmarks (hours: some train whole runs)
	for f in benchmarks/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

clean:  ## Remove the environment and all caches, not the runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build site
