"""The official conformance build and the Inspector's strict lint, on the bridge. `make mcp-conformance` runs this.

The suite asks for fixtures by name; `kfm mcp --conformance` serves them through the server that serves the tools.
result.json holds what came out; expected_failures.yaml lists, by check, what we do not pass.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kfm_server.doors.cli.own_server import listens

from tests.mcp_conformance import referees
from tests.support.live import LiveServer
from tests.support.mcp import command

pytestmark = [pytest.mark.requirement("E4"), pytest.mark.timeout(600)]


@pytest.fixture(scope="session", autouse=True)
def _there() -> None:
    try:
        referees.installed()
    except referees.Missing as why:
        pytest.skip(f"the referees of MCP are not here: {why}")


@pytest.fixture(scope="session")
def live_server() -> Iterator[LiveServer]:
    """A server with the tool of the fixtures that are turns."""
    home = Path(tempfile.mkdtemp(prefix="kfm-referees-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    server = LiveServer(home, tools="tests.mcp_conformance.slow:TOOLS")
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def fixtures(live_server: LiveServer) -> AsyncIterator[str]:
    """The URL of a bridge with the suite's fixtures."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    how = command("--conformance", str(port), "--group", "steps", KFM_ENDPOINT=live_server.grpc)
    process = await asyncio.create_subprocess_exec(how.command, *how.args, env=how.env)
    try:
        async with asyncio.timeout(30):
            while not listens(f"127.0.0.1:{port}"):
                with contextlib.suppress(TimeoutError):
                    code = await asyncio.wait_for(process.wait(), 0.05)
                    raise AssertionError(f"the bridge ended with {code}")
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.mark.parametrize("revision", referees.REVISIONS)
async def test_the_official_suite_finds_what_the_result_file_says(
    fixtures: str, revision: str, tmp_path: Path
) -> None:
    code, said = await referees.run(
        "conformance",
        *("server", "--url", fixtures, "--requirements", revision, "-o", str(tmp_path)),
        *("--expected-failures", str(referees.EXPECTED)),
    )
    found = referees.checks(tmp_path)
    known = json.loads(referees.RESULT.read_text()) if referees.RESULT.exists() else {}
    before = known.get(revision)
    known |= {"suite": referees.PACKAGES["@modelcontextprotocol/conformance"], revision: found}
    referees.RESULT.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    assert code == 0, said[-3000:]
    assert found == before, (
        "result.json was another: it is written anew; look at the difference and commit it"
    )


@pytest.mark.parametrize("door", ["stdio", "http"])
async def test_the_inspectors_strict_lint_finds_nothing(
    live_server: LiveServer, door: str, tmp_path: Path
) -> None:
    how = command("--group", "steps", KFM_ENDPOINT=live_server.grpc)
    config = tmp_path / "mcp.json"
    one = {"command": how.command, "args": how.args, "env": how.env}
    config.write_text(json.dumps({"mcpServers": {"kfm": one}}))
    target = ["--config", str(config), "--server", "kfm"]
    if door == "http":
        target = [f"http://{live_server.http}/mcp", "--transport", "http"]
    code, said = await referees.run("mcp-inspector", "--cli", *target, "--method", "tools/list", "--strict")
    assert code == 0, said[-3000:]
    assert "kfm_turn_start" in said
    assert "portability" not in said.lower(), said[-3000:]
