.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

help:            ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

run: .venv/run   ## the gateway on the embedded engines: no GPU, no Docker, no downloads of models
	@exec $(BIN)/python -m gateway run $(ARGS)

test: .venv/dev  ## every test that needs no Docker, no GPU and no engine packages
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m "not docker and not gpu and not engine and not clients" $(ARGS)

test-clients: .venv-clients/npm ## stock clients of Realtime, Python's and JavaScript's (npm), against a real gateway (600 MB of packages)
	@.venv-clients/bin/python -m pytest -m clients tests/clients $(ARGS)

test-engines: .venv-engines/dev ## the real FunASR and CosyVoice code, on tiny models that the tests make (5 GB of packages)
	@.venv-engines/bin/python -m pytest -m "engine and not gpu" $(ARGS)

test-gpu: .venv-engines/dev ## the real engines on their real models, fetched into MODELS_DIR (models); needs a GPU
	@.venv-engines/bin/python -m pytest -m gpu $(ARGS)

bench: .venv/dev ## what the gateway costs, beside nginx and a plain design (Debian: nginx, wrk)
	@$(BIN)/python -m bench.gateway && $(BIN)/python -m bench.normalise

bench-conversation: .venv/dev ## what passing a conversation on costs beside nginx, how soon the cascade answers, what is left of hang-ups
	@$(BIN)/python -m bench.relay && $(BIN)/python -m bench.cascade && $(BIN)/python -m bench.cycles

bench-openai: .venv/dev .venv-litellm/bin/litellm ## what /v1/audio/speech costs beside nginx and the LiteLLM proxy
	@$(BIN)/python -m bench.openai --litellm .venv-litellm/bin/litellm

bench-avatar: .venv/dev ## large uploads and downloads beside nginx, and polling clients beside a conversation
	@$(BIN)/python -m bench.avatar

bench-engines: .venv-engines/dev ## the real engine servers on networks of random weights, on the CPU; ARGS=--help
	@.venv-engines/bin/python -m bench.engines --device cpu $(ARGS)

bench-gpu: .venv-engines/dev ## the same on a GPU, networks of the published sizes, with targets
	@.venv-engines/bin/python -m bench.engines --device gpu $(ARGS)

check: .venv/dev ## lint, format and types
	@$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy

up:              ## the stack in Docker, on the GPU if there is one; waits until it is ready
	@deploy/stack.sh up $(ARGS)

down:            ## stop it and remove it, all but its volumes
	@deploy/stack.sh down $(ARGS)

ps:              ## how its services are
	@deploy/stack.sh ps $(ARGS)

logs:            ## what they say; ARGS=-f to follow
	@deploy/stack.sh logs $(ARGS)

build:           ## its images
	@deploy/stack.sh build $(ARGS)

models: .venv/run ## fetch what the engines need into MODELS_DIR (models), ahead of time; ENGINES=s2s, ARGS=--check only looks
	@$(BIN)/python -m engines.provision $(or $(ENGINES),all) --no-packages $(ARGS)

env: .venv/run   ## write deploy/env.example and deploy/engines.env.example from the settings
	@$(BIN)/python -m gateway env >deploy/env.example
	@$(BIN)/python -m engines.settings >deploy/engines.env.example

lock: .venv/dev  ## pin the newest versions in requirements/*.lock
	@deploy/lock.sh

# Private

.venv/run: requirements/run.lock
	@$(PYTHON) deploy/environment.py $@ $<

.venv/dev: requirements/dev.lock
	@$(PYTHON) deploy/environment.py $@ $<

.venv-engines/dev: requirements/engines-dev.lock
	@$(PYTHON) deploy/environment.py $@ $<

.venv-litellm/bin/litellm:
	@$(PYTHON) -m venv .venv-litellm && .venv-litellm/bin/pip install --quiet 'litellm[proxy]==1.110.2'

.venv-clients/dev: requirements/clients.lock
	@$(PYTHON) deploy/environment.py $@ $<

.venv-clients/npm: tests/clients/package.json .venv-clients/dev
	@mkdir -p .venv-clients/node && cp $< .venv-clients/node
	@command -v npm >/dev/null || { echo "no npm: the tests of @openai/agents will skip"; exit 0; }; \
	cd .venv-clients/node && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error && touch ../npm

.PHONY: help run test test-clients test-engines test-gpu bench bench-conversation bench-openai bench-avatar bench-engines bench-gpu check up down ps logs build models env lock
