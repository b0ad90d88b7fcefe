# Run programs from the active virtual environment, or from .venv if no environment is active.
BIN := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)/bin

.PHONY: check install test lint lint-style lint-types lint-imports docs

# Run everything that a change must pass, except the docs.
check: lint test

# Create .venv with everything that development needs.
install:
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[test,docs]'

test:
	$(BIN)/pytest

lint: lint-style lint-types lint-imports

lint-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-types:
	$(BIN)/mypy

lint-imports:
	$(BIN)/lint-imports

# Check links and commands of the docs, then build the site into site/.
docs:
	$(BIN)/python docs/check.py
	$(BIN)/mkdocs build --strict
