# make run: set up and do the main job.   make test: set up what tests need and run them all.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# Compiled kernels are kept in the checkout, never beside installed packages.
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba

.PHONY: run test test-cuda lint versus bench-gate clean

run: $(VENV)/.run
	$(BIN)/numbabn demo

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --cov --cov-fail-under=95 $(PYTEST_ARGS)

# The kernels for GPUs in numba's simulator, and all of them as machine code; it takes no GPU.
test-cuda: $(VENV)/.test-cuda
	$(BIN)/python -m pytest --no-cov $(wildcard tests/test_cuda_*.py)
	$(BIN)/python asv_bench/gpu_code.py

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

versus: $(VENV)/.bench
	$(BIN)/python asv_bench/versus.py --goals $(VERSUS_ARGS)

# Is HEAD slower than BASE? make bench-gate BASE=main
BASE ?= HEAD~1
bench-gate: $(VENV)/.test
	$(BIN)/python asv_bench/gate.py $(BASE) $(GATE_ARGS)

clean:
	rm -rf $(VENV) .cache build dist *.egg-info demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed: on Debian, apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.run: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	touch $@

$(VENV)/.test: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.test-cuda: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,cuda]' nvidia-cuda-nvcc
	touch $@

$(VENV)/.bench: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(VENV)/.lint: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	touch $@
