# Everything that is needed to benchmark, test and check this project on a fresh Linux or macOS machine with Python 3.11,
# 3.12 or 3.13. The environment is .venv; what is installed in it is noted by the .installed-* files inside it, so a
# second run starts at once and a changed pyproject.toml installs again. Works with GNU make 3.81 (macOS) and later.

VENV := .venv
RUN := $(VENV)/bin/
SUITE ?= quick
# Processes that run tests, a file at a time, as tests of a file share what they compiled.
JOBS ?= 2
# An interpreter of your choice: make bench PYTHON=/path/to/python3.12
PYTHON ?=

.DELETE_ON_ERROR:
# Modules are compiled when they are imported: pip would compile all of them, which takes longer than the rest of an installation.
PIP_INSTALL := $(RUN)python -m pip install --quiet --disable-pip-version-check --no-compile
# What `make peers` installs; CI asks for fewer and for a version that has a wheel for processors only.
PEERS ?= ".[peers]"

.PHONY: help bench test peers cuda lint format smoke gpu clean

help:
	@echo "make bench    verify and time every cell and backend, then show the table and the page (SUITE=quick)"
	@echo "make test     the tests (ARGS=\"-k name\" for some of them)"
	@echo "make peers    install PyTorch, ONNX Runtime, JAX and Keras, which tests and comparisons use if they are installed"
	@echo "make cuda     install numba-cuda, with which the tests compile the CUDA kernels for real devices"
	@echo "make lint     ruff and mypy"
	@echo "make format   let ruff format and fix the sources"
	@echo "make gpu      check and measure the CUDA kernels on a GPU, ten minutes (OUT=folder)"
	@echo "make smoke    every benchmark once, tiny, keeping no numbers"
	@echo "make clean    remove .venv and everything else that can be made again; results/ stays"
	@echo "PYTHON=/path/to/python picks the interpreter, 3.11 to 3.13"

bench: $(VENV)/.installed-report
	$(RUN)rnnbench run --suite $(SUITE) $(ARGS)

test: $(VENV)/.installed-dev
	$(RUN)python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

peers: $(VENV)/.installed-dev
	$(PIP_INSTALL) $(PEERS)

cuda: $(VENV)/.installed-dev
	$(PIP_INSTALL) -e ".[cuda]"

lint: $(VENV)/.installed-dev
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy

format: $(VENV)/.installed-dev
	$(RUN)ruff check --fix .
	$(RUN)ruff format .

# A machine with a GPU may have no package index: GPU_PYTHON names an interpreter that has NumPy, Numba, numba-cuda and PyTorch.
GPU_PYTHON ?=

gpu:
	@if [ -z "$(OUT)" ]; then echo "Name a folder for the results: make gpu OUT=results/h200" >&2; exit 1; fi
	@if ! nvidia-smi -L >/dev/null 2>&1; then \
	  echo "There is no NVIDIA GPU here: nvidia-smi, which comes with the driver, is missing or lists none." >&2; exit 1; \
	fi
	@if [ -z "$(GPU_PYTHON)" ]; then $(MAKE) $(VENV)/.installed-gpu; fi
	@status=0; \
	$(or $(GPU_PYTHON),$(RUN)python) -m rnnbench gpu "$(OUT)" || status=1; \
	if ! $(or $(GPU_PYTHON),$(RUN)python) -c "import asv, asv_runner, filelock" 2>/dev/null || ! git rev-parse HEAD >/dev/null 2>&1; then \
	  echo "asv's benchmarks were left out: they need asv, asv_runner, filelock and a git checkout"; exit $$status; \
	fi; \
	$(or $(GPU_PYTHON),$(RUN)python) -m rnnbench run --suite smoke --backends numba-cuda --results "$(OUT)/asv" || status=1; \
	exit $$status

smoke: $(VENV)/.installed-report
	$(RUN)rnnbench run --suite smoke --dry-run

clean:
	rm -rf $(VENV) .asv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find rnnbench benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -----------------------------------------------------------------------------------------------

# Made once, and again when PYTHON names another interpreter than last time: the name is part of the note.
empty :=
MADE := $(VENV)/.made
ifneq ($(PYTHON),)
MADE := $(VENV)/.made-with$(subst /,-,$(subst $(empty) ,-,-$(PYTHON)))
endif
# The interpreter that .venv points to may be gone (an upgrade took it away): then .venv is made anew.
ifneq ($(shell $(RUN)python -c "print('runs')" 2>/dev/null),runs)
.PHONY: $(MADE)
endif

# Exit 0 where this Python will work. ensurepip: Debian and Ubuntu keep it in the package python3-venv.
SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# A name on the PATH proves nothing (pyenv leaves shims of versions that are switched off), so each candidate is run.
$(MADE):
	@python=; \
	for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python); do \
	  if "$$name" -c "$(SUITS)" >/dev/null 2>&1; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  if [ -n "$(PYTHON)" ]; then found="PYTHON=$(PYTHON) says `"$(PYTHON)" --version 2>&1 | head -n 1`"; \
	  else found="none on the PATH is that"; fi; \
	  echo "rnnbench needs Python 3.11, 3.12 or 3.13 with its venv module (Debian, Ubuntu: apt install python3-venv);" >&2; \
	  echo "$$found. Name one: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "Creating $(VENV) with `"$$python" --version` ($$python)"; \
	"$$python" -m venv --clear $(VENV)
	@touch $(VENV)/.made $@

$(VENV)/.installed-report: pyproject.toml $(MADE)
	@echo "Installing rnnbench with its reports into $(VENV) (once; a minute or two)"
	@$(PIP_INSTALL) -e ".[report]"
	@touch $@

$(VENV)/.installed-gpu: pyproject.toml $(MADE)
	@echo "Installing rnnbench with CUDA and PyTorch into $(VENV) (once; some gigabytes)"
	@$(PIP_INSTALL) -e ".[report,cuda,peers-torch]"
	@touch $@

# The development extra contains the report extra.
$(VENV)/.installed-dev: pyproject.toml $(MADE)
	@echo "Installing rnnbench with its reports, tests and linters into $(VENV) (once; a minute or two)"
	@$(PIP_INSTALL) -e ".[dev]"
	@touch $(VENV)/.installed-report $@
