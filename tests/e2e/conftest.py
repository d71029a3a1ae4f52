"""One real server, started as a user would start it, for all end-to-end tests that do not need one of their own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from xenocomm import Client

from tests.support.live import LiveServer

TOOLS = "tests.support.ledger:TOOLS"


@pytest.fixture(scope="session")
def live_server() -> Generator[LiveServer]:
    """`kfm serve` on free ports, with its own Postgres and the tools of every effect contract."""
    home = Path(tempfile.mkdtemp(prefix="kfm-live-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    server = LiveServer(home, tools=TOOLS, environment={"LEDGER_FILE": str(home / "ledger.jsonl")})
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def live(live_server: LiveServer) -> AsyncIterator[Client]:
    """A client of the live server."""
    async with Client(live_server.grpc, timeout=15) as client:
        yield client
