# Two commands matter: `make demo` runs the main job on real models, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test coverage bars fuzz adversarial check frozen docs clean

demo: $(VENV)/.installed
	$(BIN)/sealpack demo

test: $(VENV)/.installed-dev check coverage
	$(BIN)/pytest -q $(addprefix --ignore=,$(MEASURED))

# Every line and branch of format and verifier, by their own tests and the vectors; less than all is a failure.
MEASURED := tests/verifier tests/vectors/test_vectors.py tests/vectors/test_receipt_vectors.py tests/runtime/test_qr.py
coverage: $(VENV)/.installed-dev
	$(BIN)/pytest -q --cov --cov-report=term-missing:skip-covered $(MEASURED)

# What every change must pass before any test runs.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Whole campaigns and measurements: minutes to an hour.
bars: $(VENV)/.installed-dev
	$(BIN)/pytest -q -m slow
	$(BIN)/python tests/bench

# For each target; what breaks one is left in the working directory.
SECONDS ?= 60
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz all --seconds $(SECONDS)
	$(BIN)/python tests/fuzz structural

# The table of attacks: what each gets, and how many cases show it.
adversarial: $(VENV)/.installed-dev
	$(BIN)/python tests/adversarial

frozen: $(VENV)/.installed-dev
	$(BIN)/python packaging/freeze.py

docs: $(VENV)/.installed-dev
	$(BIN)/python packaging/gen_docs.py

$(VENV)/.installed: pyproject.toml packaging/constraints.txt packaging/models.txt packaging/install.sh
	PYTHON=$(PYTHON) sh packaging/install.sh $(VENV)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	PYTHON=$(PYTHON) sh packaging/install.sh $(VENV) dev
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
