"""pytest fixtures: `pytest_plugins = ["xenocomm.testing.plugin"]`."""

from collections.abc import Generator

import pytest

from xenocomm.sync import SyncClient
from xenocomm.testing.server import ServerInProcess, server


@pytest.fixture(scope="session")
def kfm_server() -> Generator[ServerInProcess]:
    """A server for all tests of the run; a test keeps to sessions of its own. Override it to give it a script or tools."""
    with server() as running:
        yield running


@pytest.fixture
def kfm(kfm_server: ServerInProcess) -> Generator[SyncClient]:
    """A blocking client of it; `kfm_server.client()` is an asynchronous one."""
    with kfm_server.sync_client() as client:
        yield client
