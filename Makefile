# mlxd: `make demo` shows it working, `make test` proves it. Both set everything up first.

VENV   := .venv
PYTHON := $(VENV)/bin/python
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV_VERSION := 0.13.9
CODE   := daemon ctl http_bridge launchd tests benchmarks demo.py
SEED   ?= 1
STEPS  ?= 10000
PYTEST := $(BIN)/pytest -q
CLIENTS := .cache/clients-venv
CLIENTS_JS := .cache/clients-node

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full quick-models models clients models-check browser pictures lint types fmt check bench sim lock

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(READY)  ## make the environment in .venv from the hashed lock

# The newest python3.x of at least 3.11 that is there; uv would fetch one if none is.
$(READY): requirements.lock pyproject.toml
	@for p in python3.13 python3.12 python3.11 python3; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$p; break; fi; done; \
	if [ -z "$$found" ]; then echo "mlxd needs Python 3.11 or newer: install one, then run make again" >&2; exit 1; fi; \
	[ -x $(PYTHON) ] || $$found -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "installing the locked packages into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

demo: $(READY)  ## start the service, ask the bundled model about a picture, show the pool
	@$(PYTHON) demo.py

test: $(READY) lint types quick-models browser  ## lint, types, unit, property, scenario and simulation tests, quick E2E
	$(PYTEST) -m "not e2e and not slow"
	$(PYTEST) -m "e2e and not e2e_vision_full and not slow" tests/e2e

test-full: $(READY) models clients browser lint types  ## everything: full vision tier, long simulations, real text models
	$(PYTEST) -m "not e2e" --hypothesis-profile=fresh
	$(PYTEST) -m "e2e" tests/e2e

quick-models: $(READY)
	@$(PYTHON) -m tests.models.build smollm2-135m-f32 all-MiniLM-L6-v2

models: $(READY)  ## build real small models for the tests (.cache/models, 300 MB download)
	@$(PYTHON) -m tests.models.build

clients: $(CLIENTS)/.ready $(CLIENTS_JS)/.ready  ## other people's clients for the tests, in environments of their own

$(CLIENTS)/.ready: $(READY) tests/e2e/clients/requirements.lock
	@echo "installing the clients into $(CLIENTS) …"
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(CLIENTS)
	@$(BIN)/uv pip sync --quiet --require-hashes --python $(CLIENTS)/bin/python tests/e2e/clients/requirements.lock
	@touch $@

# Those in JavaScript only where there is Node.js: their tests say so where there is none.
$(CLIENTS_JS)/.ready: tests/e2e/clients/package-lock.json
	@mkdir -p $(CLIENTS_JS)
	@if command -v npm >/dev/null; then cp tests/e2e/clients/package.json tests/e2e/clients/package-lock.json $(CLIENTS_JS)/ \
	  && npm ci --prefix $(CLIENTS_JS) --ignore-scripts --no-audit --no-fund --silent && touch $@; fi

models-check: models  ## load every built model with its library and check an answer
	@$(PYTHON) -m tests.models.build --check

browser: $(READY)  ## a Chromium for the tests of the page, if there is none
	@$(PYTHON) -m tests.e2e.browser

pictures: $(READY) quick-models browser  ## take the README's pictures of the real thing
	@$(PYTHON) -m tests.e2e.pictures

lint: $(READY)  ## ruff: rules and format
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE)

types: $(READY)  ## mypy, strict
	@$(BIN)/mypy

fmt: $(READY)  ## format and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet $(CODE) || true
	@$(BIN)/ruff format $(CODE)

check: test  ## what CI runs

bench: $(READY)  ## side by side with the raw libraries, ratios in one run
	@$(PYTHON) -m benchmarks

sim: $(READY)  ## one simulation: make sim SEED=7 STEPS=100000
	@$(PYTHON) -m tests.sim --seed $(SEED) --steps $(STEPS)

lock: $(READY)  ## renew the hashed locks: ours, and that of the tests' clients
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --group dev pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
	  tests/e2e/clients/requirements.in -o tests/e2e/clients/requirements.lock
