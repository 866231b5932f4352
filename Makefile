# Every target installs what it needs first; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := $(VENV)/node
UV := $(BIN)/uv
UV_VERSION := 0.13.9
TORCH := torch==2.13.0
DEMO_SECONDS ?=
DEMO_FAULT ?=
DEMO_FLAGS ?=
ONLY ?=
STACK_DATA ?=

empty :=
space := $(empty) $(empty)
comma := ,
# uv does not read pip's settings: hand on the ones that say where packages are.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# Without an NVIDIA GPU the CUDA libraries are gigabytes for nothing. Whoever says where packages come from has chosen
# a build of torch with it: this would look for one elsewhere.
ifeq ($(origin UV_TORCH_BACKEND)$(UV_FIND_LINKS)$(UV_DEFAULT_INDEX)$(UV_INDEX)$(UV_INDEX_URL),undefined)
ifeq ($(shell command -v nvidia-smi || true),)
CPU_TORCH := UV_TORCH_BACKEND=cpu
endif
endif
export PATH := $(abspath $(BIN)):$(PATH)
export VIRTUAL_ENV := $(abspath $(VENV))
# Where Python is told to write no bytecode it compiles vLLM anew in every process, which doubles what its start takes.
export PYTHONDONTWRITEBYTECODE :=

# Old enough that its code runs with protobuf 5.29 and newer; it imports pkg_resources, which setuptools 81 dropped.
PROTOC := $(UV) run --quiet --isolated --no-project --python $(BIN)/python \
	--with grpcio-tools==1.71.2 --with 'setuptools<81' python -m grpc_tools.protoc -Iprotos
