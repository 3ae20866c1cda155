# `make run` and `make test` need Python 3.10 to 3.13 and nothing else; both may be called again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export OMP_NUM_THREADS ?= 1

.PHONY: run test quick lint reference clean

run: $(INSTALLED)
	$(BIN)/rsi-ray run

test: $(INSTALLED)
	$(BIN)/python -m pytest

# what is tried while one works: no Ray, no server, no processes, one seed where `test` takes many
quick: $(INSTALLED)
	$(BIN)/python -m pytest -m "not ray and not postgresql and not processes and not rehearsals" tests/safety

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

reference: $(INSTALLED)
	$(BIN)/python -m rsi_ray.reference > docs/configuration.md

clean:
	rm -rf $(VENV)

# the stamp is as new as what it was made from: nothing is installed a second time
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
