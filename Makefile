# make demo: X-rays at once, then all four steps on phantoms. make test: all tests but the slow. make test-slow: these.
# make docs: the documentation site, as docs/_build/html/index.html.
# make fuzz: 10,000 damaged files and command lines (tests/fuzz).
# make test-random: the property tests, on new random values. make check: style, types, import rules.
# make lock: versions and hashes of the container, anew. make vulnerabilities: known ones in these. make sbom: sbom.cdx.json.
# Each makes the virtual environment .venv first and installs what it needs; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# Compiled kernels make training faster; without a C compiler, samgan does without them.
KERNELS = $(BIN)/python -m pip install --quiet ./kernels || echo "samgan-kernels was not built; training is slower without it"

.PHONY: demo test test-random test-slow fuzz check docs lock vulnerabilities sbom clean

demo: $(VENV)/.installed
	$(BIN)/samgan demo --out demo/$$(date +%Y%m%d-%H%M%S)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

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

# The container takes torch from PyTorch's own index, for CPUs or for CUDA; so these are not in the file with hashes.
OF_TORCH = torch torchvision triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cccl \
	cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 \
	nvjitlink nvshmem-cu13 nvtx)
LOCK = $(TOOLS)/uv pip compile --quiet --upgrade --python-version 3.13 --python-platform x86_64-manylinux_2_28 \
	--custom-compile-command "make lock"
LOCKED = requirements-container.txt requirements-torch.txt
TOOLS = .venv-tools/bin

lock: $(TOOLS)/.installed
	$(LOCK) pyproject.toml --extra dicom --extra tables --generate-hashes $(addprefix --no-emit-package ,$(OF_TORCH)) \
		--output-file requirements-container.txt
	printf 'torch\ntorchvision\n' | $(LOCK) - --no-deps --no-annotate --output-file requirements-torch.txt

vulnerabilities: $(TOOLS)/.installed
	$(TOOLS)/pip-audit --strict --disable-pip --no-deps $(addprefix --requirement ,$(LOCKED))

sbom: $(TOOLS)/.installed
	cat $(LOCKED) | $(TOOLS)/cyclonedx-py requirements - --pyproject pyproject.toml --output-reproducible \
		--output-file sbom.cdx.json

$(TOOLS)/.installed:
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip install --quiet 'uv >= 0.9' 'pip-audit >= 2.9' 'cyclonedx-bom >= 7'
	touch $@

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
	touch $@

clean:
	rm -rf $(VENV) .venv-tools
