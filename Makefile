# Everything runs from a virtual environment that the first target makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Images of containers often forbid Python to keep compiled modules; each of the many processes of the tests would compile all anew.
export PYTHONDONTWRITEBYTECODE :=

# Thousands of small files are written and synchronised with the disk by the tests: they lie in memory where there is room for them.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 2000000 && system("test -w /dev/shm") == 0 { print "/dev/shm" }')
IN_MEMORY := $(if $(MEMORY),TMPDIR=$(MEMORY))

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-card test-loops test-detectors test-faults test-browser screenshot test-package test-minimum check format docs readme build clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 12

venv: $(INSTALLED)  ## make the virtual environment and install prunesearch with its development tools

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: venv  ## the main job on real data: train, trace, search, prune, finetune, report (about a minute)
	$(BIN)/prunesearch demo --out demo

test: venv  ## run the tests, on all cores
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: venv  ## run the tests that take a second or more each
	$(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal -m 'slow and not card'

test-card: venv  ## public calls on a device that is not the CPU, which torch must know before it differentiates anything
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_on_a_card.py -m card

test-loops: venv  ## the training loops of other libraries (accelerate, Lightning, Hugging Face) that the documentation shows
	$(BIN)/python -m pip install --quiet --editable '.[dev,lightning,transformers]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_documentation.py -m loops

test-detectors: venv  ## networks of ultralytics: pruned, then trained, exported and run by the package itself
	$(BIN)/python -m pip install --quiet --editable '.[dev,ultralytics]' pycocotools
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m detectors

FAULTS_OUT ?= benchmarks/results/faults.json
FUZZ ?= 10000
test-faults: venv  ## kills, full disks, damaged files, PostgreSQL, a Ray cluster (minutes); what is counted goes to the docs
	$(BIN)/python -m pip install --quiet --editable '.[dev,ray]' || echo "Ray cannot be installed here; its tests are left out"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -m faults -W ignore::pytest.PytestUnraisableExceptionWarning \
		--numprocesses auto --dist loadscope --fuzz $(FUZZ) --faults-out $(FAULTS_OUT)

test-browser: venv  ## the report in a real browser: needs a Chromium (Debian: apt-get install chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/report -m browser

screenshot: demo  ## the picture of the report in the documentation, taken anew of the demo's default search
	$(BIN)/prunesearch report --study sqlite:///demo/demo-seed0.db --study-names surrogate --out demo/surrogate.html
	$(BIN)/python -m tests.report.browser demo/surrogate.html docs/images/report.png

MINIMUM := build/minimum
test-minimum:  ## run the tests with the oldest version of everything that pyproject.toml admits
	test -x $(MINIMUM)/bin/python || $(PYTHON) -m venv $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet --constraint tests/minimum.txt --editable '.[dev]'
	OMP_NUM_THREADS=1 $(MINIMUM)/bin/python -m pytest --numprocesses auto --dist worksteal

check: venv  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv  ## put the code into its standard format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: venv  ## build the documentation into build/docs; a broken link or reference fails
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs build/docs

readme: venv  ## write tables and pictures of the documentation anew, from benchmarks/results and the code
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/pictures.py
	$(BIN)/python docs/options.py

build: venv  ## build the wheel and the source distribution into dist/
	$(BIN)/python -m pip install --quiet build
	rm -rf dist
	$(BIN)/python -m build

EMPTY := build/empty
test-package: build  ## install the wheel into an empty environment, and run its commands there
	rm -rf $(EMPTY) && $(PYTHON) -m venv $(EMPTY)
	$(EMPTY)/bin/python -m pip install --quiet dist/*.whl
	sh tests/package.sh $(EMPTY)/bin

clean:  ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
