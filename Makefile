# Feedmill's commands. Each sets up what it needs by itself: scripts/setup.py makes .venv once, then takes no time.

PYTHON ?= python3
# More arguments for pytest, for example: make test-unit ARGS="-k retry -x"
ARGS ?=
# Images: another engine's client (podman), their names, and more arguments for its build, for example
# IMAGE_ARGS="--build-arg DEFAULT_WEIGHTS=false". PYTHON_IMAGE and BUILD_IMAGE stand in for the Dockerfiles' own.
DOCKER ?= docker
IMAGES ?= toxic encode hint rollouts
IMAGE_PREFIX ?= feedmill-
IMAGE_TAG ?= dev
IMAGE_ARGS ?=
PYTHON_IMAGE ?=
BUILD_IMAGE ?= $(PYTHON_IMAGE)
# Debian's suites whose RabbitMQ `make test-brokers` fetches, the kinds of queues, and what it runs.
BROKERS ?= trixie sid
QUEUES ?= classic quorum
BROKER_TESTS ?= tests/integration/broker tests/e2e/test_crash.py tests/e2e/test_contract.py
# How often `make faults` runs the whole, in a row.
RUNS ?= 1
# Training takes and frees gigabytes in each step. Kept by the process, and in huge pages, a step took 0.98 s for 1.25 s.
KEEP_MEMORY := glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=8589934592:glibc.malloc.arena_max=3
BIN := .venv/bin
SUITES := $(wildcard tests/unit tests/integration tests/charts tests/e2e tests/faults)

# Without compiled modules every start of a worker, and the tests start hundreds, compiles torch's again: 3 s each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run up down status test test-unit test-integration test-e2e faults soak hostile fuzz test-brokers coverage charts \
  charts-docs e2e lint format docs lock train-toxic bench bench-quick bench-hint images images-onnx image-base test-images ci-images ci-images-onnx sbom scan clean

help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

setup: ## Make the virtual environment .venv with what Feedmill runs with
	@$(PYTHON) scripts/setup.py

setup-dev: ## The same, with what tests and lint need
	@$(PYTHON) scripts/setup.py --dev

run: setup ## Try it: start everything, send a sample feed, show the answers, stop everything
	@$(BIN)/feedmill run

up: setup ## Start RabbitMQ, the database and the three workers in the background
	@$(BIN)/feedmill up --detach

down: setup ## Stop what `make up` started
	@$(BIN)/feedmill down

status: setup ## Show queues, workers and their health
	@$(BIN)/feedmill status

test: setup-dev ## Run all tests, with the coverage
	@$(BIN)/pytest $(SUITES) --cov --cov-report=term $(ARGS)

test-unit: setup-dev ## Run the unit tests: seconds, no servers
	@$(BIN)/pytest tests/unit $(ARGS)

test-integration: setup-dev ## Run the tests against a private RabbitMQ and database
	@$(BIN)/pytest tests/integration $(ARGS)

test-e2e: setup-dev ## Run the tests through real worker processes
	@$(BIN)/pytest tests/e2e $(ARGS)

faults: setup-dev ## Run load under every fault, alone and mixed, with an accounting: tens of minutes, RUNS=3 times, on BROKER=sid (docs/reliability.md)
	@[ -z "$(BROKER)" ] || $(BIN)/python scripts/other_broker.py $(BROKER) .cache/brokers/$(BROKER)
	@failed=; for run in $$(seq $(RUNS)); do \
	  $(if $(BROKER),FEEDMILL_CACHE=$$PWD/.cache/brokers/$(BROKER)) FAULTS=full FAULTS_RUN=$$run $(BIN)/pytest tests/faults -p no:randomly -v $(ARGS) || { \
	    code=$$?; [ $$code -eq 1 ] || exit $$code; failed="$$failed $$run"; }; \
	done; [ -z "$$failed" ] || { echo "failed: run$$failed of $(RUNS); .cache/faults/summary-*.md"; exit 1; }

soak: setup-dev ## Run load for an hour (SOAK_SECONDS), look for leaks and drift, plot to .cache/faults/soak.png
	@FAULTS=full SOAK_SECONDS=$${SOAK_SECONDS:-3600} $(BIN)/pytest tests/faults/test_soak.py -p no:randomly -s $(ARGS)

hostile: setup-dev ## Send 100,000 hostile messages (HOSTILE) through three workers, good ones in between: minutes
	@HOSTILE=$${HOSTILE:-100000} $(BIN)/pytest tests/e2e/test_hostile.py -p no:randomly -s $(ARGS)

fuzz: setup-dev ## Fuzz the decoders for two minutes (FUZZ_SECONDS) with atheris, installed apart into .cache/fuzz
	@$(BIN)/pip install -q --no-deps --target .cache/fuzz atheris==3.0.0
	@PYTHONPATH=.cache/fuzz $(BIN)/python tests/fuzz/decoders.py -max_total_time=$${FUZZ_SECONDS:-120} $(ARGS)

test-brokers: setup-dev ## Run the broker's tests on other versions (BROKERS="trixie sid": 4.0 and the newest), QUEUES="classic quorum"
	@set -e; for suite in $(BROKERS); do for queues in $(QUEUES); do \
	  echo "$$suite, $$queues queues: $$($(BIN)/python scripts/other_broker.py $$suite .cache/brokers/$$suite)"; \
	  FEEDMILL_CACHE=$$PWD/.cache/brokers/$$suite TEST_QUEUE_TYPE=$$queues $(BIN)/pytest $(BROKER_TESTS) $(ARGS); \
	done; done

coverage: setup-dev ## Run all tests, and write the coverage to coverage.xml too
	@$(BIN)/pytest $(SUITES) --cov --cov-report=term --cov-report=xml $(ARGS)

