PYTHON ?= python3
SETUP := $(PYTHON) tools/setup_host.py
HOST_PYTHON = $(shell cd tools && $(PYTHON) -c "import locations; print(locations.host_python())")
PYTEST = $(HOST_PYTHON) -m pytest
export PATH := $(CURDIR)/.host/nodejs/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo quality paper studies test lint soak test-unit test-host test-server test-js test-browser test-browser-new ui profiles train distil clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-17s %s\n", $$1, $$2}'
	@echo "  COMFYUI_PATH=/path make ...   use that ComfyUI instead of the embedded one"
	@echo "  COMFYUI_PYTHON=/path/python   and the Python that starts it, where it has no venv of its own"

setup:  ## make the embedded ComfyUI (the other targets do it themselves)
	@$(SETUP)

demo:  ## sample the image and the video demo model with and without the pack; results in demo/out/
	@$(SETUP) --demo
	@$(HOST_PYTHON) demo/run.py

quality: setup  ## the pack beside its rivals on the demo models (days on 2 cores; stop and go on as you like)
	@$(HOST_PYTHON) bench/quality.py

paper: setup  ## the paper's claims measured anew: docs/paper.md (an hour on 2 cores; stop and go on as you like)
	@$(HOST_PYTHON) bench/paper.py

studies: setup  ## which settings to leave alone: filters, constraints, transfer of profiles (an hour; stop and go on)
	@$(HOST_PYTHON) bench/studies.py

test:  ## all tests
	@$(SETUP) --tests
	@$(HOST_PYTHON) tools/run_tests.py

lint:  ## style
	@$(SETUP) --pytest
	@$(HOST_PYTHON) -m ruff check .
	@$(HOST_PYTHON) -m ruff format --check .

test-unit:  ## the engine, without the host
	@$(SETUP) --pytest
	@$(PYTEST) tests/unit

test-host:  ## the pack in the host's own classes
	@$(SETUP) --pytest
	@$(PYTEST) -n 2 tests/host

test-server:  ## workflows through the HTTP API
	@$(SETUP) --pytest
	@$(PYTEST) tests/server

soak: setup  ## 10000 fuzzed profile files; 1000 prompts in one server: memory flat, same results (15 minutes)
	@OMNICACHE_FUZZED_FILES=10000 $(PYTEST) tests/host/test_library.py -k fuzzed
	@$(HOST_PYTHON) tools/soak.py

test-js:  ## the plot's modules
	@$(SETUP) --tests
	@npx vitest run --dir tests/js

test-browser:  ## the plot in a real browser
	@$(SETUP) --tests
	@$(HOST_PYTHON) tests/browser/run.py

test-browser-new:  ## the same with a newer front-end than the host's, downloaded once
	@$(SETUP) --tests
	@$(HOST_PYTHON) tests/browser/run.py --frontend 1.58.1

ui: setup  ## start ComfyUI with the pack and the demo models, and print its address
	@$(HOST_PYTHON) tools/host_server.py

profiles: setup  ## calibrate the demo models anew into schedules/
	@$(HOST_PYTHON) demo/make_profiles.py

train: setup  ## train the demo models from nothing (hours)
	@$(HOST_PYTHON) demo/train.py --model image
	@$(HOST_PYTHON) demo/train.py --model video
	@$(HOST_PYTHON) demo/train_dit.py

distil: setup  ## distil the image model into the few-step student (half an hour)
	@$(HOST_PYTHON) demo/distil.py

clean:  ## remove the embedded host and everything made
	rm -rf .host node_modules demo/out tests/browser/out
