# Everything is set up by these targets themselves: a virtual environment, uv in it, the locked packages.
PY := .venv/bin/python
UV := env -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_INDEX .venv/bin/uv

.PHONY: dev test check gen contract escape release bench faults n-1 mcp-conformance go-worker clean

.venv/.ready: uv.lock pyproject.toml server/pyproject.toml sdk/python/pyproject.toml mcp/pyproject.toml gen/python/pyproject.toml
	test -x .venv/bin/uv || { python3.11 -m venv .venv && .venv/bin/pip -q install uv==0.13.8; }
	$(UV) sync -q --frozen --inexact --compile-bytecode
	touch $@

dev: .venv/.ready   ## a server on this machine, with sample calls
	@.venv/bin/kfm dev

test: .venv/.ready  ## all tests that need no outside server
	$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

contract: .venv/.ready  ## the compatibility checks of the schema
	$(PY) -m pytest tests/contract

escape: .venv/.ready  ## the sandbox as an attacker meets it, as root and as a plain user; skipped, loudly, where the host cannot confine
	$(PY) -m pytest -n 2 tests/security

gen: .venv/.ready  ## regenerate everything that comes from proto/, and the requirements page
	$(PY) codegen/generate.py
	$(PY) sdk/python/sync_stub.py
	$(PY) codegen/requirements_page.py

release: .venv/.ready  ## snapshot the schema release named in proto/RELEASE
	$(PY) codegen/release.py

check: .venv/.ready  ## everything that CI checks
	$(UV) lock -q --check
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright
	.venv/bin/buf lint
	.venv/bin/buf format -d --exit-code
	$(PY) codegen/generate.py --check
	$(PY) codegen/requirements_page.py --check
	$(PY) -m tests.faults.matrix.page --check
	$(MAKE) test
	$(MAKE) escape
	KFM_TEST_FAULT_SAMPLE=4 $(PY) -m pytest tests/faults  # a seeded sample; all of them: make faults

faults: .venv/.ready  ## kill -9 at every failpoint, frozen owners, lost databases
	$(PY) -m tests.simulator.run --seeds 200
	$(PY) -m pytest tests/faults
	$(PY) -m tests.faults.matrix.run --results .cache/fault_matrix.jsonl  # bus_iggy: KFM_TEST_IGGY, or iggy-server on PATH

n-1: .venv/.ready  ## the release before (tests/n_minus_1/BASELINE) and this one, each with the other's clients and servers
	$(PY) -m pytest tests/n_minus_1

mcp-conformance: .venv/.ready  ## the official referees of MCP, which npm installs below .cache/
	$(PY) -m pytest tests/mcp_conformance

bench: .venv/.ready  ## against the bare floor and the peers, in one run
	$(PY) -m bench.run

go-worker: .venv/.ready  ## the example of a worker in Go, which needs Go
	cd examples/go-worker && ../../.venv/bin/buf generate && go build -o go-worker .

clean:
	rm -rf .venv .kfm .bench .cache
