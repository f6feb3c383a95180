# Each target does all of its own set-up: Python 3.11 or newer with pip and venv is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := compare
.DELETE_ON_ERROR:
.PHONY: help compare test check bench faults docs site embedded setup clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

compare: setup ## compare methods on handwritten digits, in about a minute
	@$(BIN)/tokbench compare

test: setup check ## run all checks and tests
	@$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: setup ## run ruff, mypy and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: setup ## time every operator and method at DeiT-S's geometry, on the GPU if there is one
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-warmup=on --benchmark-warmup-iterations=3 --benchmark-disable-gc --benchmark-sort=mean --benchmark-columns=median,iqr,rounds

faults: setup ## break tokbench on purpose in about a thousand ways; up to 20 minutes
	@$(BIN)/python benchmarks/faults.py

docs: setup ## write the pages that are made from the code
	@$(BIN)/python docs/methods_page.py
	@$(BIN)/python docs/python_page.py

site: setup ## build the static site from results/ and docs/ into build/site/
	@PYTHONPATH=docs $(BIN)/python -m website.build

embedded: setup ## train the embedded models again; says how long each takes
	@for model in digits_deit digits_deit_32 digits_deit_16 digits_rope; do $(BIN)/python -m tokbench.embedded.train --model $$model || exit; done

setup: $(VENV)/installed ## install everything into .venv

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokbench needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "Installing into $(VENV): a few minutes and about 6 GB, most of it torch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean: ## remove .venv and built packages
	rm -rf $(VENV) build dist *.egg-info