charts: setup-dev ## Check the Helm charts: lint, unit tests, every object against its schema
	@$(BIN)/python scripts/chart_docs.py --check
	@$(BIN)/pytest tests/charts $(ARGS)

charts-docs: setup-dev ## Write the charts' schemas and tables of values from their values.yaml
	@$(BIN)/python scripts/chart_docs.py

e2e: setup-dev ## Install, load, scale, upgrade and remove Feedmill on the cluster that KUBECONFIG names (docs/kubernetes.md)
	@$(BIN)/pytest tests/cluster -p no:randomly -v $(ARGS)

lint: setup-dev ## Check format, style, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy scripts
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/readme_settings.py --check
	@$(BIN)/python scripts/chart_docs.py --check

format: setup-dev ## Format the code, and fix what ruff can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup-dev ## Write the table of settings into README.md
	@$(BIN)/python scripts/readme_settings.py

lock: setup-dev ## Write requirements/*.txt from what is installed (how to renew: scripts/lock.py)
	@$(BIN)/python scripts/lock.py

train-toxic: setup ## Train the toxic worker's default model again (the data: models/toxic)
	@GLIBC_TUNABLES=$(KEEP_MEMORY) $(BIN)/python models/toxic/train.py $(ARGS)

bench: setup-dev ## Measure the workers against the system that they replace and their peers (installs those apart; ARGS=--help)
	@$(BIN)/python bench/throughput $(ARGS)

bench-quick: setup-dev ## Prove that the measurement runs: no installs, figures of no meaning
	@$(BIN)/python bench/throughput --quick

bench-hint: setup-dev ## Measure the hint worker's index: bench/hint (minutes; ARGS=--quick: seconds)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=2 $(BIN)/python bench/hint $(ARGS)

images: ## Build the workers' container images (PYTHON_IMAGE=..., IMAGE_TAG=..., IMAGE_ARGS=...)
	@set -e; for worker in $(IMAGES); do \
	  folder=workers/$$worker; [ $$worker != rollouts ] || folder=rollouts; \
	  $(DOCKER) build -f $$folder/Dockerfile -t $(IMAGE_PREFIX)$$worker:$(IMAGE_TAG) \
	    $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) $(if $(BUILD_IMAGE),--build-arg BUILD_IMAGE=$(BUILD_IMAGE)) \
	    --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" $(IMAGE_ARGS) . ; \
	done

images-onnx: ## Build the images of encode and toxic that run on ONNX Runtime, without torch (the same variables)
	@set -e; for worker in encode toxic; do \
	  $(DOCKER) build -f workers/onnx.Dockerfile -t $(IMAGE_PREFIX)$$worker-onnx:$(IMAGE_TAG) --target $$worker \
	    --build-arg WORKER=$$worker \
	    $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) $(if $(BUILD_IMAGE),--build-arg BUILD_IMAGE=$(BUILD_IMAGE)) \
	    --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" $(IMAGE_ARGS) . ; \
	done

image-base: ## Make the images to build from, for a machine without a container registry (scripts/base_image.sh)
	@DOCKER="$(DOCKER)" PYTHON="$(PYTHON)" scripts/base_image.sh

test-images: setup-dev ## Run the tests of the images that `make images` built, in containers
	@IMAGE_PREFIX="$(IMAGE_PREFIX)" IMAGE_TAG="$(IMAGE_TAG)" $(BIN)/pytest $(or $(TESTS),tests/images) $(ARGS)

ci-images: setup-dev ## From nothing: an engine (a private one where none runs), the base image, the images, their tests
	@scripts/with_engine.sh $(MAKE) --no-print-directory _images-from-nothing

ci-images-onnx: setup-dev ## The same with the images that run without torch: eight minutes more, so no step of CI
	@scripts/with_engine.sh $(MAKE) --no-print-directory _onnx-images-from-nothing

.PHONY: _images-from-nothing _onnx-images-from-nothing
_images-from-nothing:
	@$(MAKE) --no-print-directory image-base
	@$(MAKE) --no-print-directory images PYTHON_IMAGE=feedmill-python:local BUILD_IMAGE=feedmill-build:local \
	  IMAGE_ARGS="--network host $(IMAGE_ARGS)"
	@$(MAKE) --no-print-directory test-images

_onnx-images-from-nothing:
	@$(MAKE) --no-print-directory image-base
	@$(MAKE) --no-print-directory images-onnx PYTHON_IMAGE=feedmill-python:local BUILD_IMAGE=feedmill-build:local \
	  IMAGE_ARGS="--network host $(IMAGE_ARGS)"
	@NEED_ONNX_IMAGES=1 $(MAKE) --no-print-directory test-images TESTS=tests/images/test_onnx_images.py

sbom: ## Write a CycloneDX bill of materials of each image to .cache/sbom
	@DOCKER="$(DOCKER)" PYTHON="$(PYTHON)" scripts/image_packages.sh sbom $(foreach worker,$(IMAGES),$(IMAGE_PREFIX)$(worker):$(IMAGE_TAG))

scan: ## Look for known vulnerabilities in each image's Python packages (needs network)
	@DOCKER="$(DOCKER)" PYTHON="$(PYTHON)" scripts/image_packages.sh scan $(foreach worker,$(IMAGES),$(IMAGE_PREFIX)$(worker):$(IMAGE_TAG))

clean: ## Stop what `make up` started, then remove everything that was made here, .venv too
	@if [ -x $(BIN)/feedmill ] && [ -e .feedmill/stack.json ]; then $(BIN)/feedmill down; fi
	rm -rf .venv .cache .feedmill .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* coverage.xml
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
