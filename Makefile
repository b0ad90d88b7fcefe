# Run programs from the active virtual environment, or from .venv if no environment is active.
BIN := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)/bin

.PHONY: check test lint docs install

check: lint test ## Run everything that a change must pass, except the docs.

install: ## Create .venv and install curator with everything that development needs.
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[test,docs]'

test: ## Run the tests.
	$(BIN)/pytest

lint: ## Check style, format, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: ## Check links and commands of the docs, then build the site into site/.
	$(BIN)/python docs/check.py
	$(BIN)/mkdocs build --strict
