# Every target sets up what it needs: a machine with Python 3, cargo and make is enough. Repeated calls do nothing
# where nothing changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTENSION := python/gliner_fast/_rust.abi3.so
RUST_SOURCES := $(shell find rust -type f) Cargo.toml Cargo.lock
# Tests keep torch at one thread; a file goes to one worker, so that what its tests share is made once.
WORKERS ?= auto
# Models come from the package, never from a hub; make the environment say so to a test that tries.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# One interpreter for maturin, clippy and cargo test, or each of them builds PyO3 anew.
export PYO3_PYTHON := $(abspath $(BIN)/python)

##@ Use
.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET [PYTHON=python3] [VENV=.venv]" } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: env
env: $(EXTENSION) ## Make .venv with every dependency and build the extension into the tree

.PHONY: demo
demo: $(EXTENSION) ## Find entities in a real text with the built-in model, offline
	$(OFFLINE) $(BIN)/gliner-fast predict --labels "$(DEMO_LABELS)" "$(DEMO_TEXT)"

##@ Check
.PHONY: test
test: $(EXTENSION) ## Run every test that needs no GPU, Python and Rust
	$(OFFLINE) $(BIN)/python -m pytest -q -m "not gpu" --numprocesses $(WORKERS) --dist loadfile --durations 20
	cargo test --workspace --locked --quiet

.PHONY: lint
lint: $(EXTENSION) ## ruff, mypy --strict, stubtest, rustfmt, clippy
	$(MAKE) --jobs 2 --output-sync lint-types lint-stubs lint-style lint-rust

.PHONY: lint-types lint-stubs lint-style lint-rust
lint-types:
	$(BIN)/mypy

lint-stubs: lint-types # not beside it: both write to mypy's cache, which one may find locked
	MYPYPATH=python $(BIN)/python -m mypy.stubtest gliner_fast._rust --mypy-config-file pyproject.toml

lint-style:
	$(BIN)/ruff check
	$(BIN)/ruff format --check

