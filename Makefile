# make demo: X-rays at once, then all four steps on phantoms. make test: all tests but the slow. make test-slow: these.
# make docs: the documentation site, as docs/_build/html/index.html.
# make fuzz: 10,000 damaged files and command lines (tests/fuzz).
# make test-random: the property tests, on new random values. make check: style, types, import rules.
# Each makes the virtual environment .venv first and installs what it needs; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Compiled kernels make training faster; without a C compiler, samgan does without them.
KERNELS = $(BIN)/python -m pip install --quiet ./kernels || echo "samgan-kernels was not built; training is slower without it"

.PHONY: demo test test-random test-slow fuzz check docs clean

demo: $(VENV)/.installed
	$(BIN)/samgan demo --out demo/$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto

test-random: $(VENV)/.installed-test
	for round in 1 2 3 4 5; do $(BIN)/python -m pytest -n auto -q --hypothesis-profile random $$(grep -l 'import hypothesis\|from hypothesis' tests/test_*.py) || exit 1; done

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python -m fuzz --count 10000 --keep fuzz-findings

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(wildcard kernels/*.* kernels/*/*.*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	$(KERNELS)
	touch $@

$(VENV)/.installed-test: pyproject.toml $(wildcard kernels/*.* kernels/*/*.*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(KERNELS)
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV)
