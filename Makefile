# Everything happens in .venv, made on first use. `make PYTHON=python3.12 …` picks the interpreter it is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONFIGURED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install test lint demo clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## the package and what it runs on, into .venv

test: $(VENV)/.installed-dev ## what the tests need, then ruff and all tests, one process a core
	@$(BIN)/ruff check --quiet .
	@$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-dev ## ruff, formatting and types (pyright fetches node once)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/forearm
	@$(BIN)/pyright

demo: $(VENV)/.installed ## record, learn, plan and show: a video of the arm at work under runs/
	@$(BIN)/forearm quickstart

clean: ## remove builds and caches; keeps .venv, data/ and runs/
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps are younger than what they were made from, so that a second call is instant.
$(VENV)/.installed: $(CONFIGURED)
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"Forearm needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
