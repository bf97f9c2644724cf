# Needs make and Python >= 3.11 with venv; no root, no uv. Everything lands in .venv and runs/.
BIN := .venv/bin
STAMP := .venv/.installed
LOCK := requirements.lock
WORKERS ?= 2
# A file's tests stay together; the files come in the order that tests/conftest.py gives them.
BY_FILE := --dist loadfile --no-loadscope-reorder
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-fast lint clean

help:
	@echo "make install    .venv with the locked dependencies (also done by the targets below)"
	@echo "make demo       the whole story in minutes: runs/demo/report.html"
	@echo "make test       lint, import contracts and all tests"
	@echo "make test-fast  the tests that take seconds"
	@echo "make lint       ruff and the import contracts"
	@echo "make clean      remove .venv, runs and caches"

install: $(STAMP)

# A new lock is synchronised into the standing .venv; a missing or half-made one starts afresh,
# with uv fetched by pip under the lock's hashes. Where uv reaches no index, pip does the work.
$(STAMP): $(LOCK) pyproject.toml
	@set -eu; \
	rm -f $@; \
	mkdir -p "$${HOME:-/nonexistent}/.cache" 2>/dev/null && test -w "$$HOME/.cache" \
	  || export UV_CACHE_DIR="$$PWD/.venv/.cache/uv" PIP_CACHE_DIR="$$PWD/.venv/.cache/pip"; \
	if ! $(BIN)/uv --version >/dev/null 2>&1 || ! $(BIN)/python -c "" 2>/dev/null; then \
	  found=; \
	  for python in $${PYTHON:-python3.13 python3.12 python3.11 python3.14 python3 python}; do \
	    "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || continue; \
	    found="$$python"; \
	    "$$python" -c "import venv, ensurepip" 2>/dev/null && break; \
	    python=; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python >= 3.11 found; install one or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  if [ -z "$$python" ]; then \
	    echo "error: $$found has no venv module (on Debian and Ubuntu: the package python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	  echo "creating .venv with $$("$$python" --version)"; \
	  "$$python" -m venv --clear .venv; \
	  awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' $(LOCK) > .venv/uv.lock; \
	  $(BIN)/python -m pip install -q --require-hashes -r .venv/uv.lock; \
	fi; \
	echo "installing $(LOCK)"; \
	if $(BIN)/uv pip sync -q --require-hashes --python $(BIN)/python $(LOCK); then \
	  $(BIN)/uv pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e .; \
	else \
	  echo "uv failed; trying pip" >&2; \
	  $(BIN)/python -m pip install -q --require-hashes -r $(LOCK); \
	  $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .; \
	fi; \
	touch $@

demo: $(STAMP)
	$(BIN)/bridgeact demo --out=runs/demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n $(WORKERS) $(BY_FILE)

test-fast: $(STAMP)
	$(BIN)/pytest -n $(WORKERS) $(BY_FILE) -m "not slow"

clean:
	rm -rf .venv runs build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
