# Every target sets up what it needs: `make test` and `make demo` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.starc-installed
CODE := starc grammar compiler templates runtime search
STYLED := $(CODE) tests benchmarks
DEMO := build/demo
DEMO_STEPS ?= 300

# Two worker processes with one thread each: torch's own threads would fight over the same cores.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -W error

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-kernels kernel-report test-gpu lint types check format bench clean

help:
	@echo "make setup      create .venv and install starc for development"
	@echo "make demo       compile an example, train it for about two minutes, sample text from it"
	@echo "make test       fast tests"
	@echo "make check      style, types and fast tests: what a change must pass"
	@echo "make lint       ruff and black, without changing a file"
	@echo "make types      mypy --strict"
	@echo "make format     let ruff and black repair what they can"
	@echo "make test-slow  the long tests"
	@echo "make test-kernels  every kernel, interpreted and compiled for every target; no GPU needed"
	@echo "make kernel-report  writes tests/kernels/report.json anew: resources of all kernels"
	@echo "make test-gpu   the tests that need a GPU"
	@echo "make bench      the measurements in benchmarks/"
	@echo "make clean      remove everything that was generated"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "starc needs Python 3.11 or newer; choose one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@echo "== compile examples/byte_hybrid.star into one PyTorch file"
	$(BIN)/starc compile examples/byte_hybrid.star -o $(DEMO)/byte_hybrid.py
	@echo "== what is in it"
	$(BIN)/python $(DEMO)/byte_hybrid.py
	@echo "== train it on the source of Python's standard library"
	$(BIN)/starc train examples/byte_hybrid.star --data stdlib --steps $(DEMO_STEPS) --out $(DEMO)/run
	@echo "== sample from it"
	$(BIN)/starc generate $(DEMO)/run --prompt "def " --tokens 300

test: setup
	$(PYTEST)

test-slow: setup
	$(BIN)/pytest -W error -m slow

test-kernels: setup
	$(PYTEST) -m kernels

kernel-report: setup
	OMP_NUM_THREADS=1 TRITON_INTERPRET=0 $(BIN)/python tests/kernels/reported.py --jobs $(WORKERS)

test-gpu: setup
	$(BIN)/pytest -W error -m gpu

lint: setup
	$(BIN)/ruff check $(STYLED)
	$(BIN)/black --check --quiet $(STYLED) || $(BIN)/black --check $(STYLED)

# mypy cannot see the mapping of folders to packages in pyproject.toml, so it reads a tree of links.
types: setup
	@rm -rf .typecheck && mkdir -p .typecheck/starc
	@ln -s $(addprefix ../../,$(wildcard starc/*)) .typecheck/starc/
	@ln -s $(addprefix ../../,$(filter-out starc,$(CODE))) .typecheck/starc/
	$(BIN)/mypy -p starc

check: lint types test

format: setup
	$(BIN)/ruff check --fix $(STYLED)
	$(BIN)/black --quiet $(STYLED)

bench: setup
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist .typecheck .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
