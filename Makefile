# Targets for people and for CI. Every target sets up what it needs (Debian packages, .venv) by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
STAMP := .venv/.setup-complete
CONFIG ?= config/bridged.yaml
FUZZ_SECONDS ?= 60
PYTEST := $(PYTHON) -m pytest
FAST := tests/unit tests/property tests/sim tests/contract tests/vectors tests/fuzz
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help setup demo run check test lint format bench fuzz lock clean

help: ## what the targets do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP) ## install what is missing: Debian packages, .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml deploy/bootstrap.sh
	@bash deploy/bootstrap.sh
	@touch $@

demo: $(STAMP) ## join two LANs on this machine, in network namespaces, and show that it works
	@$(PYTHON) -m tests.lab.demo

run: $(STAMP) ## start one daemon with $(CONFIG)
	.venv/bin/bridged run --config $(CONFIG)

lint: $(STAMP) ## format, lint, types, import directions
	@echo "check: formatting (ruff format)"
	@.venv/bin/ruff format --check .
	@echo "check: lint (ruff check)"
	@.venv/bin/ruff check .
	@echo "check: types (mypy --strict)"
	@.venv/bin/mypy
	@echo "check: import directions (import-linter)"
	@.venv/bin/lint-imports

check: lint ## the fast half: lint, unit, property, sim, contract, vectors, corpus replay
	@echo "check: tests in $(FAST)"
	@$(PYTEST) $(FAST)

test: lint ## everything: what check runs, and interop (real OpenVPN) and system tests
	@echo "test: all tests under tests/ (fast half, interop with real OpenVPN, system)"
	@$(PYTEST) tests

bench: $(STAMP) ## our daemons against OpenVPN's, in turn; writes build/bench.json (BENCH="--pairs 5 …")
	@$(PYTHON) -m tests.bench.run $(BENCH)

fuzz: $(STAMP) ## fuzz every target under tests/fuzz for FUZZ_SECONDS each
	@for target in tests/fuzz/fuzz_*.py; do \
	    name=$$(basename "$$target" .py); name=$${name#fuzz_}; \
	    mkdir -p "build/fuzz/corpus/$$name" "tests/fuzz/corpus/$$name"; \
	    echo "fuzz: $$name for $(FUZZ_SECONDS) s"; \
	    $(PYTHON) "$$target" -max_total_time=$(FUZZ_SECONDS) -artifact_prefix="build/fuzz/$$name-" \
	        "build/fuzz/corpus/$$name" "tests/fuzz/corpus/$$name"; \
	done

format: $(STAMP) ## rewrite the sources in the house format
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

lock: $(STAMP) ## write requirements.lock anew from pyproject.toml (needs the network)
	@bash deploy/lock.sh

clean: ## remove what the targets made, .venv included
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find bridged tests -name __pycache__ -type d -prune -exec rm -rf {} +
