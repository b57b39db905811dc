# make setup | demo | test | lint | bench. Everything is installed into .venv from the registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core testbed curate vae distill infer colibri
EDITABLE := $(foreach package,$(PACKAGES),-e packages/$(package))
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-fast lint bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: constraints.txt pyproject.toml $(foreach package,$(PACKAGES),packages/$(package)/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(PIP) hatchling
	$(PIP) $(EDITABLE) $(shell sed -n '/^# tools/,$$s/==.*//p' constraints.txt | tr '\n' ' ')
	touch $@

demo: setup
	$(BIN)/curate run --sources magicmotion,openvid,humanvid --out out/demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-fast: setup
	$(BIN)/pytest -q -m "not slow"

# The HTML report is tested in a real browser where one is installed or can be.
test: lint
	-@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1
	$(BIN)/pytest -q

bench: setup
	$(BIN)/python benchmarks/caption_rules.py
	$(BIN)/python benchmarks/curate_first_frame.py
	$(BIN)/python benchmarks/curate_run.py

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache
