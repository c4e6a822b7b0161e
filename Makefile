# Two commands do all the set-up, each by itself: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Versions that were tested together; CONSTRAINTS=constraints-lowest.txt has the bounds', and /dev/null the newest.
CONSTRAINTS ?= constraints.txt
# Everything that changes what must be installed.
INPUTS := pyproject.toml $(CONSTRAINTS)

# Files of tests run side by side, as many as tests/conftest.py says.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Types are checked beside the tests, which leave a core alone now and then. All else comes one after the other: what
# installs writes into one .venv.
ifeq ($(filter-out test suite check lint types fast,$(MAKECMDGOALS)),)
MAKEFLAGS += --jobs=2
endif

# A hundred processes import the project: what one has compiled the others read. So it is with what is installed, of
# which a tenth is ever imported: to compile all of it takes longer than to install it.
unexport PYTHONDONTWRITEBYTECODE
INSTALL = $(BIN)/pip install --quiet --no-compile -c $(CONSTRAINTS)

.PHONY: demo test suite check lint types fast coverage coverage-fast docs clean

demo: .venv/demo.installed
	$(BIN)/vital demo --out demo

test: lint types suite

# Tests alone: with other versions than those tested together, linters and types say other things.
suite: .venv/test.installed
	$(BIN)/pytest $(SIDE_BY_SIDE)

# The quick tier: `make check fast` while working.
fast: .venv/test.installed
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow"

# Of lines and branches, child processes too: TOTAL says it. `make coverage-fast` is of the quick tier.
coverage coverage-fast: .venv/test.installed
	$(BIN)/pytest $(SIDE_BY_SIDE) $(if $(findstring fast,$@),-m "not slow") --cov --cov-report=
	$(BIN)/coverage report --skip-covered

check: lint types

lint: .venv/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/test.installed
	$(BIN)/mypy

# The site, in site/. Nothing is fetched, and a warning ends the build.
docs: .venv/docs.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	-$(INSTALL) --upgrade pip  # what Python 3.11 brings takes three times as long to choose versions, but does, too

# torch goes in first, at the pinned version: found installed, nothing else can pull another build of it.
.venv/torch.installed: .venv/bin/pip $(INPUTS)
	$(INSTALL) torch torchvision
	@touch $@

.venv/demo.installed: .venv/torch.installed
	$(INSTALL) -e '.[demo]'
	@touch $@

.venv/test.installed: .venv/torch.installed
	$(INSTALL) -e '.[demo,test]'
	@touch $@ .venv/demo.installed

.venv/docs.installed: .venv/torch.installed
	$(INSTALL) -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv demo site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
