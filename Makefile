# The single entry points. They need Python >= 3.11, pip and make, and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
MODEL ?=
SECONDS ?= 600
REQUESTS ?= 100000

.PHONY: serve chat test check docs bench mutants soak fuzz coverage clean

serve: .venv/serve.stamp  ## fetch the default model and serve it on 127.0.0.1:8080
	$(BIN)/atomr-trio serve $(MODEL)

chat: .venv/serve.stamp  ## talk to the model in the terminal
	$(BIN)/atomr-trio chat $(MODEL)

test: .venv/test.stamp  ## everything the tests need, then the tests
	$(BIN)/python -m pytest

# Not part of the tests: the tracer makes the property tests four times as slow.
coverage: .venv/test.stamp  ## which lines no test reaches
	$(BIN)/python -m pytest --cov --cov-report=term

# pyright takes `--verifytypes`'s environment from the `python` in the path, and from nowhere else.
check: .venv/dev.stamp  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes atomr_trio --ignoreexternal
	$(BIN)/python -m tests.typing

docs: .venv/dev.stamp  ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/bench.stamp  ## the claims of the README, measured on this machine
	$(BIN)/python benchmarks/actors.py
	$(BIN)/python benchmarks/serve.py

mutants: .venv/test.stamp  ## plant faults in the actor core and see that the property suite finds them
	$(BIN)/python -m tests.mutants

soak: .venv/test.stamp  ## fresh simulations of the actor core for SECONDS
	$(BIN)/python tests/soak.py --seconds $(SECONDS)

# The three go on where the tests stop: properties, the API as it is described, and raw bytes on the wire.
fuzz: .venv/test.stamp  ## many more, and new, examples of the properties, the API and raw HTTP
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/properties --deselect tests/properties/test_simulation.py
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/gateway/fuzz_api.py
	$(BIN)/python tests/fuzz_http.py --requests $(REQUESTS)

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

.venv/bench.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,bench]'
	@touch $@ .venv/test.stamp .venv/serve.stamp
