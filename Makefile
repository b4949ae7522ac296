# `make demo`: the whole way, from generated recordings to what a network learned of them.
# `make test`: the checks and tests that a change must pass.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
CLIPS ?= 160
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test check bench clean

test: $(VENV)/.test check
	$(BIN)/pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[test]"
	touch $@

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[prep,train]"
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
