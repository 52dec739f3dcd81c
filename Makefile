# Each target starts from a bare clone. `make help` lists them.

PYTHON ?= $(shell local/find-python)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
AZURITE := local/node_modules/.installed
CHECKOV := .venv-checkov/.installed
WORKERS ?= 4

# As it was typed: make would read the $ of "costs $5" as a variable of its own.
ifdef PROMPT
override PROMPT := $(value PROMPT)
endif
export PROMPT N SIZE MODEL PORT BICEP REQUIRE_BICEP

.PHONY: help demo start test chaos infra lint format clean install
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo '  make demo PROMPT="a lighthouse in fog" N=2 SIZE=512x512'
	@echo '  make start PORT=8080'
	@echo '  make chaos GENERATIONS=200 KILLS=20 SEED=12'

demo: install ## One prompt on its real way to a picture on disk
	@$(BIN)/python -m local demo

start: install ## Azurite, the image API emulator and the app, in the foreground
	@exec $(BIN)/python -m local start

test: install ## All tests, and the branch coverage of imagegen/
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report=term

chaos: install ## Kill hosts under load, and check that nothing is lost or paid twice
	@$(BIN)/python -m tests.chaos $(if $(GENERATIONS),--generations $(GENERATIONS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

infra: install $(CHECKOV) ## What infra/ would deploy, checked by the Bicep CLI and checkov
	@$(BIN)/python -m pytest tests/infra

lint: install ## Format, lint and type checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: install ## Mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove all that make has made
	rm -rf $(VENV) .venv-checkov local/node_modules .local demo-output .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where there is a Bicep CLI to test infra/ with, test it with checkov too.
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

$(AZURITE): local/package.json local/package-lock.json
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 20 or later, https://nodejs.org" >&2; exit 1; }
	@echo "Installing Azurite into local/node_modules" >&2
	@cd local && npm ci --silent --no-audit --no-fund
	@touch $@
