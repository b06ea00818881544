# `make book` reads, `make test` proves. CONTRIBUTING.md has the same commands
# for systems without make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/installed
PEERS := .venv/installed_peers
TEACH := .venv/installed_teach

.PHONY: book test lint unit chapters browser serve lab notebooks exercises classroom bench mutate soak clean
.NOTPARALLEL:

book: $(READY)
	@echo "== site"
	$(BIN)/jupyter-book build . -W -n --keep-going --all --quiet
	@echo "Open _build/html/index.html, or run make serve."

test: lint unit chapters book browser
	@echo "== all passed"

lint: $(READY)
	@echo "== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(PEERS) $(TEACH)
	@echo "== unit tests"
	$(BIN)/pytest tests --ignore tests/site -q -n 2 --dist loadfile --no-loadscope-reorder

chapters: $(READY)
	@echo "== every notebook against its stored outputs"
	$(BIN)/pytest notebooks --nbval -q -n 2 --dist loadscope

browser: $(READY)
	@echo "== every page in a browser"
	$(BIN)/pytest tests/site -q -rs -n 2

serve: book
	$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 8000

lab: $(READY)
	$(BIN)/jupyter lab notebooks

notebooks: $(READY)
	$(BIN)/python notebooks/normalise.py

exercises: $(READY)
	$(BIN)/python notebooks/exercises/generate.py

classroom: $(TEACH)
	$(BIN)/python -m classroom release $(if $(SEED),--seed "$(SEED)")
	$(BIN)/python -m classroom grade

bench: $(READY)
	$(BIN)/pytest tests/bench/bench.py -q

mutate: $(READY)
	$(BIN)/mutmut run
	$(BIN)/mutmut results

soak: $(READY) $(TEACH)
	$(BIN)/pytest tests --ignore tests/site -q -m soak

clean:
	rm -rf _build .venv mutants .pytest_cache .ruff_cache .hypothesis vitlib.egg-info

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=/path/to/python')"
	@echo "== environment (the first time takes minutes: PyTorch is large)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --requirement requirements.txt
	@touch $@

# The libraries whose checkpoints are read. Only the tests need them.
$(PEERS): $(READY)
	@echo "== peers (timm, torchvision, transformers, vit-pytorch, jax, flax)"
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable ".[peers]"
	@touch $@

# nbgrader. Teachers need it, and the test that marks a made-up class.
$(TEACH): $(READY)
	@echo "== nbgrader"
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable ".[teach]"
	@touch $@
