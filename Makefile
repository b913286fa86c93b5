# Two commands do all the set-up: `make quickstart` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
# Two processes with one thread each: torch's threads wait for one another when cores are shared.
# A file's tests stay in one process, so that what they share is computed once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install quickstart style quality cards test test-slow clean

$(VENV)/.package: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	@echo "Installing fedd-hf into $(VENV): torch is large, this takes a few minutes."
	$(INSTALL) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.package
	$(INSTALL) --editable ".[baselines,demo,export,dev]"
	touch $@

install: $(VENV)/.dev

quickstart: $(VENV)/.package
	$(BIN)/fedd quickstart --output-dir quickstart

style: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quality: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

cards: install
	$(BIN)/python scripts/render_cards.py

# All but `slow` and `gpu`, which pyproject.toml leaves out: at most 15 minutes on two cores.
test: quality
	$(PYTEST)

test-slow: install
	$(PYTEST) -m "slow and not gpu"

clean:
	rm -rf $(VENV) build dist quickstart .mypy_cache .pytest_cache .ruff_cache
