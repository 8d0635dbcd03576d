# Everything a user or a developer runs. `make demo` and `make test` need nothing but make and a Python:
# each brings what is missing and does nothing twice. PYTHON=... chooses the interpreter of .venv.
PYTHON ?= python3
SHELL := /bin/bash

BIN := .venv/bin
C_FILES = $(shell find csrc -name '*.[ch]' 2>/dev/null)
# Folders count too: a file that went away must lead to a new build.
BUILT_FROM := $(shell find csrc 2>/dev/null) setup.py pyproject.toml
APT := build-essential pkg-config python3-dev python3-venv libuv1-dev libssl-dev openssl

.PHONY: help demo test soak conformance bench bench-once lint format sanitize tsan matrix model build system clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/.built ## asyncio service, hashing and numpy on pyconc beside the standard library (ARGS=...)
	$(BIN)/python -m pyconc demo $(ARGS)

test: .venv/.built ## the tests (ARGS=... goes to pytest)
	$(BIN)/python $(PYFLAGS) -m pytest $(ARGS)

soak: .venv/.built ## ten minutes of process pools whose workers are killed (ARGS="SECONDS METHOD SEED")
	$(BIN)/python tests/workers/soak.py $(or $(ARGS),600 forkserver)

conformance: .venv/.built ## CPython's own test_asyncio on pyconc's loop
	$(BIN)/python tests/conformance/run.py asyncio

bench: .venv/.bench ## pyconc beside the standard library and its peers: benchmarks/results.md and README's table
	rm -f benchmarks/results*.json
	$(BIN)/python -m pytest benchmarks -q --benchmark-only --benchmark-group-by=group \
	    --benchmark-columns=median,rounds --benchmark-sort=name --benchmark-json=benchmarks/results-pytest.json $(ARGS)
	$(BIN)/python benchmarks/loop/run.py --quick --out benchmarks/results
	$(BIN)/python benchmarks/table.py

bench-once: .venv/.bench-tool ## every benchmark of pytest's once, unmeasured: that they run
	$(BIN)/python -m pytest benchmarks -q --benchmark-disable $(ARGS)

lint: .venv/.lint ## ruff, mypy, stubtest, clang-format, lizard, gcc -fanalyzer, cppcheck
	$(BIN)/ruff check .
	$(BIN)/python -m mypy pyconc tests/lint/typed_program.py
	$(BIN)/python -m mypy.stubtest pyconc --mypy-config-file pyproject.toml --allowlist tests/lint/stubtest_allowlist.txt
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/lizard -l c -C 15 -L 80 -w csrc
	printf '%s\n' $(filter %.c,$(C_FILES)) | xargs -P 2 -I{} $(CC) -std=gnu11 -O1 -fanalyzer -Werror -Icsrc \
	    -isystem $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))') -c -o /dev/null {}
	# memleak: gcc knows better who owns what comes from PyMem_Realloc.
	cppcheck -q -j 2 --std=c11 --enable=warning,portability --inline-suppr --library=python --library=posix \
	    --suppress=memleak --error-exitcode=1 -Icsrc $(filter %.c,$(C_FILES))

format: .venv/.lint ## clang-format and ruff's own repairs, in place
	$(BIN)/clang-format -i $(C_FILES)
	$(BIN)/ruff check --fix .

sanitize: .cache/pyconc.tar.gz ## the tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer (TESTS="tests/net")
	tests/interpreters.sh sanitize $(BIN)/python

tsan: .cache/pyconc.tar.gz ## the tests of threads on a build with ThreadSanitizer; any report is a failure
	tests/interpreters.sh tsan $(BIN)/python

matrix: .cache/pyconc.tar.gz ## the tests on every interpreter found, 3.11 to 3.15 (ONLY="3.12 3.13t" TESTS="tests/net")
	tests/interpreters.sh test $(ONLY)

model: ## every interleaving of a few processes in csrc/ipc, with kills (ARGS="mutex" or "--broken")
	$(PYTHON) tests/model/run.py $(ARGS)

build: .venv/.built ## .venv and the extension modules in it

clean: ## removes everything that make made
	rm -rf .venv .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find pyconc -name '*.so' -delete

# The stamps.

# What the operating system must bring: tried, not asked from the package manager, so that any system passes.
SYSTEM_OK = command -v cc pkg-config >/dev/null && pkg-config --exists 'libuv >= 1.44' 'libcrypto >= 3.0' && \
    $(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null

.cache/system: Makefile
	@mkdir -p .cache
	@if ! { $(SYSTEM_OK); }; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    export DEBIAN_FRONTEND=noninteractive; \
	    echo "Installing $(APT)"; \
	    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(APT); } \
	      </dev/null >.cache/apt.log 2>&1 || { tail .cache/apt.log; exit 1; }; \
	  elif command -v apt-get >/dev/null; then \
	    echo "Something is missing. Run this, then make again:"; echo "  sudo apt-get install -y $(APT)"; exit 1; \
	  elif command -v dnf >/dev/null; then \
	    echo "Something is missing. Run this, then make again:"; \
	    echo "  sudo dnf install gcc make pkgconf-pkg-config python3-devel libuv-devel openssl-devel openssl"; exit 1; \
	  else \
	    echo "Something is missing. Run this, then make again:"; echo "  brew install pkgconf libuv openssl@3"; exit 1; \
	  fi; \
	fi
	@{ $(SYSTEM_OK); } || { echo "$(PYTHON) lacks venv or its headers, or a library is too old:"; \
	    pkg-config --print-errors --exists 'libuv >= 1.44' 'libcrypto >= 3.0'; exit 1; }
	@touch $@

.venv/.made: | .cache/system
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -U pip setuptools wheel
	@touch $@

.venv/.built: .venv/.made $(BUILT_FROM)
	@# setuptools warns that an editable installation is one.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --no-build-isolation -e '.[demo,test]'
	@touch $@

.venv/.bench-tool: .venv/.built
	$(BIN)/python -m pip install -q --group bench
	@touch $@

# A peer that does not support this Python yet is left out.
.venv/.bench: .venv/.bench-tool
	for peer in uvloop rloop aiofastnet httptools; do $(BIN)/python -m pip install -q $$peer || echo "without $$peer"; done
	@touch $@

.venv/.lint: .venv/.built
	$(BIN)/python -m pip install -q --group lint
	@command -v cppcheck >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq cppcheck </dev/null; } || \
	    { echo "Run this, then make again:  sudo apt-get install -y cppcheck"; exit 1; }
	@touch $@

.cache/pyconc.tar.gz: .venv/.made $(BUILT_FROM) $(shell find pyconc -name '*.py' -o -name '*.pyi' 2>/dev/null) MANIFEST.in
	@rm -rf .cache/dist
	$(BIN)/python setup.py -q sdist -d .cache/dist
	@mv .cache/dist/*.tar.gz $@
