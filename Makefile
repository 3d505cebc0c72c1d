# `make demo` and `make test` set up what they need. PYTHON names the interpreter the environment is made with.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Installed again when the dependencies change.
READY := $(VENV)/.ready

# The documentation site's tools, which the tests do not need.
DOCS_READY := $(VENV)/.docs-ready

# Jupyter Lab, which neither needs.
NOTEBOOKS_READY := $(VENV)/.notebooks-ready

.PHONY: help demo test test-all test-notebooks bench docs notebooks notebook-outputs lint format setup clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      the whole job on simulated recordings, a few minutes on a CPU"
	@echo "make test      lint, types, import contracts and tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make docs      the documentation site, in build/site"
	@echo "make notebooks the tutorials in Jupyter Lab, until Ctrl-C"
	@echo "make bench     every benchmark at real size: about two hours, 40 GB of space in BENCH"
	@echo "make setup     only the environment, in $(VENV)"

setup: $(READY)

$(READY): pyproject.toml
	$(shell command -v $(PYTHON) >/dev/null && echo $(PYTHON) || echo python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/sensorium demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One process more than cores, up to 4: many tests wait for processes that they start.
N_PROCESSES := $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu); echo $$((n < 4 ? n + 1 : 4)))
# A file's tests stay in one process, with what they share. tests/conftest.py puts the long ones first.
PYTEST := $(BIN)/python -m pytest --numprocesses $(N_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 20

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "slow or not slow"

# Runs every notebook, each in a process of its own.
test-notebooks: $(READY)
	$(PYTEST) --dist load -m "slow or not slow" tests/integration/test_notebooks.py

# Of the hundreds of processes that the tests start, each would compile the project, and pytest's plugins, for itself.
unexport PYTHONDONTWRITEBYTECODE

# Keeps the archive of real size, which takes long to make, for the next run.
BENCH ?= /tmp/sensorium-bench

bench: $(READY)
	$(BIN)/python benchmarks/array_codecs.py --work $(BENCH)
	$(BIN)/python benchmarks/block_encoder.py
	$(BIN)/python benchmarks/layout.py --work $(BENCH)
	$(BIN)/python benchmarks/throttled.py --work $(BENCH)
	$(BIN)/python benchmarks/loader.py --work $(BENCH)
	$(BIN)/python benchmarks/explore.py --work $(BENCH)
	$(BIN)/python benchmarks/simulation.py
	$(BIN)/python benchmarks/orchestration.py --work $(BENCH)
	$(BIN)/python benchmarks/cluster.py --work $(BENCH)
	$(BIN)/python benchmarks/linking.py --work $(BENCH)
	$(BIN)/python benchmarks/model_steps.py --repeats 1
	$(BIN)/python benchmarks/training.py --model factorized3d
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/model_comparison.py --work $(BENCH)
	$(BIN)/python benchmarks/ingest.py --work $(BENCH)
	$(BIN)/python benchmarks/scale.py --work $(BENCH)
	$(BIN)/python benchmarks/scoring.py --work $(BENCH) --sessions 5
	$(BIN)/python benchmarks/submission.py --work $(BENCH)

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	@touch $(DOCS_READY)

# Warnings are errors, and so are references that lead nowhere. Made anew each time, so that no page is left of old ones.
docs: $(DOCS_READY)
	rm -rf build/site docs/api docs/gallery
	MPLBACKEND=agg $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs 2 \
		--doctree-dir build/site-doctrees --fresh-env --conf-dir docs . build/site
	@echo "Open build/site/index.html"

$(NOTEBOOKS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[notebooks]"
	@touch $(NOTEBOOKS_READY)

# Listens on loopback alone, and asks no server for news, versions or extensions.
notebooks: $(NOTEBOOKS_READY)
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=notebooks --LabApp.extension_manager=readonly \
		--LabApp.news_url= --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(JUPYTER_OPTIONS)

# Executes the notebooks and writes their outputs, which are committed.
notebook-outputs: $(READY)
	$(BIN)/python notebooks/make_outputs.py $(NOTEBOOKS)

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
