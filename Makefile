# Everything runs in .venv, made from requirements.lock. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
SCENARIO ?=
TRITON := 3.6.0

export FLWR_TELEMETRY_ENABLED := 0
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help install demo test test-slow test-kernels lint format lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## make .venv from the pinned lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; run make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## simulate a federation of four phantom hospitals
	$(BIN)/fedurwkv simulate $(SCENARIO)

test: install  ## the test suite, without the slow and the GPU tests; a process a core, a thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal -m "not slow and not gpu"

test-slow: install  ## the slow tests
	$(BIN)/pytest -m "slow and not gpu"

test-kernels: install .triton/$(TRITON)  ## Triton's kernels, interpreted and compiled without a GPU
	PYTHONPATH=.triton $(BIN)/pytest -n auto --timeout 900 tests/urwkv/ops/test_triton_scan.py -k without_a_gpu

.triton/$(TRITON):
	rm -rf .triton
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .triton triton==$(TRITON)
	@touch $@

lint: install  ## what CI checks beside the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## pin the environment anew from pyproject.toml
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet "torch==2.13.0" "setuptools>=77"
	.venv-lock/bin/pip install --quiet ".[dev,export]"
	{ echo "# Every package of the environment, pinned. Made by \`make lock\` from pyproject.toml."; \
	  .venv-lock/bin/pip freeze --all | grep -v -E '^(pip|fedurwkv)( |=)' | sed -E 's/^(torch==[0-9.]+).*/\1/'; } > requirements.lock
	rm -rf .venv-lock

clean:  ## remove the environment and what tools left behind
	rm -rf .venv .venv-lock .triton .mypy_cache .pytest_cache .ruff_cache *.egg-info build
