# All targets use .venv, which `make install` creates; `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := keras-cv,addons,umap,dev
SITE := build/site
# The tests of a file run in one process, because they share expensive fixtures.
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

# The first of these that exists, is Python 3.11 to 3.13 and can create virtual environments.
PYTHON ?= python3 python3.13 python3.12 python3.11
FITS := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help install quickstart results docs notebook test test-all mutation-test lint clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: $(STAMP) ## create .venv with the packages pinned in constraints.txt

$(STAMP): setup.py constraints.txt
	@for candidate in $(PYTHON); do \
	  if $$candidate -c '$(FITS)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: none of '$(PYTHON)' is Python 3.11, 3.12 or 3.13 with venv;" \
	    "install one (Debian, Ubuntu: python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$($$python --version): a few minutes, about 3 GB"; \
	$$python -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet \
	  --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

quickstart: install ## pretrain on built-in data, evaluate and export
	$(BIN)/simclr-tf pretrain --flagfile=flags/quickstart.flags --model_dir=runs/quickstart
	$(BIN)/simclr-tf evaluate --model_dir=runs/quickstart --protocols=knn,logistic --baselines=pca,random
	$(BIN)/simclr-tf export --model_dir=runs/quickstart
	@echo "The run is in runs/quickstart. To see its curves and view pairs:"
	@echo "  $(BIN)/tensorboard --logdir runs/quickstart/tensorboard"
	@echo "To write an HTML report:"
	@echo "  $(BIN)/simclr-tf report --model_dir=runs/quickstart"

results: install ## reproduce the table of docs/results.md: make results DATA_DIR=… (hours)
	PATH="$(BIN):$$PATH" docs/results.sh "$(DATA_DIR)"

docs: install ## build the documentation site in build/site
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs $(SITE)
	@echo "Open $(SITE)/index.html in a browser"

notebook: install ## run docs/quickstart.ipynb and store its outputs
	rm -rf docs/runs/notebook
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docs/run_notebook.py docs/quickstart.ipynb

test: install ## run the tests, except the slow ones
	$(PYTEST) -m "not slow"

test-all: install ## run all tests
	$(PYTEST)

mutation-test: install ## introduce faults and check that tests fail: all, or make mutation-test SAMPLE=20
	$(BIN)/python -m tests.mutation_testing $(if $(SAMPLE),--sample=$(SAMPLE)) $(if $(SEED),--seed=$(SEED))

lint: install ## ruff (lint, format), mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove .venv, build output and caches, but not runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