lint-rust:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: wheel
wheel: $(EXTENSION) ## Build the wheel into dist/ and compare its kernels and model with the tree
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	$(BIN)/python .ci/check_wheel.py dist/*.whl
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target dist/installed dist/*.whl
	PYTHONPATH=dist/installed $(OFFLINE) $(BIN)/python -c "import gliner_fast; \
	  assert 'dist/installed' in gliner_fast.__file__, gliner_fast.__file__; \
	  assert gliner_fast.GLiNER.from_pretrained().predict_entities('He lives in London.', ['city']); \
	  print('wheel: installed, and its built-in model finds entities')"

.PHONY: bench
bench: $(EXTENSION) ## Time ours beside gliner on this CPU; JSON into benches/results, then the table
	mkdir -p benches/results; \
	result=benches/results/$$(date +%F)-$$($(BIN)/python -m benches.hardware).json; \
	$(OFFLINE) $(BIN)/python -m pytest -q benches -m "not gpu" --benchmark-json="$$result"; \
	$(BIN)/python -m benches.report "$$result"

.PHONY: bench-check
bench-check: $(EXTENSION) ## Run every bench once on a tiny checkpoint: do both sides still agree?
	$(OFFLINE) GLINER_FAST_BENCH_SIZES=tiny GLINER_FAST_BENCH_SCALE=0.1 \
	  $(BIN)/python -m pytest -q benches -m "not gpu" --benchmark-disable

# A GPU machine often has no network, but torch, Triton, transformers, pytest, hypothesis and numpy already: the ambient
# Python is used, not .venv, with what lies in WHEELS. The tests need no more than that and the tree with the built
# $(EXTENSION) (abi3: one build serves every Python from 3.10); benches need pytest-benchmark, and what
# compares with gliner needs gliner. Tests are named, since to collect the others would import pyarrow, Ray, pandas, ...
# Results go to the folder OUT, else benches/results; BENCHES names files of benches, for a part of them.
WHEELS ?= dist/gpu-wheels
BENCHES ?= benches
GPU_PACKAGES := gliner disentangled-flash flashdeberta einops sentencepiece accelerate psutil pytest-benchmark py-cpuinfo2 pytest-timeout

.PHONY: gpu-wheels
gpu-wheels: $(VENV)/.tools ## Fetch the wheels that a GPU machine without a network may lack, into WHEELS
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
	  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
	  --constraint .ci/constraints.txt --dest $(WHEELS) $(GPU_PACKAGES)

.PHONY: gpu-check
gpu-check: ## Run GPU tests and GPU benches with PYTHON as it is; needs no network and no compiler
	@test -f $(EXTENSION) || { echo "$(EXTENSION) is missing: run 'make env' where cargo is and carry it here" >&2; exit 1; }
	carried=$$(mktemp -d); trap 'rm -rf "$$carried"' EXIT; \
	if compgen -G "$(WHEELS)/*.whl" >/dev/null; then \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$$carried" $(WHEELS)/*.whl; \
	fi; \
	export $(OFFLINE) PYTHONPATH="python:$$carried$${PYTHONPATH:+:$$PYTHONPATH}"; \
	has() { $(PYTHON) -c "import sys; from importlib.util import find_spec; sys.exit(find_spec('$$1') is None)"; }; \
	$(PYTHON) -c "import torch; assert torch.cuda.is_available(), 'no CUDA device'; print(torch.cuda.get_device_name())"; \
	chosen="gpu"; \
	has gliner || { chosen="gpu and not gliner"; echo "gliner is missing: what compares with it is left out" >&2; }; \
	! has flashdeberta || $(PYTHON) -c "import flashdeberta" || { rm -rf "$$carried"/flashdeberta*; echo "flashdeberta does not run with what is here, and is left out" >&2; }; \
	failed=0; \
	$(PYTHON) -m pytest -q tests/test_gpu.py tests/test_upload.py tests/kernels -m "$$chosen" || failed=1; \
	has pytest_benchmark || { echo "pytest-benchmark is missing, so no bench runs: carry 'make gpu-wheels'" >&2; exit 1; }; \
	mkdir -p "$${OUT:-benches/results}"; \
	result="$${OUT:-benches/results}/$$(date +%F)-$$($(PYTHON) -m benches.hardware --device cuda).json"; \
	rm -f "$$result"; \
	$(PYTHON) -m pytest -q $(BENCHES) --continue-on-collection-errors --ignore benches/bench_jobs.py -m "$$chosen" --benchmark-json="$$result" || failed=1; \
	if test -s "$$result"; then $(PYTHON) -m benches.report "$$result"; else echo "no bench ran to its end" >&2; failed=1; fi; \
	exit $$failed # only now: a card that is lent for minutes should not go back without figures

##@ Rest
.PHONY: format
format: $(EXTENSION) ## Let ruff and rustfmt mend what they can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt --all

.PHONY: clean
clean: ## Remove builds and caches; .venv stays (rm -rf .venv removes it)
	rm -rf target dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks benches/.cache tests/.cache $(EXTENSION)
	find python kernels tests benches -name __pycache__ -prune -exec rm -rf {} +

# A sentence of the English Wikipedia (CC BY-SA), as it stands in CrossNER's science test set.
DEMO_LABELS := country,organization
DEMO_TEXT := Bangladesh is a member of the UN, World Trade Organization, International Monetary Fund, the World Bank, Asian \
  Development Bank, OIC, Islamic Development Bank, SAARC, BIMSTEC and the Islamic Military Counter Terrorism Coalition.

# The file of the built extension stands for the environment too: it is younger than all that both are made from.
$(EXTENSION): $(VENV)/.tools $(RUST_SOURCES) pyproject.toml .ci/constraints.txt
	VIRTUAL_ENV=$(abspath $(VENV)) PIP_CONSTRAINT=$(abspath .ci/constraints.txt) \
	  $(BIN)/maturin develop --release --locked --extras dev
	touch $@

$(VENV)/.tools: .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt maturin
	touch $@
