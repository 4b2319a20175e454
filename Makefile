# The single entry points. They need Python >= 3.11, pip and make, and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
MODEL ?=

.PHONY: serve chat test check docs bench clean

serve: .venv/serve.stamp  ## fetch the default model and serve it on 127.0.0.1:8080
	$(BIN)/atomr-trio serve $(MODEL)

chat: .venv/serve.stamp  ## talk to the model in the terminal
	$(BIN)/atomr-trio chat $(MODEL)

test: .venv/test.stamp  ## everything the tests need, then the tests
	$(BIN)/python -m pytest --cov --cov-report=term

check: .venv/dev.stamp  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/dev.stamp  ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/test.stamp  ## the claims of the README, measured on this machine
	$(BIN)/python benchmarks/serve.py

clean:
	rm -rf .venv site .pytest_cache .ruff_cache .hypothesis .coverage

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "atomr-trio needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/serve.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[jax]'
	@touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ .venv/serve.stamp

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/test.stamp .venv/serve.stamp