PROTOS := $(wildcard protos/introspan_wire/v1/*.proto)
BEGAN := $(shell date +%s)
TOOK = echo "make $@ took $$(( $$(date +%s) - $(BEGAN) )) s"
CHECKED := sdk collector protos demo bench compat deploy docs tests

.PHONY: help
help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

INSTALL := $(UV) pip install --overrides requirements/overrides.txt -r requirements/dev.txt $(TORCH) --editable .
.PHONY: install
install: $(VENV)/.installed ## Makes .venv with everything the other targets need.

$(UV):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PYTHON=$(PYTHON) is too old: give make PYTHON=<3.11 or newer>")'
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || requirements/debian.sh $(VENV) python3-venv
	$(PYTHON) -m venv $(VENV) || { echo "PYTHON=$(PYTHON) cannot make a virtual environment: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)

$(VENV)/.installed: pyproject.toml requirements/dev.txt requirements/overrides.txt | $(UV)
	$(CPU_TORCH) $(INSTALL) || \
	  { [ -n "$(CPU_TORCH)" ] && echo "torch's CPU build cannot be had here: taking the usual, larger one" && $(INSTALL); }
	touch $@

.PHONY: demo
demo: install ## Serves a small real model, shows what happens inside it, and what alarms. DEMO_SECONDS=240 ends by itself, DEMO_FAULT=layer or sampler breaks something else.
	requirements/debian.sh $(VENV) libnuma1
	$(BIN)/python -m demo.run $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS)) \
	  $(if $(DEMO_FAULT),--fault $(DEMO_FAULT)) $(DEMO_FLAGS)

.PHONY: demo-reference
demo-reference: install ## Collects a reference that later demonstrations compare with, in 10 minutes.
	requirements/debian.sh $(VENV) libnuma1
	$(BIN)/python -m demo.run --build-reference --seconds $(or $(DEMO_SECONDS),600) $(DEMO_FLAGS)

.PHONY: stack
stack: install ## Starts collector, Prometheus and Alertmanager with the files of deploy/ on loopback. STACK_DATA=folder keeps data.
	requirements/debian.sh $(VENV) prometheus prometheus-alertmanager
	$(BIN)/python -m deploy.stack.run $(if $(STACK_DATA),--data $(STACK_DATA))

.PHONY: check
check: lint ## What lint checks, and the unit tests but the thorough ones.
	$(BIN)/python -m pytest -q -m 'not slow and not thorough' -n 2 --dist worksteal tests/unit
	@$(TOOK)

.PHONY: lint
lint: install ## Style, types, import contracts, protocol, generated files.
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(MAKE) --no-print-directory check-proto
	$(BIN)/python -m docs.generate --check
	$(MAKE) --no-print-directory check-dashboards
	$(BIN)/python -m deploy.helm.chart --check

.PHONY: check-proto
check-proto: install
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PROTOC) --python_out="$$fresh" --pyi_out="$$fresh" --grpc_python_out="$$fresh" $(PROTOS); \
	for made in "$$fresh"/introspan_wire/v1/*; do \
	  cmp "$$made" "protos/introspan_wire/v1/$$(basename "$$made")" || { echo "generated code is stale: run make proto"; exit 1; }; \
	done

.PHONY: test
test: install components ## Every test but the slow ones; real vLLM and Prometheus included.
	$(MAKE) --no-print-directory --keep-going test-units test-services test-engines test-alone
	@$(TOOK)

# One after another, each also where one before has failed: a run tells of everything that fails.
.PHONY: test-units
test-units:
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal tests/unit tests/property

.PHONY: test-services
test-services:
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile tests/integration tests/deploy

.PHONY: test-engines
test-engines:
	$(BIN)/python -m pytest -m 'not slow and not alone' -n 2 --dist loadgroup tests/e2e

# What measures time, without another test beside it.
.PHONY: test-alone
test-alone:
	$(BIN)/python -m pytest -m 'not slow and alone' tests/e2e

.PHONY: test-all
test-all: install components ## Every test.
	$(BIN)/python -m pytest tests
	@$(TOOK)

# Grafana's types of a dashboard and the compiler that holds ours against them. No lock file: it would name a registry.
$(NODE)/.installed: tests/deploy/package.json | install
	requirements/debian.sh $(VENV) npm
	mkdir -p $(NODE) && cp $< $(NODE)/
	npm install --prefix $(NODE) --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

.PHONY: components
components: install $(NODE)/.installed
	requirements/debian.sh $(VENV) libnuma1 g++ openssl python3-dev prometheus prometheus-alertmanager chromium

.PHONY: bench
bench: install ## Measures cost and throughput and writes docs/benchmarks.md. ONLY=ingest runs one part.
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

.PHONY: bench-faults
bench-faults: install ## Injects faults and writes docs/detection-results.md: what is caught. ONLY=layers runs one part.
	$(UV) pip install --quiet --no-deps -r requirements/bench.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.faults $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE))

# In an environment of its own: .venv has vLLM for CPUs. Its GPU is looked for before 10 GB are fetched.
.PHONY: bench-gpu
bench-gpu: $(UV) ## On a machine with an NVIDIA GPU: measures there and writes docs/benchmarks-gpu.md. ONLY=parity runs one step.
	$(BIN)/python -m bench.gpu.device
	$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-gpu
	$(UV) pip install --quiet --python .venv-gpu/bin/python -r requirements/gpu.txt --editable '.[collector]'
	.venv-gpu/bin/python -m bench.gpu $(if $(ONLY),--only $(ONLY))

.PHONY: compat
compat: install ## Looks at every supported release of vLLM and writes docs/compatibility.md. ONLY=0.25.1 looks at one.
	$(BIN)/python -m compat $(if $(ONLY),--only $(ONLY))

.PHONY: proto
proto: install ## Regenerates the code of protos/.
	$(PROTOC) --python_out=protos --pyi_out=protos --grpc_python_out=protos $(PROTOS)

.PHONY: docs
docs: install ## Regenerates docs/signals.md and docs/settings.md.
	$(BIN)/python -m docs.generate

.PHONY: dashboards
dashboards: install ## Writes the JSON of Grafana's dashboards, and its copy in the Helm chart.
	$(BIN)/python -m deploy.grafana.build
	$(BIN)/python -m deploy.helm.chart

.PHONY: check-dashboards
check-dashboards: install
	$(BIN)/python -m deploy.grafana.build --check

.PHONY: chart
chart: install ## Copies rules, dashboards and the schema of the settings into the Helm chart.
	$(BIN)/python -m deploy.helm.chart

# torch is a build of its own on every machine, and triton goes with it.
.PHONY: lock
lock: $(UV) ## Resolves requirements/dev.txt anew.
	$(UV) pip compile pyproject.toml --extra dev --overrides requirements/overrides.txt --python-version 3.11 \
	  --no-emit-package torch --no-emit-package triton --no-annotate --upgrade --custom-compile-command 'make lock' -o requirements/dev.txt
	! grep -E '^(nvidia|cuda)-' requirements/dev.txt || { echo "the lock took a CUDA build of torch: set UV_TORCH_BACKEND=cpu"; exit 1; }

.PHONY: clean
clean: ## Removes .venv and every cache; the converted model stays.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
