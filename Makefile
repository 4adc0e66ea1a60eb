# make demo      set up .venv and make a picture
# make serve     set up .venv and run the service: pictures for many, over HTTP
# make test      set up .venv and run the tests, but for networks of full width
# make test-all  run every test: networks of full width, which need 12 GB of memory, and every pair of what is combined
# make check     lint, formatting and types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROMPT ?= a majestic mountain landscape at sunset with golden clouds

.PHONY: demo serve test test-all check lint types clean help

help:
	@sed -n 's/^# make /make /p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# One stamp for what running needs, one for what testing needs on top.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a few minutes the first time: PyTorch is large)"
	$(PIP) -e .
	@touch $@

$(VENV)/.serve: $(VENV)/.run
	$(PIP) -e '.[serve]'
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) -e '.[test,dev,serve]'
	@# Parts of them are read; their own requirements would bring torchvision and more.
	$(PIP) --no-deps k-diffusion compel torchsde trampoline lycoris-lora einops toml spandrel
	@touch $@

demo: $(VENV)/.run
	$(BIN)/darkroom generate "$(PROMPT)" --seed 7
	@echo 'next: $(BIN)/darkroom generate "a red boat on a calm sea" --count 4 --grid'

serve: $(VENV)/.serve
	@echo "try, in another terminal:"
	@echo "  curl -s 'http://127.0.0.1:7860/v1/jobs?wait=60' -H 'Content-Type: application/json' -d '{\"prompt\": \"a red boat on a calm sea\"}'"
	@echo "  curl -s http://127.0.0.1:7860/v1/images/ID/file -o boat.png     # with the id that it tells of the image"
	$(BIN)/darkroom serve

# Two processes of one thread each: one after the other takes twice as long, two threads hardly help networks this small.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: test
	OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) $(BIN)/python -m pytest -m wide

check: lint types

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist
