# Each target does all of its own set-up; on a fresh machine it needs python3.11 or newer with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Only wheels whose hash is in a lock; nothing is resolved, and nothing is built from a source.
INSTALL := $(BIN)/python -m pip install --quiet --only-binary :all: --require-hashes --no-deps
READY := $(VENV)/.ready

.PHONY: demo test test-fast check docs wheel deb lock bench clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

$(READY): pyproject.toml locks/dev.txt locks/torch.txt locks/torch-cpu.txt locks/torch-cuda.txt
	@echo "Setting up $(VENV) with pinned packages (once, a few minutes)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Wardround needs Python 3.11 or newer; try: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --requirement locks/torch-cpu.txt 2> /dev/null || \
	  { echo "No CPU build of torch where pip looks (PIP_FIND_LINKS): taking PyPI's, of several GB on Linux."; \
	    $(INSTALL) --requirement locks/torch.txt; }
	@if $(BIN)/python locks/needs_cuda.py; then $(INSTALL) --requirement locks/torch-cuda.txt; fi
	@$(INSTALL) --requirement locks/dev.txt
	@$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $(READY)

demo: $(READY)  ## four invented hospitals train together, with and without privacy; opens no port
	@echo "Demo: four invented hospitals; the report will be runs/demo/report.html."
	@$(BIN)/wardround-simulate compare configs/simulations/demo.yaml --seeds 2 --out runs/demo

# One thread a worker: several with two threads each would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder --quiet

test: $(READY)  ## run every test; as root it installs the programs of others that they start
	@echo "Tests: the whole suite, four workers; it waits more than it computes."
	@missing="$$(sh tests/peers.sh)" && MISSING_PEERS="$$missing" $(PYTEST) --numprocesses 4

test-fast: $(READY)  ## run the tests that start no process and no server
	@echo "Tests without processes and servers, a few minutes; make test runs all."
	@$(PYTEST) --numprocesses 2 -m "not processes and not slow"

check: $(READY)  ## lint and types
	@echo "Check: ruff and mypy."
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy

docs: $(READY)  ## build the pages of docs/ into site/; a warning is an error
	@echo "Docs: site/index.html."
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

wheel: $(READY)  ## build the wheel into dist/, with locks, bill of materials and hashes
	@echo "Wheel: dist/."
	@$(BIN)/python -m build --wheel --no-isolation --quiet
	@$(BIN)/python locks/release.py

deb: wheel  ## build dist/wardround-site_VERSION_all.deb for a hospital's Debian machine
	@$(BIN)/python deploy/deb.py

lock: $(READY)  ## write locks/ anew from pyproject.toml and constraints.txt
	@echo "Lock: locks/."
	@$(BIN)/python locks/lock.py

bench: $(READY)  ## measure speed and memory against peers, as ratios
	@echo "Benchmarks: ratios in one run; best on a quiet machine."
	@sh tests/peers.sh > /dev/null
	@$(BIN)/python benchmarks/run.py

clean:  ## remove the environment and build output; runs/ stays
	rm -rf $(VENV) build dist site *.egg-info
