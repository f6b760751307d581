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
# make's own lists end at blanks; the checkout's path may have them, as nothing is named by it.
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV) is not one path without blanks: name one, such as VENV=.venv)
endif
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

# Put in its place whole, as a process may have the old one mapped, and counted as old: what stands for the environment
# is the extension that maturin made, and a target that needs it makes it anew. (A bench called by hand times this one.)
PROFILE := release
.PHONY: extension
extension: $(VENV)/.tools ## Build the extension alone, after a change in rust/; PROFILE=quick takes seconds
	cargo build --quiet --locked --profile $(PROFILE) --package gliner-fast-binding --target-dir target
	cp target/$(PROFILE)/libgliner_fast_rust.$(if $(filter Darwin,$(shell uname)),dylib,so) $(EXTENSION).new
	touch -t 200001010000 $(EXTENSION).new
	mv $(EXTENSION).new $(EXTENSION)

.PHONY: demo
demo: $(EXTENSION) ## Find entities in a real text with the built-in model, offline
	$(OFFLINE) $(BIN)/gliner-fast predict --labels "$(DEMO_LABELS)" "$(DEMO_TEXT)"

##@ Check
# Kernels compute with the widest vectors that a CPU has; those that others have are tested with, too.
OTHER_VECTORS := scalar $(if $(shell grep -m1 -ow avx512f /proc/cpuinfo 2>/dev/null),avx2)

.PHONY: test
test: $(EXTENSION) ## Run every test that needs no GPU, Python and Rust
	GLINER_FAST_EXAMPLES=$${GLINER_FAST_EXAMPLES:-60} $(OFFLINE) \
	  $(BIN)/python -m pytest -q -m "not gpu" --numprocesses $(WORKERS) --dist loadfile --durations 20
	PROPTEST_CASES=$${PROPTEST_CASES:-64} cargo test --workspace --locked --quiet
	for vectors in $(OTHER_VECTORS); do \
	  GLINER_FAST_TEST_VECTORS=$$vectors PROPTEST_CASES=16 cargo test --workspace --lib --locked --quiet || exit; done

.PHONY: lint
lint: $(EXTENSION) ## ruff, mypy --strict, stubtest, rustfmt, clippy
	$(MAKE) --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) \
	  lint-types lint-windows lint-stubs lint-style lint-rust

.PHONY: lint-types lint-windows lint-stubs lint-style lint-rust
lint-types:
	$(BIN)/mypy

# Windows lacks more of Python's library than macOS does. Its cache is its own: each platform would drop the other's.
lint-windows:
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 python/gliner_fast

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
	rm -rf dist/*.whl dist/installed # not dist/gpu-wheels, which was fetched
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
# Python is used, not .venv, with what lies in WHEELS. `python -m benches.gpu_check --help` tells the PARTS.
WHEELS ?= dist/gpu-wheels
PARTS ?=
GPU_PACKAGES := gliner transformers disentangled-flash flashdeberta einops sentencepiece accelerate psutil pytest-benchmark py-cpuinfo2 pytest-timeout

.PHONY: gpu-wheels
gpu-wheels: $(VENV)/.tools ## Fetch the wheels that a GPU machine without a network may lack, into WHEELS
	rm -f $(WHEELS)/*.whl # one version of each
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
	  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
	  --constraint .ci/constraints.txt --dest $(WHEELS) $(GPU_PACKAGES)

.PHONY: gpu-check
gpu-check: ## Run GPU tests and GPU benches with PYTHON as it is; needs no network
	PYTHONPATH="python$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m benches.gpu_check $(PARTS) --wheels $(WHEELS) $(if $(OUT),--out $(OUT))

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

# A sentence of the English Wikipedia (CC BY-SA), as it stands in CrossNER's music test set.
DEMO_LABELS := singer,song
DEMO_TEXT := Cliff Richard covered Lay All Your Love on Me, while Dionne Warwick, Peter Cetera, and Celebrity Skin \
  recorded their versions of SOS.

# The file of the built extension stands for the environment too: it is younger than all that both are made from. The
# constraints go by URL: pip takes a blank, which the path of a checkout may have, for the end of a name.
$(EXTENSION): $(VENV)/.tools $(RUST_SOURCES) pyproject.toml .ci/constraints.txt
	export VIRTUAL_ENV="$(abspath $(VENV))" \
	  PIP_CONSTRAINT="$$($(BIN)/python -c "import pathlib; print(pathlib.Path('.ci/constraints.txt').resolve().as_uri())")"; \
	$(BIN)/maturin develop --release --locked --extras dev
	touch $@

NEW_ENOUGH := -c "import sys; sys.exit(sys.version_info < (3, 10))"
OTHER_PYTHON := name one, as in: make PYTHON=python3.12

# What has no pip was left half-made, and is made anew. Only an environment is emptied, whatever VENV names.
$(VENV)/.tools: .ci/constraints.txt
	@if test -x $(BIN)/python && ! $(BIN)/python $(NEW_ENOUGH); then \
	  echo "$(VENV) is not of Python 3.10 or later: remove it (rm -rf $(VENV)); then $(OTHER_PYTHON)" >&2; exit 1; fi
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) $(NEW_ENOUGH) || { echo "$(PYTHON) is not Python 3.10 or later: $(OTHER_PYTHON)" >&2; exit 1; }; \
	  $(PYTHON) -m venv $$(test ! -f $(VENV)/pyvenv.cfg || echo --clear) $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt maturin
	touch $@
