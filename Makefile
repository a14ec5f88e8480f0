# `make` lists the targets. All logic is in scripts/; paths here are relative, so that a space in the path of the checkout
# does no harm.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint unit integration acceptance test-faults test-pools test-children test-services test-languages test-schedulers test-operating test-stores test-django test-systemd test-newer test-python test-cluster test-lowest soak long long-newer long-versions mutants bench clean

PYTHON := .venv/bin/python
NEWER := $(addprefix tests/,$(addprefix supervised/test_,crashes.py suspects.py ack_timeout.py rolling.py) $(addprefix integration/test_,retry.py consuming.py call.py) $(addprefix operating/test_,prefetch.py queue_walk.py))
# What has always passed alike on all versions: on 4.0 and 4.3 in `make long-newer` only.
ALIKE := $(addprefix tests/,supervised/test_busy_processes.py $(addprefix integration/test_,draining.py publishing.py calling_contract.py))
OPERATING := $(addprefix tests/operating/test_,bounded.py cancelling.py dead_commands.py hooks_live.py lifecycle.py pausing.py pending.py)
# What differs between 4.0 and 4.3: requeuing, walks and suspects; the rest runs on 4.0 in `make long-newer`.
DIFFERS := tests/operating/test_queue_walk.py tests/supervised/test_suspects.py
SCHEDULES := tests/acceptance/test_schedules.py tests/scheduling/test_token_faults.py
# Integration tests that run in the lane of the unit tests, so that both lanes take about as long.
BESIDE := $(addprefix tests/integration/test_,asyncio_page.py cli_tools.py dead.py deploys_page.py docs.py testing_page.py topology_live.py values_page.py)
# Tests of pools that run in a lane of their own: those that wait longest.
POOLS_BESIDE := $(addprefix tests/supervised/test_,ack_timeout.py busy_processes.py crashes.py rolling.py starting.py survivors.py suspects.py)
PYTHON_LIVE := $(addprefix tests/integration/test_,retry.py calling_contract.py draining.py results_live.py) tests/supervised/test_pools.py

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

setup: ## make .venv with pinned versions, and install RabbitMQ if it is missing
	@scripts/setup.sh

demo: setup ## the whole path on real input; DIR=folder of source files, KEEP=1 leaves it running
	@scripts/demo.sh

test: lint ## lint, types, unit and integration tests, against real brokers
	@scripts/rabbitmq.sh
	@scripts/test.sh tests/integration $(addprefix --ignore=,$(BESIDE)) -- tests/unit $(BESIDE) -- $(ARGS)

