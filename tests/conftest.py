"""One embedded Postgres for the whole run; a database of its own for each test that asks."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
from kfm_server.journal import embedded
from kfm_server.journal.migrate import migrate

hypothesis.settings.register_profile("kfm", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("kfm")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_home() -> Generator[Path]:
    """A directory that an unprivileged user can reach, also when we are root."""
    home = Path(tempfile.mkdtemp(prefix="kfm-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(postgres_home: Path) -> AsyncGenerator[embedded.EmbeddedPostgres]:
    """The cluster."""
    server = await embedded.start(postgres_home)
    yield server
    await server.stop()


@pytest.fixture
async def empty_database(postgres: embedded.EmbeddedPostgres) -> AsyncGenerator[str]:
    """The DSN of a fresh database without tables; dropped after the test."""
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(postgres.dsn)
    try:
        await admin.execute(f"create database {name}")
        yield postgres.dsn.replace("/kfm?", f"/{name}?")
        await admin.execute(f"drop database if exists {name} with (force)")
    finally:
        await admin.close()


@pytest.fixture
async def database(empty_database: str) -> str:
    """The DSN of a fresh, migrated database with 16 partitions."""
    await migrate(empty_database, partitions=16)
    return empty_database
