# The two commands of the README: `make serve` and `make test`. Everything else stands under `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
PLAYGROUND ?=
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: help serve test lint format bench bench-clients bench-gateway bench-gpu bench-growth bench-peers bench-rates parity load proto proto-check lock clean

help:  ## Lists the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.serve  ## Serves the default model, or MODEL=<hub name or folder>, until Ctrl-C (PLAYGROUND=1: with a page)
	@$(BIN)/polarvec-server serve $(if $(MODEL),'$(MODEL)') $(if $(PLAYGROUND),--playground)

test: $(VENV)/.dev  ## Runs all tests, against a real tritonserver
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.dev proto-check  ## Checks format, types, imports and the proto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy client/polarvec server/polarvec_server
	mkdir -p build/googleapis/google/rpc
	cp $$($(BIN)/python -c "import google.rpc, os; print(os.path.join(list(google.rpc.__path__)[0], 'status.proto'))") build/googleapis/google/rpc/
	$(BIN)/buf lint --config proto/buf.yaml .

format: $(VENV)/.dev  ## Formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Prints tokens/s and latencies of the server beside the engine alone
	$(BIN)/python load_tests/bench.py $(ARGS)

bench-gpu: $(VENV)/.dev  ## Measures and checks the GPU engine in one visit to a GPU (ARGS=--dry-run: on the CPU)
	$(BIN)/python load_tests/gpu/bench_gpu.py $(ARGS)

bench-clients: $(VENV)/.dev  ## Compares the SDK with the openai package and tritonclient, against an encoder that costs nothing
	$(BIN)/python load_tests/clients/compare.py $(ARGS)

bench-gateway: $(VENV)/.dev  ## Measures what a call costs the gateway beside a bare echo of the same bytes, and profiles it
	$(BIN)/python load_tests/gateway/bench_gateway.py $(ARGS)

bench-growth: $(VENV)/.dev  ## Measures how cost grows with texts, their length, callers, workers and models
	$(BIN)/python load_tests/growth/bench_growth.py $(ARGS)

bench-peers: $(VENV)/.dev  ## Compares the server with other people's software (installs it under .peers/)
	$(BIN)/python load_tests/peers/compare.py $(ARGS)

bench-rates: $(VENV)/.dev  ## Gives the server and other people's servers the same texts at the same times (installs them under .peers/)
	$(BIN)/python load_tests/peers/rates.py $(ARGS)

parity: $(VENV)/.dev  ## Holds every engine and precision against float32 and writes the table into docs/benchmarks.md
	PYTHONPATH=model_repository/encoder/1 $(BIN)/python load_tests/parity.py $(ARGS)

load: $(VENV)/.dev  ## Loads a server that it starts, open loop, and writes a page with plots to build/load (ARGS=--workers 2)
	$(BIN)/python load_tests/run.py $(ARGS)

proto: $(VENV)-proto/.done  ## Generates the code of polarvec.v1 anew
	cd proto && ../$(VENV)-proto/bin/python generate.py .

proto-check: $(VENV)-proto/.done  ## Fails if the committed generated code is not what the proto gives
	$(VENV)-proto/bin/python proto/generate.py --check proto

lock: $(VENV)/.dev  ## Writes constraints.txt from what is installed
	{ echo "# Every version that the Makefile installs, seen to work together. Made by \`make lock\`; names no host."; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt

clean:  ## Removes everything that was built here (not the model cache)
	rm -rf $(VENV) $(VENV)-proto .peers build .run

$(VENV)/bin/pip:
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if (3, 11) <= v <= (3, 12) else 'Polarvec needs Python 3.11 or 3.12 here (the bundled tritonserver has no newer backend that works); this is %d.%d. Name another one: make PYTHON=python3.11 ...' % v)"
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { echo "This Python has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What `make serve` needs: no torch, no compiler.
$(VENV)/.serve: $(VENV)/bin/pip constraints.txt proto/pyproject.toml client/pyproject.toml server/pyproject.toml
	@echo "installing (once)"
	$(PIP) install -c constraints.txt -e proto -e "client[cli,progress]" -e "server[cpu]"
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements-dev.txt
	$(PIP) install -c constraints.txt -r requirements-dev.txt -e proto -e "client[cli,progress]" -e "server[cpu,torch]"
	@touch $@

# The oldest grpcio-tools that we support wants protobuf 5, so it lives apart.
$(VENV)-proto/.done: proto/requirements.txt
	$(PYTHON) -m venv $(VENV)-proto
	$(VENV)-proto/bin/pip --disable-pip-version-check -q install -r proto/requirements.txt
	@touch $@
