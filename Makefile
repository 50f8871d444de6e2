PYTHON ?= python3
SETUP := $(PYTHON) tools/setup_host.py
HOST_PYTHON = $(shell cd tools && $(PYTHON) -c "import locations; print(locations.host_python())")
PYTEST = $(HOST_PYTHON) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint soak test-unit test-host test-server test-js test-browser ui profiles train clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo "  COMFYUI_PATH=/path make ...   use that ComfyUI and its environment instead of the embedded one"

setup:  ## make the embedded ComfyUI (the other targets do it themselves)
	@$(SETUP)

demo: setup  ## sample both demo models with and without the pack; results in demo/out/
	@$(HOST_PYTHON) demo/run.py

test:  ## all tests
	@$(SETUP) --tests
	@$(HOST_PYTHON) tools/run_tests.py

lint: setup  ## style
	@$(HOST_PYTHON) -m ruff check .
	@$(HOST_PYTHON) -m ruff format --check .

test-unit: setup  ## the engine, without the host
	@$(PYTEST) tests/unit

test-host: setup  ## the pack in the host's own classes
	@$(PYTEST) tests/host

test-server: setup  ## workflows through the HTTP API
	@$(PYTEST) tests/server

soak: setup  ## 1000 prompts in one server: memory stays flat, results stay the same (about 10 minutes)
	@$(HOST_PYTHON) tools/soak.py

test-js:  ## the plot's modules
	@$(SETUP) --tests
	@npx vitest run --dir tests/js

test-browser:  ## the plot in a real browser
	@$(SETUP) --tests
	@$(HOST_PYTHON) tests/browser/run.py

ui: setup  ## start ComfyUI with the pack and the demo models, and print its address
	@$(HOST_PYTHON) tools/host_server.py

profiles: setup  ## calibrate the demo models anew into schedules/
	@$(HOST_PYTHON) demo/make_profiles.py

train: setup  ## train the demo models from nothing (hours)
	@$(HOST_PYTHON) demo/train.py --model image
	@$(HOST_PYTHON) demo/train.py --model video

clean:  ## remove the embedded host and everything made
	rm -rf .host node_modules demo/out tests/browser/out
