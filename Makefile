# Everything that a developer or a CI machine runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Each of the many programs that the tests start would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- The main job ---------------------------------------------------------------------------

.PHONY: demo
demo: $(STAMP) ## Run it all here: cluster, operator, a photo's labels, a new version under traffic
	$(BIN)/python -m demo up

.PHONY: try
try: $(STAMP) ## Only cluster, operator and a bucket, for a model of your own (README.md)
	$(BIN)/python -m demo install

.PHONY: env
env: $(STAMP) ## Print what a shell needs to work with that: eval "$$(make --silent env)"
	@$(BIN)/python -m demo env

.PHONY: demo-down
demo-down: $(STAMP) ## Take the demo away, leaving nothing behind
	$(BIN)/python -m demo down

.PHONY: record-demo
record-demo: $(STAMP) ## Run the demo, and draw docs/images/demo.svg from what it printed
	$(BIN)/python -m demo.recording

# Tests wait more than they work; those of one file share what they start.
SIDE_BY_SIDE := -n 4 --dist loadfile

# Whoever shares a machine is late now and then. What fails is run once more, and told at the end
# where it passes then: each of those is a fault to mend, of a test or of the program.
ONCE_MORE := --reruns 1 -rR

# -- Tests ----------------------------------------------------------------------------------

# A cluster is waited for most of the time: what waits less runs beside it, and what only computes
# gives way to it.
.PHONY: test
test: lint programs ## Run every test: linters, types, unit, API server, stores, whole cluster
	$(MAKE) --no-print-directory --jobs=2 cluster beside-cluster

.PHONY: beside-cluster
beside-cluster:
	nice $(MAKE) unit
	$(MAKE) api
	$(MAKE) console
	$(MAKE) stores

.PHONY: lint
lint: $(STAMP) docs ## Check style, types and the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p demo -p bench -p chaos -p release -p tests

.PHONY: docs
docs: $(STAMP) ## Build the site of docs/ into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: format
format: $(STAMP) ## Rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: unit
unit: $(STAMP) ## Run the tests that need no cluster
	$(BIN)/pytest tests/unit $(SIDE_BY_SIDE) $(ONCE_MORE)

.PHONY: programs
programs: ## Build the embedded cluster's programs, where they are needed and not there yet
	$(if $(KUBECONFIG),,PYTHONPATH=devcluster $(PYTHON) -m devcluster build > /dev/null)

.PHONY: api
api: $(STAMP) programs ## Run the tests on a real API server (no node)
	$(BIN)/pytest tests/api -n 2 --dist loadfile $(ONCE_MORE)

.PHONY: console
console: $(STAMP) programs ## Run the tests of the plugin's console in a browser (Debian's chromium)
	$(BIN)/pytest tests/console $(ONCE_MORE)

.PHONY: pictures
pictures: $(STAMP) programs ## Take the pictures of the console that the docs show
	PICTURES=docs/pictures $(BIN)/pytest tests/console -k pictures

.PHONY: e2e
e2e: stores cluster ## Run the tests of stores and of a whole cluster

.PHONY: stores
stores: $(STAMP) programs ## Run the tests of poller and publisher with real stores
	$(BIN)/pytest tests/e2e/poller -n 2 --dist loadfile $(ONCE_MORE)

.PHONY: cluster
cluster: $(STAMP) programs ## Run the tests on a whole cluster
	$(BIN)/pytest tests/e2e --ignore=tests/e2e/poller $(ONCE_MORE)

.PHONY: nodes
nodes: $(STAMP) programs ## Have three nodes stop, lose their network and their disk, and recover (not in test)
	PYTHONPATH=devcluster $(PYTHON) -m devcluster build share-images > /dev/null
	$(BIN)/pytest tests/nodes -rP

.PHONY: bad-versions
bad-versions: $(STAMP) programs ## Change the target a hundred times on a busy machine; try every bad version
	CHANGES=100 LONG=1 $(BIN)/pytest tests/e2e/test_assignments.py tests/e2e/test_rollouts.py -rP

.PHONY: upgrade
upgrade: $(STAMP) programs ## From the release before to this tree and back, under traffic, by kustomize and Helm (not in test)
	LONG=1 $(BIN)/pytest tests/e2e/test_upgrade.py -rP

NODES ?= 3

.PHONY: chaos
chaos: $(STAMP) programs ## Random faults for twelve models on three nodes, for MINUTES, by SEED (not in test)
	PYTHONPATH=devcluster $(PYTHON) -m devcluster build share-images > /dev/null
	$(BIN)/python -m chaos --minutes=$(MINUTES) --nodes=$(NODES) $(if $(SEED),--seed=$(SEED)) \
	  $(if $(FAULTS),--only $(FAULTS))

.PHONY: test-keda
test-keda: $(STAMP) programs ## Build KEDA and its HTTP add-on, and have a request wake a model (not in test)
	PYTHONPATH=devcluster $(PYTHON) -m devcluster build keda-operator keda-http-operator \
	  keda-http-interceptor keda-http-scaler > /dev/null
	$(BIN)/pytest tests/keda -rP

.PHONY: board
board: $(STAMP) programs ## Watch two models with a real Prometheus, and draw the board that docs show (not in test)
	PYTHONPATH=devcluster $(PYTHON) -m devcluster build prometheus > /dev/null
	PICTURES=docs/pictures $(BIN)/pytest tests/board -rP

