# Everything runs inside .venv, which is made from nothing but python3.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORKERS ?= auto
TURNS   ?= 1
STAMP  := $(VENV)/.installed
DRILLS := $(patsubst notebooks/%.ipynb,drill-%,$(sort $(wildcard notebooks/*.ipynb)))

.PHONY: setup demo test drill drill-actions lint bench serve jupyter lock clean $(DRILLS)

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("runbook needs Python 3.11 or newer; name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/runbook demo

# In their own order: the files with few long tests come first, and no worker is left alone with them at the end.
test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Every fault of every runbook; with TURNS=N the reference set, and of the rest an Nth a day. Of the first runbook another
# fault every day at the notebook's own thresholds, in real length.
drill: $(DRILLS) drill-actions

$(DRILLS): drill-%: setup
	$(BIN)/runbook drill $* --all --turns $(TURNS) $(if $(filter db_connection_exhaustion,$*),--rotate 1)

# Every kind of action on a real fault, plan to undo, and once more with a target that has changed; of TURNS, an Nth a day.
drill-actions: setup
	$(BIN)/runbook drill --actions --turns $(TURNS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/runbook lint

bench: setup
	$(BIN)/python -m tests.bench $(ARGS)

serve: setup
	$(BIN)/runbook serve

jupyter: setup
	$(BIN)/runbook jupyter $(RUN)

# Resolves the dependencies again; the lock names no index and carries a hash for every file.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group dev \
	  --generate-hashes --no-emit-index-url --no-header --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
