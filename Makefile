# `make demo` and `make test` need nothing but Python 3.10 or newer and make: they build .venv.

MIN_PYTHON := 3, 10
# The first of these that is new enough; `make PYTHON=/path/to/python` takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < ($(MIN_PYTHON)))' >/dev/null 2>&1 \
	&& { command -v "$$p"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test check bench soak full lint format types cost matrix free-threaded \
	transparency clean

help:
	@echo 'make demo    an outage of a real server, live, with a verdict (ARGS="--plain" etc. go to it)'
	@echo 'make test    the tests (ARGS="-k name" etc. go to pytest)'
	@echo 'make check   what CI runs: lint, types, all tests with the healthy-cost gate'
	@echo 'make bench   what it costs beside redis-py and other breakers (under 5 minutes; ARGS="replay")'
	@echo 'make soak    random faults against real servers (SECONDS=60 on each, SERVER=both, FLAVOUR=threads)'
	@echo 'make full    ten times the simulations and the soak of CI, more failovers: half an hour'
	@echo 'make matrix  a selection of the tests on each Python, redis-py and server (ARGS="--all" etc.)'
	@echo 'make free-threaded   the tests of threads, and their soak, on a Python without its lock'
	@echo 'make transparency    redis-py'"'"'s own tests with the guard put in (REDIS_PY_TESTS=a checkout)'
	@echo 'make cost    only the healthy-cost gate; UPDATE=1 stores the new figure'
	@echo 'make lint, make types, make format, make clean'

$(STAMP): pyproject.toml
	@test -n '$(PYTHON)' || { echo 'Python 3.10 or newer is needed: make PYTHON=/path/to/python' >&2; exit 1; }
	test -x $(BIN)/python || '$(PYTHON)' -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/resilient-redis rehearse $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not cost' $(ARGS)

# Two older redis-py with a few tests; then all tests, in two runs of pytest. In the first three
# workers take a file each, with servers of their own: most tests wait most of the time. The second
# is of those that want the machine for themselves, one after the other, with the cost gate.
check: lint types
	failed=0; \
	$(BIN)/python -m tests.matrix --fast || failed=1; \
	$(BIN)/python -m pytest -m 'not alone' --numprocesses 3 --dist loadfile --no-loadscope-reorder \
		|| failed=1; \
	$(BIN)/python -m pytest -m alone || failed=1; \
	exit $$failed

SECONDS ?= 60
SERVER ?= both
FLAVOUR ?= asyncio

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP)
	$(BIN)/python -m tests.soak --flavour $(FLAVOUR) --seconds $(SECONDS) --server $(SERVER)

# Ten times what CI runs: 2,000 runs of the simulation, 20,000 schedules of the core, one network
# with a call cancelled at each turn, 34 s of soak; and five killed masters of Sentinel, not one.
full: $(STAMP)
	SIM_RUNS=20000 CORE_SCHEDULES=200000 CANCEL_SEEDS=10 $(BIN)/python -m pytest -s tests/sim $(ARGS)
	SENTINEL_KILLS=5 $(BIN)/python -m pytest -s tests/sentinel/test_kills.py
	ALL_WORLDS=1 $(BIN)/python -m pytest -s tests/sync/test_interleavings.py \
		tests/sync/test_exploring.py --timeout 900
	$(BIN)/python -m tests.soak --seconds 340 --server $(SERVER)
	$(BIN)/python -m tests.soak --flavour threads --seconds 100 --server $(SERVER)
	FREE_THREADED='$(FREE_THREADED)' $(BIN)/python -m tests.matrix.free_threaded

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(STAMP)
	$(BIN)/mypy

cost: $(STAMP)
	UPDATE_COST='$(UPDATE)' $(BIN)/python -m pytest -s -m cost tests/cost $(ARGS)

# Its environments are in .venv-matrix. `--fast` is part of `check`.
matrix: $(STAMP)
	$(BIN)/python -m tests.matrix $(ARGS)

# Skipped, loudly, where there is none; FREE_THREADED=/path/to/python3.13t takes that one.
free-threaded: $(STAMP)
	FREE_THREADED='$(FREE_THREADED)' $(BIN)/python -m tests.matrix.free_threaded

# Skipped, loudly, where REDIS_PY_TESTS does not name a checkout of redis-py.
transparency: $(STAMP)
	test -z "$$REDIS_PY_TESTS" || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[published]'
	$(BIN)/python -m tests.transparency

clean:
	rm -rf $(VENV) .venv-matrix .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
