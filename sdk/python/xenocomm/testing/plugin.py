"""pytest fixtures: `pytest_plugins = ["xenocomm.testing.plugin"]`."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from xenocomm.sync import SyncClient
from xenocomm.testing.server import ServerInProcess, server


@pytest.fixture(scope="session")
def kfm_script() -> Mapping[str, Any] | Path | str:
    """What the server's model says; override it with a script of your own, as JSON or the file of it."""
    return "demo"


@pytest.fixture(scope="session")
def kfm_server(kfm_script: Mapping[str, Any] | Path | str) -> Generator[ServerInProcess]:
    """A server for all tests of the run; a test keeps to sessions of its own. Override it to give it tools or configuration."""
    with server(script=kfm_script) as running:
        yield running


@pytest.fixture
def kfm(kfm_server: ServerInProcess) -> Generator[SyncClient]:
    """A blocking client of it; `kfm_server.client()` is an asynchronous one."""
    with kfm_server.sync_client() as client:
        yield client
