# The same commands for people and for CI. `make up` and `make test` need nothing before them.
.DEFAULT_GOAL := help
.PHONY: help setup up down status shell test bench soak check fmt lock reference

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=OPENCLAW_LAB,XDG_CACHE_HOME,CI)
FLEET := $(SUDO) .venv/bin/fleet --lab
CODE := broker_app runner_app fleet infra lab plugins tests roles scripts

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Install what the kit needs: packages, and Python's in .venv
	@scripts/setup

up: setup ## Rehearse the whole deployment on this machine, and show the fleet
	@$(FLEET) up

down: setup ## Remove the rehearsal and all it left
	@$(FLEET) down

status: ## Show each agent, its state and its last job
	@$(FLEET) status

shell: ## Log in: make shell HOST=agents-1
	@$(FLEET) shell $(HOST)

test: check ## Run every test: units, contracts, roles, a fleet
	@$(SUDO) .venv/bin/pytest -n 3

bench: ## Time the queue beside beanstalkd, and site.yml beside a shell script that does the same
	@scripts/setup bench
	@$(SUDO) .venv/bin/python -m tests.bench.queue; queue=$$?; $(SUDO) .venv/bin/python -m tests.bench && exit $$queue

soak: setup ## Try for long to break it: 10 minutes of faults (SECONDS, SEED), 20 of fuzz, the queue beside its model
	@$(SUDO) .venv/bin/python -m tests.faults.soak --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-1200} .venv/bin/pytest tests/fuzz
	@QUEUE_PROFILE=soak .venv/bin/pytest tests/unit/broker_app/test_queue_model.py

check: setup ## Lint and type-check everything
	@.venv/bin/ruff check --quiet $(CODE)
	@.venv/bin/ruff format --check --quiet $(CODE)
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/yamllint --strict .
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/ansible-lint -q --offline

fmt: setup ## Format the Python code
	@.venv/bin/ruff check --fix --quiet $(CODE)
	@.venv/bin/ruff format --quiet $(CODE)

reference: setup ## Write docs/reference.md anew from the roles
	@.venv/bin/python scripts/reference.py > docs/reference.md

lock: ## Move the pinned requirements to the newest releases
	@requirements/lock --upgrade
