# `make run` and `make test` need Python 3.10 to 3.13 and nothing else; both may be called again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# no Ray, no server, no waiting for processes, one seed where `test` takes many
QUICK := -m "not ray and not postgresql and not processes and not rehearsals" \
	--hypothesis-profile=quick tests/safety

export OMP_NUM_THREADS ?= 1

.PHONY: run test quick coverage lint reference wheel clean

# 3: where nobody sits at a terminal, it waits for people to approve
run: $(INSTALLED)
	$(BIN)/rsi-ray run || test $$? -eq 3

# two tests at a time, each file's in one process, then those that measure time
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

# what is tried while one works
quick: $(INSTALLED)
	$(BIN)/python -m pytest $(QUICK)

# the same, and every branch of `safety` is taken
coverage: $(INSTALLED)
	$(BIN)/python -m coverage run -m pytest $(QUICK)
	$(BIN)/python -m coverage report --fail-under=100

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

reference: $(INSTALLED)
	$(BIN)/python -m rsi_ray.reference > docs/configuration.md

# what the clusters of `deploy/` install; a folder of an earlier build would put deleted modules into it
wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) .coverage

# the stamp is as new as what it was made from: nothing is installed a second time
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
