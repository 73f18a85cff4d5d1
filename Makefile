# make VENV=DIR puts the environment elsewhere; make VENV= uses the one that is active.
VENV ?= .venv
BIN := $(if $(VENV),$(if $(filter /%,$(VENV)),$(VENV),$(CURDIR)/$(VENV))/bin)
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

# The first Python that fits: the environment's own, then the system's.
PYTHON ?= $(shell for python in "$(if $(BIN),$(BIN)/)python" python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo "$$python" && exit; done; echo python3)

# Not /bin/sh: make 3.81 (macOS) honours the PATH below only where the shell is not its default one.
SHELL := bash
ifneq ($(BIN),)
export PATH := $(BIN):$(PATH)
endif

# Snakemake, DVC and pip ask for a home that can be written and for a user's name. A container may have neither.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.home
endif
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)

.PHONY: help env demo test lint mutants grid clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'VENV=DIR    environment, made where missing (now: $(if $(VENV),$(VENV),the active one))'
	@echo 'PYTHON=EXE  Python 3.11 to 3.13 to make it with'
	@echo 'JOBS=N      processes for tests, mutants and grid (now: $(JOBS))'

env: ## install what everything below needs, once
	@"$(PYTHON)" tools/bootstrap.py "$(VENV)"

demo: env ## run the demo suite on the CPU and print its table
	snakemake --profile profiles/local --config suite=demo --quiet rules
	python -m distillbench tables demo

test: env ## run the tests
	python -m pytest -n $(JOBS) --dist worksteal tests

lint: env ## check style, formatting, the workflow, and which room imports which
	ruff check src tests tools
	ruff format --check src tests tools
	snakefmt --check Snakefile workflow
	snakemake --lint
	lint-imports --no-cache --no-logo

mutants: env ## break the code on purpose, a line at a time, and see that the tests notice
	python tools/mutants.py --jobs $(JOBS)

grid: env ## try every method on every pair of the papers' tables
	python tools/grid.py --jobs $(JOBS)

clean: ## remove caches and build products, never results
	rm -rf .pytest_cache .ruff_cache build dist
	find src tests tools workflow -name __pycache__ -type d -prune -exec rm -rf {} +
