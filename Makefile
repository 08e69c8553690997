# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8400
HOME_DIR ?=
ARGS ?=
WORKERS ?= 2
PRELOAD ?= pilot

# tests and the servers that they start import the same files hundreds of times
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
LINTED := src tests benchmarks tools
# files of tests are shared out to as many processes, in the order of tests/conftest.py; much of a
# test is waiting for a server
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z%-]+):.*## (.*)/\1\t\2/p' Makefile | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## make .venv with everything for running, testing and measuring
	@$(PYTHON) tools/venv.py dev

.PHONY: setup-run
setup-run: ## make .venv with only what running needs
	@$(PYTHON) tools/venv.py run

.PHONY: run
run: setup-run ## start the server: PORT=8400 HOST=127.0.0.1 HOME_DIR=~/.llmos PRELOAD=pilot ARGS=
	@exec $(BIN)/llmos serve --host $(HOST) --port $(PORT) $(if $(HOME_DIR),--home $(HOME_DIR)) $(if $(PRELOAD),--preload $(PRELOAD)) $(ARGS)

.PHONY: test
test: setup ## the whole test suite: ARGS are for pytest, WORKERS=0 runs it in one process
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

.PHONY: test-deep
test-deep: setup ## what takes minutes more: every method and preference of training, exactly
	@$(BIN)/pytest -q $(PARALLEL) -m deep $(ARGS)

.PHONY: test-gguf
test-gguf: setup ## the drivers' suite with llama.cpp, compiled once (a minute or two) into .venv-gguf
	@$(BIN)/python tools/engine_venv.py gguf
	@LLMOS_REQUIRE_DRIVERS=gguf .venv-gguf/bin/python -m pytest -q $(PARALLEL) -k gguf tests/contract/drivers tests/system/test_gguf.py $(ARGS)

.PHONY: test-browser
test-browser: setup ## the console in Chromium: every page, chat, compare, suspend, pull; needs chromium
	@$(BIN)/pytest -q tests/browser $(ARGS)

.PHONY: test-openvino
test-openvino: setup ## the drivers' suite with OpenVINO GenAI, in .venv-openvino
	@$(BIN)/python tools/engine_venv.py openvino
	@LLMOS_REQUIRE_DRIVERS=openvino .venv-openvino/bin/python -m pytest -q tests/contract/drivers tests/system/test_openvino.py $(ARGS)

.PHONY: test-vllm
test-vllm: setup ## the drivers' suite with vLLM's CPU build, in .venv-vllm, and vLLM from our server
	@$(BIN)/python tools/engine_venv.py vllm
	@LLMOS_REQUIRE_DRIVERS=vllm .venv-vllm/bin/python -m pytest -q -W default --timeout 600 tests/contract/drivers -k vllm $(ARGS)
	@LLMOS_TEST_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/pytest -q tests/system/test_vllm.py $(ARGS)

.PHONY: lint
lint: setup ## ruff, mypy and the import contracts
	@$(BIN)/ruff check -q $(LINTED)
	@$(BIN)/ruff format -q --check $(LINTED)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

.PHONY: arch
arch: lint ## lint, then the tests of structure and docs
	@$(BIN)/pytest -q tests/arch

.PHONY: unit
unit: setup ## unit tests
	@$(BIN)/pytest -q $(PARALLEL) tests/unit $(ARGS)

.PHONY: quick
quick: setup ## lint, arch and unit side by side: at each commit, within 90 s
	@$(MAKE) -j2 --output-sync=target arch unit

.PHONY: check
check: quick wheel ## quick, the wheel and what it must carry, the generated docs and their site
	@$(BIN)/python tools/check_wheel.py dist
	@$(BIN)/python tools/docs.py --check
	@$(BIN)/python tools/docsite.py

.PHONY: docs
docs: setup ## write the generated pages of docs/
	@$(BIN)/python tools/docs.py

.PHONY: site
site: docs ## the site of the documents, in English and Chinese: build/site/index.html
	@$(BIN)/python tools/docsite.py
	@echo build/site/index.html

.PHONY: format
format: setup ## rewrite the sources in the house's format
	@$(BIN)/ruff check -q --fix $(LINTED)
	@$(BIN)/ruff format -q $(LINTED)

.PHONY: wheel
wheel: setup ## build dist/llmos-*.whl
	@rm -rf dist
	@$(BIN)/python -m build --wheel --outdir dist . > .venv/wheel.log 2>&1 || { tail -30 .venv/wheel.log; exit 1; }
	@ls -l dist/*.whl | awk '{print $$9, $$5, "bytes"}'

.PHONY: pilot
pilot: setup ## generate the text and train the bundled model again
	@$(BIN)/python -m tools.pilot $(ARGS)

.PHONY: small
small: setup ## train the bundled classifier and the bundled embedding model again, and measure them
	@$(BIN)/python -m tools.small $(ARGS)

.PHONY: sim-deep
sim-deep: setup ## the core under 100,000 simulated seeds and long random histories: ARGS=
	@$(BIN)/python -m tests.unit.kernel.test_core_machine
	@$(BIN)/python -m benchmarks.bench_sim --part seeds $(ARGS)

.PHONY: mutants
mutants: setup ## mutate the core: the simulator and the state machine must catch every one
	@$(BIN)/python -m tests.mutation $(ARGS)

.PHONY: openai-tests
openai-tests: setup ## openai-python's own generated tests against our server; what passed must pass: ARGS=
	@$(BIN)/python -m tools.openai_tests $(ARGS)

.PHONY: clients
clients: setup ## simonw/llm and LangChain's own suites against our server; what passed must pass: ARGS=
	@$(BIN)/python -m tools.clients $(ARGS)

.PHONY: storm
storm: setup ## kill servers, cut their power, check every promise: ARGS="--kills 1000 --seconds 600"
	@$(BIN)/python -m tests.storm $(ARGS)

.PHONY: storm-mutants
storm-mutants: setup ## bugs in the durable code, planted and drawn: the storm must catch them
	@$(BIN)/python -m tests.storm.hunt $(ARGS)

.PHONY: bench-engine
bench-engine: setup ## the native engine beside its peers, each in its own environment: FULL=1 ARGS=
	@$(BIN)/python -m benchmarks.bench_engine $(if $(filter 1,$(FULL)),--full) $(ARGS)

bench-%: setup ## run benchmarks/bench_NAME.py and write its result and plot
	@$(BIN)/python -m benchmarks.bench_$(subst -,_,$*) $(ARGS)

.PHONY: clean
clean: ## remove what was built, .venv included
	rm -rf .venv .venv-gguf .venv-openvino .venv-vllm .venv-clients dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
