# Two commands matter: `make book` builds the book, `make test` runs everything CI runs. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH_ARGS ?=
SET ?= colab
READER ?= $(PYTHON)
# One thread: with several, a busy machine makes the same cell a hundred times slower. A value set by the caller wins.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PY := .venv/bin/python
READY := .venv/.ready
PARTS := lint types unit notebooks-check browser
TYPED := vae_lib book/_tools book/_ext book/assignments/grading
# Notebooks are laid out at the width that a page shows. Named one by one, they are not excluded by pyproject.toml.
NOTEBOOKS := --config 'line-length = 79' book/*.ipynb $(wildcard book/assignments/*.ipynb)

.PHONY: help book test lint types unit notebooks-check browser pdf notebooks format assignments address mutations bench dist bare clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PYTHON=python3.12        the Python that makes .venv (3.11 or newer; now: $(PYTHON))"
	@echo "TORCH_ARGS='...'         more options for pip when it installs torch, for instance"
	@echo "                         TORCH_ARGS='--extra-index-url ADDRESS-OF-A-CPU-ONLY-INDEX' saves gigabytes without a GPU"
	@echo "OMP_NUM_THREADS=2        threads of torch and NumPy (now: $(OMP_NUM_THREADS))"
	@echo "VAE_LIB_DATA=FOLDER      where downloaded data sets are kept"

# torch goes first and alone, so that TORCH_ARGS touches nothing else.
$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("the book needs Python 3.11 or newer, \
	$(PYTHON) is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into .venv (minutes the first time)"
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install --quiet --constraint constraints.txt $(TORCH_ARGS) torch
	@$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[book,assignments,test]'
	@touch $@

# From an empty folder: Sphinx repeats no warning for a page that it kept from a failed build.
book: $(READY) ## build the book: _build/html/index.html
	@rm -rf _build/html _build/.doctrees
	@.venv/bin/jupyter-book build . -W --keep-going --quiet
	@test -f _build/html/index.html

test: $(READY) ## everything CI runs, part by part, with the time each took
	@mkdir -p _build/log; set -o pipefail; failed=; \
	for part in $(PARTS); do \
	  echo "== $$part"; start=$$SECONDS; verdict=passed; \
	  $(MAKE) --no-print-directory $$part 2>&1 | tee _build/log/$$part.txt || { verdict=FAILED; failed+=" $$part"; }; \
	  printf '%-16s %s in %d s  %s\n' $$part $$verdict $$((SECONDS - start)) \
	    "$$(grep -E '(passed|failed|error).* in [0-9.]+s' _build/log/$$part.txt | tail -n 1)" | tee _build/log/$$part.verdict; \
	done; \
	echo "== summary"; for part in $(PARTS); do cat _build/log/$$part.verdict; done; \
	echo "all parts: $$SECONDS s"; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

lint: $(READY) ## ruff: rules and layout, notebooks included
	@$(PY) -m ruff check
	@$(PY) -m ruff check $(NOTEBOOKS)
	@$(PY) -m ruff format --check
	@$(PY) -m ruff format --check $(NOTEBOOKS)

types: $(READY) ## mypy --strict
	@$(PY) -m mypy --strict $(TYPED)

unit: $(READY) ## tests and doctests, all but those of the built book
	@$(PY) -m pytest -n 2 --doctest-modules vae_lib tests --ignore=tests/book

notebooks-check: $(READY) ## run every chapter and compare its outputs with the stored ones
	@$(PY) -m pytest --nbval book/

browser: book ## build the book and read it in a real browser
	@$(PY) -m pytest -n 2 --dist loadfile tests/book

notebooks: $(READY) ## run every chapter in a clean kernel and store its outputs
	@$(PY) -m ruff format --quiet $(NOTEBOOKS)
	@$(PY) book/_tools/notebooks.py execute

format: $(READY) ## let ruff lay out the code
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff check --fix $(NOTEBOOKS)
	@$(PY) -m ruff format
	@$(PY) -m ruff format $(NOTEBOOKS)

# Minutes. The pages are built first, and what is printed is what they show.
pdf: book ## print the book: _build/pdf/not-an-arbitrary-loss.pdf
	@$(PY) book/_tools/pdf.py

assignments: $(READY) ## make _build/assignments: notebooks for students, tests, graders, pages for instructors
	@PYTHONPATH=book/assignments $(PY) -m grading.bundle --out _build/assignments

address: $(READY) ## write the address in pyproject.toml into _config.yml and the notebooks
	@$(PY) book/_tools/address.py

mutations: $(READY) ## break the library on purpose; every break must turn a test red
	@$(PY) tests/mutations.py

bench: $(READY) ## benchmarks: ratios measured side by side in one run
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) $$script; done

# Without the old list of files, which an archive would inherit.
dist: $(READY) ## source archive and wheel, in dist/
	@rm -rf dist vae_lib.egg-info
	@$(PY) -m build --outdir dist . >/dev/null
	@ls dist

bare: $(READY) ## run every notebook in a bare environment: SET=colab, oldest or newest, READER=python3.12
	@$(PY) book/_tools/bare.py $(SET) --python $(READER) --torch-args='$(TORCH_ARGS)'

clean: ## remove what was built, keep .venv
	@rm -rf _build build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

distclean: clean ## remove .venv as well
	@rm -rf .venv
