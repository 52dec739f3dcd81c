# Each target works in a fresh clone. `make help` lists them.

PYTHON ?= $(shell local/find-python)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AZURITE := local/node_modules/.installed
CHECKOV := .venv-checkov/.installed
PIP_TOOLS := .venv-pip-tools/.installed
PEERS := .venv-bench/.installed
WORKERS ?= 4

# Take the prompt as typed: make would expand the $ in "costs $5" as a variable.
# Export it only if it is set: an empty one is not the default.
ifneq ($(origin PROMPT),undefined)
override PROMPT := $(value PROMPT)
export PROMPT
endif
export N SIZE MODEL PORT KEYS DATA BICEP REQUIRE_BICEP

.PHONY: help demo start test chaos bench infra lint format requirements clean install
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo '  make demo PROMPT="a lighthouse in fog" N=2 SIZE=1536x1024'
	@echo '  make start PORT=8080 KEYS=1'
	@echo '  make start DATA=.local-2              a second one, with its own data'
	@echo '  make chaos GENERATIONS=200 KILLS=20 SEED=12'

demo: install ## Send one prompt through the app and save the image in demo-output/
	@$(BIN)/python -m local demo

start: install ## Run Azurite, the image API emulator and the app in the foreground
	@exec $(BIN)/python -m local start

test: install ## Run all tests and measure the branch coverage of imagegen/
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term

chaos: install ## Kill hosts under load, and check that nothing is lost or paid twice
	@$(BIN)/python -m tests.chaos $(if $(GENERATIONS),--generations $(GENERATIONS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

bench: install $(PEERS) ## Measure speed, memory and costs, and write docs/benchmarks.md
	@$(BIN)/python -m bench

infra: install $(CHECKOV) ## Check what infra/ would deploy, with the Bicep CLI and checkov
	@$(BIN)/python -m pytest tests/infra

lint: install ## Format, lint, types, direction of imports, secrets
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline

format: install ## Format the code and apply the fixes of the linter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

requirements: $(PIP_TOOLS) ## Compile each requirements*.in into its .txt
	@.venv-pip-tools/bin/pip-compile --quiet requirements.in
	@.venv-pip-tools/bin/pip-compile --quiet requirements-dev.in
	@.venv-pip-tools/bin/pip-compile --quiet bench/requirements.in

clean: ## Remove everything that make has created
	rm -rf $(VENV) .venv-checkov .venv-pip-tools .venv-bench local/node_modules .local .local-* demo-output .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# With a Bicep CLI, `make test` checks infra/ with checkov too.
ifneq ($(BICEP),)
test: $(CHECKOV)
endif

install: $(INSTALLED) $(AZURITE)

$(INSTALLED): requirements.txt requirements-dev.txt
	@test -n "$(PYTHON)" || exit 1
	@echo "Installing Python packages into $(VENV)" >&2
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(CHECKOV): infra/requirements-checkov.txt
	@echo "Installing checkov into .venv-checkov" >&2
	@"$(PYTHON)" -m venv --clear .venv-checkov
	@.venv-checkov/bin/pip install --quiet --disable-pip-version-check -r infra/requirements-checkov.txt
	@touch $@

$(PEERS): bench/requirements.txt
	@echo "Installing the peers of the benchmarks into .venv-bench" >&2
	@"$(PYTHON)" -m venv --clear .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@touch $@

$(PIP_TOOLS):
	@echo "Installing pip-tools into .venv-pip-tools" >&2
	@"$(PYTHON)" -m venv --clear .venv-pip-tools
	@.venv-pip-tools/bin/pip install --quiet --disable-pip-version-check pip-tools==7.6.2
	@touch $@

$(AZURITE): local/package.json local/package-lock.json
	@command -v npm >/dev/null || { echo "npm not found: install Node.js 20 or later, https://nodejs.org" >&2; exit 1; }
	@echo "Installing Azurite into local/node_modules" >&2
	@cd local && npm ci --silent --no-audit --no-fund
	@touch $@
