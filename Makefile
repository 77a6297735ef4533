# Everything a developer or newcomer types. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo run test random lint types layers bench soak histories losses twins churn day faults lock clean

setup: $(VENV)/.ready  ## install everything into .venv; leaves .venv/bin/quotebus

$(VENV)/.ready: requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" sh scripts/setup.sh "$(VENV)"
	@touch $@

demo: setup  ## the whole bus on this machine, without an account
	@$(BIN)/quotebus demo

run: setup  ## the daemon, settings from the environment or a .env file
	@$(BIN)/quotebus run

# With the 1 024 open files of an ordinary user, whatever this one may have; who may have fewer keeps those.
test: setup  ## everything that CI checks, against real servers
	@$(MAKE) --no-print-directory -j 3 lint types layers
	@ulimit -n 1024 2>/dev/null || true; exec $(BIN)/python -m pytest -n 6 --dist worksteal

random: setup  ## short runs of soak, histories, losses, twins, churn and day, which CI lives through behind the tests
	@ulimit -n 1024 2>/dev/null || true; exec $(BIN)/python -m pytest -m random

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

layers: setup
	@$(BIN)/lint-imports --no-cache

bench: setup  ## figures side by side in one run; BENCH="--quick", BENCH="--tape FILE"
	@REDIS_BENCHMARK="$$(scripts/debian_tool.sh redis-tools redis-benchmark)" \
		$(BIN)/python -m benchmarks $(BENCH)

MINUTES ?= 5
SEED ?= 1
RATE ?= 2000

soak: setup  ## traffic with random faults and a balance at the end; MINUTES=30 SEED=1 RATE=2000
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED) --rate $(RATE)

COUNT ?= 20
JOBS ?= 4

histories: setup  ## short random histories; SEED=1 COUNT=300 JOBS=4, ONLY=17 for one, DAEMON=CHECKOUT, KEEP=FOLDER
	@$(BIN)/python -m tests.histories --seed $(SEED) --count $(COUNT) --jobs $(JOBS) \
		$(if $(ONLY),--only $(ONLY)) $(if $(DAEMON),--daemon $(DAEMON)) $(if $(KEEP),--keep $(KEEP))

losses: setup  ## somebody spoils streams at random beside readers: what was missing, was it told? SEED=1 COUNT=300
	@$(BIN)/python -m tests.losses --seed $(SEED) --count $(COUNT)

twins: setup  ## the bus in memory beside a real server, random operations; SEED=0 COUNT=500
	@$(BIN)/python -m tests.twins --seed $(SEED) --count $(if $(filter file,$(origin COUNT)),500,$(COUNT))

SECONDS ?= 20

churn: setup  ## a consumer group under churn, each entry accounted for; SEED=1 COUNT=100 SECONDS=60 JOBS=2, ONLY=17, WORKERS=CHECKOUT, KEEP=FOLDER
	@$(BIN)/python -m tests.churn --seed $(SEED) --count $(COUNT) --jobs $(JOBS) --seconds $(SECONDS) \
		$(if $(ONLY),--only $(ONLY)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(KEEP),--keep $(KEEP))

QUOTES ?= 2000000

day: setup  ## quotes through the synchronous twin, its strategies interrupted, forked and closed; SEED=1 QUOTES=2000000, RATE=10000
	@$(BIN)/python -m tests.day --seed $(SEED) --quotes $(QUOTES) \
		--rate $(if $(filter file,$(origin RATE)),10000,$(RATE)) $(if $(WAYS),--only $(WAYS))

faults: setup  ## docs/faults.md, from tests/faults.toml and the marks of the tests
	@$(BIN)/python -m tests.catalogue

LOCKED := --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

lock: setup  ## pin the newest versions with hashes, and without naming a registry
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra dev $(LOCKED) -o requirements.lock
	@$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra ingestor $(LOCKED) -c requirements.lock \
		-o deploy/requirements.lock
	@echo hatchling | $(BIN)/uv pip compile -q --upgrade - $(LOCKED) -c requirements.lock -o deploy/build.lock

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
