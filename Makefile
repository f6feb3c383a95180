# Each target does all of its own set-up: Python 3.11 or newer with pip and venv is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: compare test check bench docs embedded setup clean

compare: setup
	@$(BIN)/tokbench compare

test: setup check
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# Times every operator and method at DeiT-S's geometry; with CUDA on the GPU.
bench: setup
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-warmup=on --benchmark-warmup-iterations=3 --benchmark-disable-gc --benchmark-sort=mean --benchmark-columns=median,iqr,rounds

# Writes the pages that say what the code says.
docs: setup
	@$(BIN)/python docs/methods_page.py
	@$(BIN)/python docs/python_page.py

# Trains the embedded suite's model anew; the command says how long it takes.
embedded: setup
	@$(BIN)/python -m tokbench.embedded.train

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tokbench needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "Installing into $(VENV): a few minutes and about 6 GB, most of it torch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
