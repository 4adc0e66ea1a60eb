# make demo   set up .venv and make a picture
# make test   set up .venv and run the tests
# make check  lint, formatting and types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROMPT ?= a majestic mountain landscape at sunset with golden clouds

.PHONY: demo test check clean help

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# One stamp for what running needs, one for what testing needs on top.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a few minutes the first time: PyTorch is large)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) -e '.[test,dev]'
	@# Only its sampling.py is read; its own requirements would bring torchvision and more.
	$(PIP) --no-deps k-diffusion
	@touch $@

demo: $(VENV)/.run
	$(BIN)/darkroom generate "$(PROMPT)" --seed 7
	@echo 'next: $(BIN)/darkroom generate "a red boat on a calm sea" --count 4 --grid'

test: $(VENV)/.test
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist
