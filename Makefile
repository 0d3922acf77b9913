# Everything a newcomer needs: `make train`, `make test`. Only python3 (3.10 or newer, with venv) has to be there.
PYTHON ?= python3
VENV := .venv
BOLTS := .venv-bolts
BIN := $(VENV)/bin
# Side by side: each test has one thread.
PYTEST := python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help train test test-exhaustive test-bolts test-all test-fast coverage docs lint format pictures clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(VENV)/.installed: EXTRAS := dev
$(BOLTS)/.installed: EXTRAS := test,safetensors,bolts
$(VENV)/.installed $(BOLTS)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, found " + sys.version.split()[0] + ": set PYTHON=python3.x")'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

train: $(VENV)/.installed  ## Train HSCL on real digits and print its geometry
	$(BIN)/nc-train fit --config hscl.yaml

test: $(VENV)/.installed  ## Run tests of every kind and every example of the documentation, in 12 minutes on 2 CPU cores
	$(BIN)/$(PYTEST) -m "not exhaustive"

test-exhaustive: $(VENV)/.installed  ## Run what `make test` leaves out: long trainings and many repetitions
	$(BIN)/$(PYTEST) -m exhaustive

test-bolts: $(BOLTS)/.installed  ## Run the tests of lightning-bolts, in an environment of its own
	NC_REQUIRE_BOLTS=1 $(BOLTS)/bin/$(PYTEST) -m bolts $(shell grep -rl mark.bolts tests)

test-all: test test-exhaustive test-bolts  ## Run all three

test-fast: $(VENV)/.installed  ## Run the tests that take seconds
	$(BIN)/$(PYTEST) -m "not (slow or browser or exhaustive)"

coverage: $(VENV)/.installed  ## Run the tests that take seconds, and fail below the coverage that pyproject.toml asks for
	$(BIN)/$(PYTEST) -m "not (slow or browser or exhaustive)" --cov

lint: $(VENV)/.installed  ## Check style, types, spelling and what each part may import
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed  ## Format the code, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed  ## Build the documentation's site in docs/_build/html; it runs the tutorials
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

pictures: $(VENV)/.installed  ## Make the pictures of the README again; needs Chromium and takes minutes
	rm -rf pictures/lightning_logs pictures/cosines.png
	cd pictures && ../$(BIN)/python ../examples/compare_geometry.py cosines.png
	$(BIN)/python -m tests.browser.take_picture pictures/lightning_logs pictures/dashboard.png
	rm -rf pictures/lightning_logs

clean:  ## Remove the environments and all caches; runs in lightning_logs stay
	rm -rf $(VENV) $(BOLTS) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* build dist docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
