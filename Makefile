# make demo   install, run the embedded demo, print its table
# make test   everything that must hold: lint, types, import layers, workflow, tests
PYTHON ?= python3.11
VENV ?= .venv
CORES ?= all
# Processes that share out the tests.
WORKERS ?= 2
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types layers workflow-lint tests format install generated clean

demo: install
	snakemake --cores $(CORES)
	@test results/demo/report.html -nt results/demo/tables/table.csv || snakemake --report results/demo/report.html
	@wsss show results/demo

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

test: install
	$(MAKE) --jobs $(WORKERS) --output-sync=target lint types layers workflow-lint
	$(MAKE) tests

lint: install
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules

types: install
	mypy

layers: install
	lint-imports --no-cache

workflow-lint: install
	snakemake --lint

# The tests of programs in tools/, which the package does not need.
test-tools: install
	pytest tools

tests: install
	pytest -n $(WORKERS) --no-loadscope-reorder

format: install
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/rules

generated: install
	wsss config default > config.yaml
	wsss config schema > workflow/schemas/config.schema.json

clean:
	rm -rf results .snakemake
