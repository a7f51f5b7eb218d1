# `make demo` and `make test` each do everything: virtual environment, installation, run. They install
# the exact versions of locks/ (Linux x86-64, Python 3.11 to 3.13); elsewhere, and with LOCKED=no, pip
# chooses within the ranges of pyproject.toml, as `make test-newest` does.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# modules are compiled when they are first imported, and most of the 19,000 never are
INSTALL := $(PIP) install --quiet --no-compile

# whether the locks are made for this machine
LOCKED ?= $(shell $(PYTHON) -c 'import platform as p, sys; fits = (p.system(), p.machine()) == \
	("Linux", "x86_64") and (3, 11) <= sys.version_info[:2] <= (3, 13); print("yes" if fits else "no")')

.PHONY: demo test test-newest lint types docs unit pages refit lock clean

demo: $(VENV)/.run
	@$(BIN)/python examples/check_demo.py

# the checks of one process side by side, then the tests, which use every core themselves
test: $(VENV)/.dev
	$(MAKE) --jobs 2 lint types docs
	$(MAKE) unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# One thread a process, and as many processes as there are cores, up to four: each needs a gigabyte
# or two. Files of tests stay together, as far as no process runs out of work.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# the pages as a site, in site/; a link that leads nowhere is an error
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# docs/results from studies/results, docs/reference/cli.md from the commands,
# docs/reference/api/index.md from the docstrings of the public names, and the README.md of the shipped
# models from their cards
pages: $(VENV)/.dev
	$(BIN)/python -m studies.write_pages
	$(BIN)/python docs/write_cli_page.py
	$(BIN)/python docs/write_api_page.py
	$(BIN)/python recipes/write_readmes.py pretrained/*

# everything that depends on the weights of the shipped speaker models; hours, and it resumes
refit: $(VENV)/.dev
	$(BIN)/python -m studies.refit --data $(DATA)

# what a user of today gets from an index, without the locks
test-newest:
	$(MAKE) test VENV=.venv-newest LOCKED=no

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml locks/run.txt | $(VENV)/bin/python
ifeq ($(LOCKED),yes)
	$(INSTALL) --require-hashes --no-deps -r locks/run.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
else
	$(INSTALL) --upgrade "pip>=24"
	$(INSTALL) --editable .
endif
	@touch $@

$(VENV)/.dev: pyproject.toml locks/dev.txt | $(VENV)/bin/python
ifeq ($(LOCKED),yes)
	$(INSTALL) --require-hashes --no-deps -r locks/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
else
	$(INSTALL) --upgrade "pip>=24"
	$(INSTALL) --editable '.[dev]'
endif
	@touch $@ $(VENV)/.run

# needs uv; TORCH holds the pair back or forward: make lock TORCH=2.15.0
TORCH ?= 2.14.1
LOCK := uv pip compile pyproject.toml --group build --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet
lock:
	echo "torch==$(TORCH)" | $(LOCK) --extra dev --constraint - --output-file locks/dev.txt
	$(LOCK) --constraint locks/dev.txt --output-file locks/run.txt

clean:
	rm -rf $(VENV) .venv-newest demo-report site
