# `make demo` and `make test` each do everything: virtual environment, installation, run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types unit clean

demo: $(STAMP)
	@rm -rf demo-report
	@$(BIN)/nip-audio screen examples/enrolment --out demo-report; code=$$?; \
	if [ $$code -gt 1 ]; then exit $$code; fi; \
	echo; echo "What was really done to these files:"; cat examples/what_was_done.tsv; \
	echo; echo "Exit code $$code: 0 would be clean, 1 says that something was flagged."; \
	echo "To look at: demo-report/report.html. Next: $(BIN)/nip-audio screen YOUR_FOLDER --out report"

test: lint types unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# One thread a process, and as many processes as there are cores, up to four: each needs a gigabyte
# or two. Files of tests stay together, as far as no process runs out of work.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) demo-report
