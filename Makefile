SHELL := /bin/sh
.DEFAULT_GOAL := help

PY := .venv/bin/python
STAMP := .venv/.installed
# More extras, for example: make setup EXTRAS=dev,gpu,tensorboard
EXTRAS ?= dev
WORKERS ?= 2

# Tests compile much and run little; a test run is to look the same on every machine. XLA stops at a switch it does not
# know, so the second one is tried first.
COMPILE_FAST := --xla_backend_optimization_level=0
COMPILE_FASTER := $(COMPILE_FAST) --xla_cpu_use_fusion_emitters=false
PYTEST = flags="$(COMPILE_FASTER)"; \
	XLA_FLAGS="$$flags" $(PY) -c 'import jax; jax.devices("cpu")' >/dev/null 2>&1 || flags="$(COMPILE_FAST)"; \
	env -u JAX_PLATFORMS XLA_FLAGS="$$flags" JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.cache/jax" \
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help
help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(STAMP) ## Install the package and its tools into .venv (PYTHON=... chooses the Python)

# Pythons with a constraints file come first. A name on the path may be a pyenv shim that runs nothing, so run it.
$(STAMP): pyproject.toml setup.py $(wildcard constraints/py*.txt)
	@set -eu; found=; \
	for candidate in $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python); do \
		if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			found=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "No Python >= 3.11 with venv and ensurepip among: $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python)." >&2; \
		echo "Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	show='import sys; print("py%d%d" % sys.version_info[:2])'; \
	version=$$("$$found" -c "$$show"); \
	if [ "$$($(PY) -c "$$show" 2>/dev/null || true)" != "$$version" ] || ! $(PY) -m pip --version >/dev/null 2>&1; then \
		"$$found" -m venv --clear .venv; \
	fi; \
	constraints=constraints/$$version.txt; \
	if [ -f "$$constraints" ]; then set -- --constraint "$$constraints"; \
	else echo "No $$constraints: installing the newest versions."; set --; fi; \
	$(PY) -m pip install --quiet --disable-pip-version-check "$$@" --editable ".[$(EXTRAS)]"; \
	touch $@

.PHONY: constraints
constraints: ## Write the versions now in .venv to constraints/ (after an upgrade that passes the tests)
	@mkdir -p constraints
	$(PY) -m pip list --format=freeze --disable-pip-version-check --exclude pip --exclude-editable \
		> constraints/$$($(PY) -c 'import sys; print("py%d%d" % sys.version_info[:2])').txt

.PHONY: demo
demo: setup ## Train the meta-skill and write the report (about four minutes on two cores)
	.venv/bin/jaxmas demo

.PHONY: test
test: setup ## Run the fast tests
	@$(PYTEST) -m "not slow"

.PHONY: test-all
test-all: setup ## Run all tests, the slow ones too
	@$(PYTEST)

.PHONY: check
check: setup ## Run the linter, the formatter, both type checkers and the fast tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright
	$(PY) -m mypy --cache-dir .cache/mypy
	@$(MAKE) --no-print-directory test

.PHONY: format
format: setup ## Format the code and mend what the linter can
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

.PHONY: bench
bench: setup ## Measure the speed over team sizes
	$(PY) -m jaxmas.experiments.speed

.PHONY: docs
docs: setup ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --site-dir site
	@echo "site/index.html"

PEERS := .venv-peers

.PHONY: bench-peers
bench-peers: setup $(PEERS)/.installed ## Measure the speed beside other packages, which go into .venv-peers
	$(PY) -m jaxmas.experiments.benchmarks.peers

# What cannot be installed is no mistake here: its rows of the table say so.
$(PEERS)/.installed: constraints/peers-jax.txt constraints/peers-numpy.txt
	@set -eu; for group in "jax jumanji jaxmarl" "numpy pogema"; do \
		set -- $$group; name=$$1; shift; \
		$(PY) -m venv --clear $(PEERS)/$$name; \
		$(PEERS)/$$name/bin/python -m pip install --quiet --disable-pip-version-check \
			--constraint constraints/peers-$$name.txt "$$@" || echo "$$@: not installed" >&2; \
	done; touch $@

.PHONY: clean
clean: ## Remove what the other targets leave, except .venv and .venv-peers
	rm -rf .cache build dist site jaxmas.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find jaxmas environments algorithms experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