.PHONY: large
large: $(STAMP) programs ## Publish 6 GB in a poller's memory, and count 20 GB; takes 8 GB of disk
	LONG=1 $(BIN)/pytest tests/e2e/poller/test_large.py tests/unit/poller/test_large_files.py

.PHONY: schema
schema: $(STAMP) ## Write the schema of a poller's /status into docs/
	$(BIN)/python -c 'import json, msgspec; from model_poller.status import PollerStatus; \
	  print(json.dumps(msgspec.json.schema(PollerStatus), indent=2))' > docs/poller-status.schema.json

# -- The embedded cluster -------------------------------------------------------------------

.PHONY: cluster-up
cluster-up: ## Start the embedded Kubernetes (Linux, root)
	PYTHONPATH=devcluster $(PYTHON) -m devcluster up

.PHONY: cluster-down
cluster-down: ## Stop the embedded Kubernetes, leaving nothing behind
	PYTHONPATH=devcluster $(PYTHON) -m devcluster down

# -- Measurements ---------------------------------------------------------------------------

.PHONY: bench
bench: $(STAMP) ## Measure version change and traffic; print ratios
	$(BIN)/python -m bench version-change
	$(BIN)/python -m bench traffic
	$(BIN)/python -m bench changes
	$(BIN)/python -m bench changes --drain --rounds=15

.PHONY: bench-operator
bench-operator: $(STAMP) programs ## Measure the operator with up to 5,000 resources; draw the plots
	$(BIN)/python -m bench operator
	$(BIN)/python -m bench rollouts

.PHONY: bench-scale
bench-scale: $(STAMP) programs ## Measure one operator and two shards with up to 10,000 models; about 40 minutes
	$(BIN)/python -m bench scale

.PHONY: bench-large
bench-large: $(STAMP) ## Measure 6 GB beside 1 GB in a poller's memory; takes 8 GB of disk
	$(BIN)/python -m bench poller-large

# How long it is, in minutes.
MINUTES ?= 60

.PHONY: soak
soak: $(STAMP) ## Serve 20 models for MINUTES, a version of each every minute; judge what grows
	$(BIN)/python -m bench soak --minutes=$(MINUTES)

.PHONY: bench-poller
bench-poller: $(STAMP) ## Measure fetching beside gcloud, kserve-storage, curl and s5cmd; draw the plot
	$(BIN)/python -m bench poller

# -- Releases -------------------------------------------------------------------------------

.PHONY: version
version: $(STAMP) ## Write VERSION=X.Y.Z wherever the project says its version
	$(BIN)/python -m release version $(VERSION)

# Where the release's images and files will be, and who makes it; the defaults are nobody's.
RELEASE = $(VERSION) $(if $(OUTPUT),--output=$(OUTPUT)) $(if $(REGISTRY),--registry=$(REGISTRY)) \
  $(if $(REPOSITORY),--repository=$(REPOSITORY)) $(if $(BUILDER),--builder=$(BUILDER)) \
  $(if $(TRIAL),--trial)

.PHONY: release
release: $(STAMP) ## Make all of a release that needs no account, in dist/: VERSION=X.Y.Z REGISTRY=…
	$(BIN)/python -m release build $(RELEASE) $(if $(IMAGES),--images=$(IMAGES))

.PHONY: release-images
release-images: $(STAMP) ## Make a release's images for this machine's architecture alone
	$(BIN)/python -m release images $(RELEASE)

.PHONY: test-release
test-release: $(STAMP) programs ## Make a release twice, compare the bytes, install from it (not in test)
	$(BIN)/pytest tests/release -rP

.PHONY: audit
audit: $(STAMP) ## Look for known vulnerabilities of what the locks pin (asks osv.dev)
	$(BIN)/python -m release audit requirements/operator.lock requirements/poller.lock \
	  requirements/plugin.lock requirements/devserver.lock requirements/dev.lock

# -- Dependencies ---------------------------------------------------------------------------

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11: name another one with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "installing python3-venv, which $(PYTHON) lacks"; apt-get update -qq && apt-get install -y -qq python3-venv; }
	@echo "installing the pinned Python packages into $(VENV) (about a minute with an empty cache)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

LOCK = uv pip compile --quiet pyproject.toml --override requirements/overrides.txt \
  --generate-hashes --no-header --no-annotate --universal --python-version 3.11

.PHONY: lock
lock: ## Pin the newest versions of every dependency (needs uv)
	$(LOCK) --upgrade --extra operator -o requirements/operator.lock
	$(LOCK) --upgrade --extra poller -o requirements/poller.lock
	$(LOCK) --upgrade --extra devserver -o requirements/devserver.lock
	$(LOCK) --upgrade --extra plugin -o requirements/plugin.lock
	$(LOCK) --upgrade --extra ui -o requirements/ui.lock
	uv pip compile --quiet --group stores --generate-hashes --no-header --no-annotate --universal \
	  --python-version 3.11 --upgrade -o requirements/stores.lock
	echo kserve-storage | uv pip compile --quiet - --generate-hashes --no-header --no-annotate --universal \
	  --python-version 3.11 --upgrade -o requirements/kserve-storage.lock
	$(LOCK) --upgrade --extra operator --extra poller --extra devserver --extra plugin --extra ui --extra dev -o requirements/dev.lock
