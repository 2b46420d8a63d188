# make demo   install, run the embedded demo, print its table
# make check  for each edit: lint, types, import layers, workflow lint, the fastest tests
# make test   everything that must hold: the same with all tests, and the line coverage
# make gpu    where a GPU is: published tensors on it, and its speed
# make docs   the documentation as a site; every warning is an error
PYTHON ?= python3.11
VENV ?= .venv
READERS ?= .readers
CORES ?= all
# Processes that share out the tests.
WORKERS ?= 2
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

PIP := $(BIN)/python -m pip install --quiet --no-compile
# Bytecode on all cores: pip uses one. Packages hold a few files for other versions of Python.
BYTECODE := $(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests?/' $(VENV)/lib || true

# Cached bytecode halves the imports of each process.
fast-tests tests medium: export PYTHONDONTWRITEBYTECODE :=
PARALLEL := -n $(WORKERS) --no-loadscope-reorder
# Rooms with shapes in signatures; mypy alone checks the others.
SHAPED := wsss.api,wsss.cams,wsss.clip,wsss.compute.distributed,wsss.compute.packed_rows,wsss.data.images,wsss.dino,wsss.export,wsss.labels,wsss.masks,wsss.photos,wsss.refine,wsss.retrain,wsss.score
CHECKED := --jaxtyping-packages=$(SHAPED),beartype.beartype
FAST := -m "not slow and not workflow"
FASTEST := -m "not slow and not workflow and not medium"
SLOW := -m "slow or workflow"

.PHONY: gpu demo check test static lint types layers workflow-lint prose fast-tests tests medium test-tools test-readers docs format install generated clean

demo: install
	snakemake --cores $(CORES)
	@test results/demo/report.html -nt results/demo/tables/table.csv || snakemake --report results/demo/report.html
	@wsss show results/demo

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock torch torchvision
	$(PIP) --no-deps --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	$(BYTECODE)
	touch $@

check: install
	$(MAKE) static
	$(MAKE) fast-tests

test: install
	$(MAKE) static
	$(MAKE) tests

static: install
	$(MAKE) --jobs $(WORKERS) --output-sync=target lint types layers workflow-lint prose

lint: install
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/Snakefile workflow/rules

types: install
	mypy

layers: install
	lint-imports --no-cache

workflow-lint: install
	snakemake --lint

# Sentences of README, pages, help and descriptions: tools/prose/rules.py.
prose: install
	python -m tools.prose

fast-tests: install
	pytest $(PARALLEL) $(FASTEST)

tests: install
	python -m slipcover -m pytest $(PARALLEL) $(FAST) $(CHECKED)
	pytest $(PARALLEL) $(SLOW)
	@python -c 'import json; print("line coverage of wsss by the fast tests:", json.load(open(".coverage.json"))["summary"]["percent_covered_display"], "%")'

# The list of tests that `make check` leaves out, by their durations on this machine.
medium: install
	pytest $(PARALLEL) $(FAST) --durations=0 --durations-min=0.01 | python -m tests.medium

# The tests of programs in tools/, which the package does not need.
test-tools: install
	pytest tools

# Exports are read by other programs, which do not get along with requirements.lock.
test-readers: install $(READERS)/.installed
	WSSS_READERS=$(abspath $(READERS)/bin/python) pytest tests/export/test_readers.py

$(READERS)/.installed: tests/export/requirements-readers.txt
	$(PYTHON) -m venv $(READERS)
	$(READERS)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

GOLDEN_ON_GPU := $(addprefix tests/golden/test_, clip_es.py clip_es_crf.py evaluation.py excel.py weakclip.py weclip.py weclip_parts.py weclip_plus.py)

# Where a GPU is: published tensors in float32, and the speed. The tests that take a device use it.
gpu: install
	WSSS_TEST_DEVICE=cuda pytest $(GOLDEN_ON_GPU)
	$(BIN)/python -m benchmarks.gpu --json gpu.json

# Without network once its packages are there.
docs: $(DOCS_INSTALLED)
	sphinx-build --fail-on-warning --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html
	@echo "docs: file://$(abspath docs/_build/html/index.html)"

$(DOCS_INSTALLED): $(INSTALLED) docs/requirements.lock
	$(PIP) --no-deps --requirement docs/requirements.lock
	$(BYTECODE)
	touch $@

format: install
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/Snakefile workflow/rules

generated: install
	wsss config schema > workflow/schemas/config.schema.json

clean:
	rm -rf results .snakemake .coverage* docs/_build
