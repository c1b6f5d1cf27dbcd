# Every command a developer types. `make help` prints them.
.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c

PY := .venv/bin/python
BIN := .venv/bin
CODE := services deploy bench tests protos/generate.py
TYPED := services/kit services/gateway services/billing services/scheduler services/gpu-worker/gpu_worker services/gpu-worker/training deploy/local bench tests
WORKERS ?= 2
# whole files to each worker in the order of tests/conftest.py: what takes long comes first
PYTEST = $(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# of `make demo` and `make up`
PROMPT ?= a red circle on a white background
OUT ?= picture.png
STATE ?= .easel

.PHONY: help
help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make or refresh .venv (all other commands do this by themselves)
	@deploy/scripts/setup.sh

# --- run ----------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## one picture through the whole of Easel: PROMPT="…" OUT=picture.png [SIZE=64x64 MODEL=… STEPS=… SEED=… GUIDANCE=…]
	@$(PY) -m easel_local demo --prompt $(call quote,$(PROMPT)) --out $(call quote,$(OUT)) \
	  $(if $(SIZE),--size $(call quote,$(SIZE))) $(if $(MODEL),--model $(call quote,$(MODEL))) \
	  $(if $(STEPS),--steps $(call quote,$(STEPS))) $(if $(SEED),--seed $(call quote,$(SEED))) \
	  $(if $(GUIDANCE),--guidance $(call quote,$(GUIDANCE)))

.PHONY: up
up: setup ## run the stack until Ctrl-C: [STATE=.easel PORT=8080 WORKER_COUNT=1 SCHEDULERS=1]
	@exec $(PY) -m easel_local up --state $(call quote,$(STATE)) $(if $(PORT),--port $(PORT)) $(if $(WORKER_COUNT),--workers $(WORKER_COUNT)) $(if $(SCHEDULERS),--schedulers $(SCHEDULERS))

.PHONY: down
down: setup ## stop the stack of STATE
	@$(PY) -m easel_local down --state $(call quote,$(STATE))

.PHONY: token
token: setup ## print an access token: USER=alice PLAN=pro
	@$(PY) -m easel_local token --state $(call quote,$(STATE)) --user $(call quote,$(USER)) $(if $(PLAN),--plan $(call quote,$(PLAN)))

.PHONY: status
status: setup ## what runs, where, and how it feels
	@$(PY) -m easel_local status --state $(call quote,$(STATE))

.PHONY: logs
logs: setup ## the services' logs: [SERVICE=scheduler]
	@$(PY) -m easel_local logs --state $(call quote,$(STATE)) $(if $(SERVICE),$(SERVICE))

.PHONY: ledger-check
ledger-check: setup ## all invariants of billing's ledger in the stack of STATE; fails when something does not add up
	@$(PY) -m easel_local ledger-check --state $(call quote,$(STATE))

.PHONY: audit-verify
audit-verify: setup ## billing's audit log in the stack of STATE against its anchors; fails when something was changed
	@$(PY) -m easel_local audit-verify --state $(call quote,$(STATE))

.PHONY: clean
clean: ## stop the stack of STATE and remove its data, caches and .venv
	@if [ -x $(PY) ]; then $(PY) -m easel_local clean --state $(call quote,$(STATE)); fi
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- develop ------------------------------------------------------------------------------------

.PHONY: proto
proto: setup ## regenerate protos/gen from protos/easel
	PATH=$(BIN):$$PATH $(PY) protos/generate.py

.PHONY: proto-check
proto-check: setup ## stubs current, contract linted, nothing broken since the last release
	@PATH=$(BIN):$$PATH $(PY) protos/generate.py --check
	@$(BIN)/buf lint protos
	@$(BIN)/buf breaking protos --against protos/released.binpb

.PHONY: proto-release
proto-release: setup ## record the contract that later changes must not break
	$(BIN)/buf build protos -o protos/released.binpb

.PHONY: constraints
constraints: setup ## compile constraints.txt anew: [ARGS=--upgrade]
	deploy/scripts/constraints.sh $(ARGS)

.PHONY: fmt
fmt: setup ## format, and mend what ruff can mend
	@$(BIN)/ruff check -q --fix $(CODE) || true
	@$(BIN)/ruff format $(CODE)

.PHONY: lint
lint: setup ## ruff, all rules
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check -q $(CODE)

.PHONY: types
types: setup ## mypy, strict
	@$(BIN)/mypy $(TYPED)

.PHONY: imports
imports: setup ## who may import whom (STYLE: imports only point down)
	@$(BIN)/lint-imports --no-cache

.PHONY: migrations
migrations: setup ## lint the SQL of all migrations
	@$(PY) deploy/scripts/lint_migrations.py

.PHONY: unit
unit: setup ## unit tests: no sockets, no files, no sleeps
	@$(PYTEST) tests/unit

.PHONY: integration
integration: setup ## adapters and servicers on real Postgres, Redis, gRPC
	@$(PYTEST) tests/contract tests/integration

.PHONY: e2e
e2e: setup ## whole stacks of real processes, killed at will
	@$(PYTEST) tests/e2e

.PHONY: chaos-scheduler
chaos-scheduler: setup ## kill -9 workers, schedulers, Redis, Postgres, and judge the history: [KILLS=20 SEED=…]
	@$(PY) -m tests.chaos --kills $(or $(KILLS),20) $(if $(SEED),--seed $(call quote,$(SEED)))

.PHONY: chaos-billing
chaos-billing: setup ## kill -9 billing at named points between its writes, and judge what is left: [ARGS="--times 5 --only webhook"]
	@$(PY) -m tests.chaos_billing $(ARGS)

.PHONY: check
check: proto-check lint types imports migrations unit ## the inner loop, under two minutes

.PHONY: test
test: proto-check lint types imports migrations ## everything
	@$(PYTEST) tests

.PHONY: bench-queue
bench-queue: setup ## the scheduler beside Celery, taskiq, pgqueuer, procrastinate (12 minutes): [ARGS="--quick --json --only=easel,celery"]
	@$(PY) -m bench.queue $(ARGS)

.PHONY: bench-engine
bench-engine: setup ## our engine beside stock diffusers, static batching and LitServe (12 minutes): [ARGS="--quick --json --rounds 3 --only=easel-http,litserve --models=tiny"]
	@$(PY) -m bench.engine $(ARGS)

.PHONY: bench-billing
bench-billing: setup ## holds on one hot account: one conditional statement beside SELECT FOR UPDATE (2 minutes): [ARGS="--quick --json --rounds 3 --holds 2000"]
	@$(PY) -m bench.billing $(ARGS)

.PHONY: bench-simulator
bench-simulator: setup ## Easel's queue beside FIFO, strict priority and round robin, simulated (3 minutes): [ARGS="--gpus 1000 --users 1000000 --hours 24 --from-hour 0" PLOT=waits.svg]
	@$(if $(PLOT),$(PY) -m pip install -q -r bench/simulator/requirements.txt)
	@$(PY) -m bench.simulator day $(ARGS) $(if $(PLOT),--plot $(call quote,$(PLOT)))

.PHONY: train-shapes
train-shapes: setup ## train the built-in model from nothing into out/shapes-64 (over an hour): [QUICK=1 START=a model to train on from]
	@$(TRAINING) --out out/shapes-64 $(if $(QUICK),--quick) $(if $(START),--start $(call quote,$(START)))

.PHONY: eval-shapes
eval-shapes: setup ## how well a model keeps to 200 captions that it never saw (2 minutes): [MODEL=directory CAPTIONS=plain STEPS=20 GUIDANCE=4 JSON=1 SHEET=sheet.png]
	@$(TRAINING) --judge $(call quote,$(or $(MODEL),services/gpu-worker/models/shapes-64)) \
	  $(if $(CAPTIONS),--captions $(call quote,$(CAPTIONS))) $(if $(STEPS),--steps $(call quote,$(STEPS))) \
	  $(if $(GUIDANCE),--guidance $(call quote,$(GUIDANCE))) $(if $(JSON),--json) \
	  $(if $(SHEET),--sheet $(call quote,$(SHEET)))

# the training needs no installation, and one thread makes its results repeatable
TRAINING = PYTHONPATH=services/gpu-worker OMP_NUM_THREADS=1 $(PY) -m training

# a value as one word of the shell, whatever is in it
quote = '$(subst ','\'',$(1))'
