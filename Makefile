# make repro   set everything up and run the whole pipeline on the embedded default
# make test    set everything up and run the tests
# make stress  a hundred kills at random moments, and FUZZ examples of each fuzzed property (100,000: an hour or more)
PYTHON ?= python3
BIN := .venv/bin
# Stages run as `python -m stages.<name>`: the environment's python has to come first.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: repro test stress check clean

repro: .venv/installed
	$(RUN) dvc repro
	@$(RUN) ltgc compare

test: .venv/installed
	OMP_NUM_THREADS=1 $(RUN) python -m pytest -n auto --dist loadgroup

FUZZ ?= 1000
stress: .venv/installed
	OMP_NUM_THREADS=1 FUZZ=$(FUZZ) $(RUN) python -m pytest -s tests/stress.py tests/clients/test_answers.py tests/clients/test_pool.py

check: .venv/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) lint-imports --no-cache
	$(RUN) mypy ltgc graphs stages embedded benchmarks tools

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv
