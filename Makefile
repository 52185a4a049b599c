# make repro   set everything up and run the whole pipeline on the embedded default
# make results the same, then what takes hours (five seeds, ablations; with PHOTOS=folder real photos), and docs/results.md
# make test    set everything up and run the tests
# make stress  a hundred kills at random moments, and FUZZ examples of each fuzzed property
PYTHON ?= python3
BIN := .venv/bin
# Stages run as `python -m stages.<name>`: the environment's python has to come first.
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: repro results test stress check clean

repro: .venv/installed
	$(RUN) dvc repro
	@$(RUN) ltgc compare

# What is up to date is skipped, so this goes on where it was stopped.
results: repro
	$(RUN) dvc repro ablations/dvc.yaml
ifdef PHOTOS
	mkdir -p ablations/runs && ln -sfn "$(abspath $(PHOTOS))" ablations/runs/photos
	$(RUN) dvc repro ablations/photos/dvc.yaml
endif
	$(RUN) python -m tools.results_page

test: .venv/installed
	OMP_NUM_THREADS=1 $(RUN) python -m pytest -n auto --no-loadscope-reorder --max-worker-restart 0

FUZZ ?= 1000
stress: .venv/installed
	OMP_NUM_THREADS=1 FUZZ=$(FUZZ) $(RUN) python -m pytest -s -o faulthandler_timeout=0 tests/stress.py tests/clients/test_answers.py tests/clients/test_pool.py

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
