# make setup | demo | tables | results | licences | test | lint | bench | site | wheels. Everything is installed into .venv from the registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := core testbed curate vae distill infer colibri
EDITABLE := $(foreach package,$(PACKAGES),-e packages/$(package))
VLLM := .venv-vllm
MAKEFLAGS += --jobs=2
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup setup-vllm browser demo tables results licences site wheels test test-fast lint bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: constraints.txt pyproject.toml $(foreach package,$(PACKAGES),packages/$(package)/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(PIP) hatchling torch
	$(PIP) $(EDITABLE) $(shell sed -n '/^# tools/,$$s/==.*//p' constraints.txt | tr '\n' ' ')
	touch $@

# vLLM for tests on a CPU, in an environment of its own: its pins differ. The CUDA builds of
# torchvision, torchaudio and torchcodec that it brings break beside a CPU torch.
setup-vllm: $(VLLM)/.ready

$(VLLM)/.ready: constraints-vllm.txt packages/core/pyproject.toml packages/curate/pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -r constraints-vllm.txt \
	  -e packages/core -e packages/testbed -e packages/curate
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# The whole chain on two cores: clips -> shards -> light decoder and three-step student -> videos ->
# out/demo/report.html. Says what it does; run again, it does what has changed.
demo: setup
	$(BIN)/python pipelines/run.py tiny --out out/demo

# The published tables in the small world: hours. Stopped at any moment, it goes on.
tables: setup
	$(BIN)/python pipelines/run.py tables --out out/tables
	cp out/tables/results/*.json benchmarks/results/
	$(MAKE) results

# Pages of docs/results from benchmarks/results: seconds.
results: setup
	$(BIN)/python pipelines/tables/tables.py
	$(BIN)/python benchmarks/summary.py

licences: setup
	$(BIN)/python docs/licences.py --sbom out/sbom.json

site: setup
	$(BIN)/mkdocs build --quiet --strict --site-dir out/site
	@echo "The site: $(CURDIR)/out/site/index.html"

wheels: setup
	for package in $(PACKAGES); do $(BIN)/python -m build --no-isolation --wheel --outdir dist packages/$$package; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

test-fast: setup
	$(BIN)/pytest -q -m "not slow"

# The HTML report is tested in a real browser where one is installed or can be.
browser:
	-@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	  apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1

test: lint setup-vllm browser
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

bench: setup
	$(BIN)/python benchmarks/caption_rules.py
	$(BIN)/python benchmarks/curate_first_frame.py
	$(BIN)/python benchmarks/curate_run.py
	$(BIN)/python benchmarks/curate_llm.py
	$(BIN)/python benchmarks/curate_text.py

clean:
	rm -rf $(VENV) $(VLLM) out .mypy_cache .ruff_cache .pytest_cache