lint: setup ## style, format and types
	$(PYTHON) -m ruff check --extend-exclude .amqpworker .
	$(PYTHON) -m ruff format --check --extend-exclude .amqpworker .
	$(PYTHON) -m mypy
	MYPYPATH=tests/acceptance/service $(PYTHON) -m mypy --explicit-package-bases tests/acceptance/service/*.py

unit: setup ## tests without a broker; ARGS='-k name' chooses
	$(PYTHON) -m pytest tests/unit $(ARGS)

integration: setup ## tests against private RabbitMQ nodes; ARGS='-k name' chooses
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/integration $(ARGS)

acceptance: setup ## tests of the built and installed wheel, with processes that are killed
	@scripts/rabbitmq.sh
	@scripts/acceptance.sh $(ARGS)

test-faults: setup ## slower tests: nodes, certificates, brokers and networks that fail, forks, storms of retries, sends from unusual places
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/faults $(ARGS)

test-pools: setup ## slower tests of workers, most of them as separate programs: signals, reload, crashes
	@scripts/rabbitmq.sh
	@scripts/test.sh tests/supervised $(addprefix --ignore=,$(POOLS_BESIDE)) -- $(POOLS_BESIDE) -- $(ARGS)

test-children: setup ## slower tests: time limits, isolated processes, and processes that tasks start
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/children $(ARGS)

test-services: setup ## the example services under uvicorn and gunicorn, through reloads and restarts of the broker
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/services $(ARGS)

test-languages: setup ## the clients in examples/clients, in Node, Go, Python and curl, against a worker; `schema`, against that of AsyncAPI
	@scripts/rabbitmq.sh
	@scripts/node.sh
	$(PYTHON) -m pytest tests/languages $(ARGS)

test-schedulers: setup ## schedulers and their commands: supervision, takeover, brokers, tokens and networks that fail
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/scheduling $(ARGS)

test-operating: setup ## what operators do with queues and messages: list, cancel, replay, pause, bound; hooks; the life of a message
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/operating $(ARGS)

test-stores: setup ## results in PostgreSQL, pgbouncer, Redis and Valkey: the contract, servers that are killed, stopped, full or wrong; needs root
	@scripts/stores.sh
	@scripts/valkey.sh
	$(PYTHON) -m pytest tests/stores $(ARGS)

test-django: setup ## tasks of Django under gunicorn, with a PostgreSQL: transactions, results, restarts of all servers; with Django 5.2, and Django 6 on Python 3.13; needs root
	@scripts/rabbitmq.sh
	@scripts/stores.sh
	@$(PYTHON) -m pytest tests/django $(ARGS); of_5=$$?; scripts/python.sh trixie tests/django $(ARGS) && exit $$of_5

test-systemd: setup ## tests of the unit under a real systemd, and of a container, each in its own machine; needs root
	@scripts/rabbitmq.sh
	@scripts/systemd.sh
	$(PYTHON) -m pytest tests/systemd $(ARGS)

test-newer: setup ## tests against RabbitMQ 4.3 of crashes, ack timeouts, redelivery, schedules and what operators do; walks through queues against 4.0, too; needs root
	@scripts/newer.sh trixie $(or $(ARGS),$(DIFFERS))
	@scripts/newer.sh sid $(or $(ARGS),$(NEWER) $(OPERATING) $(SCHEDULES))

long-newer: setup ## all that test-newer runs on 4.3, against RabbitMQ 4.0; on both, what has always passed alike; needs root
	@scripts/newer.sh trixie $(or $(ARGS),$(NEWER) $(OPERATING) $(SCHEDULES) $(ALIKE))
	@scripts/newer.sh sid $(or $(ARGS),$(ALIKE))

test-python: setup ## unit tests and a few more with Python 3.13 (Debian trixie); needs root
	@scripts/python.sh trixie $(or $(ARGS),$(PYTHON_LIVE) -- tests/unit)

test-cluster: setup ## three nodes, of which one or two die, on the installed RabbitMQ and on 4.3; needs root
	@scripts/rabbitmq.sh
	@$(PYTHON) -m pytest tests/cluster $(ARGS); installed=$$?; scripts/newer.sh sid tests/cluster $(ARGS) && exit $$installed

soak: setup ## the short form of `make long`: half a minute per soak
	@scripts/rabbitmq.sh
	$(PYTHON) -m pytest tests/long $(ARGS)

long: setup ## soaks of ten minutes each, in three of them broker, workers, schedulers and network fail, and test-services with 4,000 requests, and ten crashing tasks among 1,000; prints rows for docs/long-run.md
	@scripts/rabbitmq.sh
	SOAK_SECONDS=600 SERVICE_REQUESTS=4000 $(PYTHON) -m pytest tests/long tests/services tests/supervised/test_crashes.py $(ARGS)

test-lowest: setup ## some unit tests with the lowest versions that pyproject.toml allows
	@scripts/versions.sh lowest $(or $(ARGS),$(addprefix tests/unit/,policies log cli/test_cli.py broker/amqp/test_tables.py signature/test_signature.py))

long-versions: setup ## all unit tests with the lowest versions, and with Python 3.12 if it is installed
	@scripts/versions.sh lowest tests/unit $(ARGS)
	@scripts/versions.sh 3.12 tests/unit $(ARGS)

mutants: setup ## mutation tests: break the code in known ways; the tests must catch each
	@scripts/rabbitmq.sh
	$(PYTHON) scripts/mutants

bench: setup ## measure against other libraries on the same node; writes bench/results.md
	@scripts/rabbitmq.sh
	@scripts/golang.sh
	@scripts/stores.sh
	bench/run.sh $(ARGS)

clean: ## stop this checkout's nodes and remove what was made
	@scripts/clean.sh
