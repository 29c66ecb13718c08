# Everything below sets up the virtual environment it needs by itself: a fresh machine needs only
# Python >= 3.11 and make.
#   make demo                     make test                 make test BACKEND=jax
#   make test PYTEST="-m 'not slow' -x" WORKERS=4           make demo PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BACKEND ?= tensorflow
PYTEST ?=
WORKERS ?= 2
RUNS ?= runs

PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Each set of packages leaves a stamp; editing the two files below makes the stamps stale.
INPUTS := pyproject.toml constraints.txt

export KERAS_BACKEND := $(BACKEND)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 14

demo: $(VENV)/.stamp-user-$(BACKEND)  ## Train on handwritten digits, evaluate, save, reload, predict an image file
	$(VENV)/bin/lsmha train zoo/recipes/cct_2_3x2_h16_c1_digits.toml --output $(RUNS)/digits --fresh
	$(VENV)/bin/lsmha evaluate $(RUNS)/digits/preset --dataset digits
	$(PY) examples/write_digit_image.py $(RUNS)/digit.png
	$(VENV)/bin/lsmha predict $(RUNS)/digits/preset $(RUNS)/digit.png

# A worker holds three frameworks, 2 GB; one that has nothing left to do takes tests from another.
test: $(VENV)/.stamp-dev  ## Run the tests (BACKEND=tensorflow, jax or torch; PYTEST= more arguments)
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

lint: $(VENV)/.stamp-lint  ## Check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.stamp-dev  ## Run the benchmarks, half an hour and more; writes runs/*.csv
	mkdir -p $(RUNS)
	$(PY) -m benchmarks.data --output $(RUNS)/data_benchmark.csv
	$(VENV)/bin/lsmha bench attention --output $(RUNS)/attention.csv
	$(VENV)/bin/lsmha bench attention --memory --output $(RUNS)/attention_memory.csv
	$(VENV)/bin/lsmha bench cct --output $(RUNS)/cct.csv
	$(VENV)/bin/lsmha bench model cct_2_3x2_h16 cct_2_3x2_h16_c1 --fuse --against vit_pytorch.cct keras_hub.vit \
		--output $(RUNS)/benchmark_model.csv
	$(PY) -m benchmarks.shp --output $(RUNS)/shp.csv
	$(PY) -m benchmarks.heads --output $(RUNS)/head_speed.csv

clean:  ## Remove the virtual environment and what the demo wrote
	rm -rf $(VENV) $(RUNS)

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), \
	  f"Python >= 3.11 is needed. Received: {sys.version}. Try: make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.stamp-user-$(BACKEND): $(VENV)/.stamp-venv $(INPUTS)
	@echo "Installing the package with $(BACKEND): minutes, 2 GB and more"
	$(INSTALL) -e '.[$(BACKEND),data,tensorboard]'
	touch $@

# vit-pytorch without its dependencies: torchvision is not needed and must match torch's build.
$(VENV)/.stamp-dev: $(VENV)/.stamp-venv $(INPUTS)
	@echo "Installing the package with three backends and the tests' tools: minutes, 4 GB"
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps vit-pytorch
	touch $@

$(VENV)/.stamp-lint: $(VENV)/.stamp-venv $(INPUTS)
	$(INSTALL) ruff mypy
	touch $@
