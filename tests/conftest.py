"""One embedded Postgres for the whole run; a database of its own for each test that asks."""

import contextlib
import functools
import gc
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest
from kfm_server.journal import embedded
from kfm_server.journal.migrate import migrate

from tests.support import iggy as iggy_support

# What one process of the run compiled, the hundreds that tests start need not.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
gc.disable()  # until everything is collected: what is imported stays
hypothesis.settings.register_profile("kfm", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("kfm")
_numbers = itertools.count(1)
_told: set[str] = set()
_NO = "NO SANDBOX"
_LOOK = """
import asyncio
from kfm_server.sandbox.probing import probe
print(*(tier.reason for tier in asyncio.run(probe()) if tier.tier == "process" and not tier.able))
"""


@pytest.fixture(scope="session")
def postgres_home() -> Generator[Path]:
    """A directory that an unprivileged user can reach, also when we are root."""
    home = Path(tempfile.mkdtemp(prefix="kfm-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(postgres_home: Path) -> AsyncGenerator[embedded.EmbeddedPostgres]:
    """The cluster. It has hundreds of databases by and by, which nobody needs vacuumed."""
    server = await embedded.start(postgres_home)
    admin = await asyncpg.connect(server.dsn)
    await admin.execute("alter system set autovacuum = off")
    await admin.execute("select pg_reload_conf()")
    await admin.close()
    yield server
    await server.stop(patience=0)  # nobody wants it written


@contextlib.asynccontextmanager
async def fresh_database(postgres: embedded.EmbeddedPostgres, template: str) -> AsyncGenerator[str]:
    """The DSN of a copy of a database that nobody is connected to; in the end nobody is connected to the copy.

    It goes with the cluster: each drop of a database would wait until all others are written to the disk.
    """
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(postgres.dsn)
    try:
        await admin.execute(f"create database {name} template {template}")
        yield postgres.dsn.replace("/kfm?", f"/{name}?")
        await admin.fetch("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name)
    finally:
        await admin.close()


@pytest.fixture
async def empty_database(postgres: embedded.EmbeddedPostgres) -> AsyncGenerator[str]:
    """The DSN of a fresh database without tables."""
    async with fresh_database(postgres, "template1") as dsn:
        yield dsn


@pytest.fixture(scope="session")
async def migrated(postgres: embedded.EmbeddedPostgres) -> AsyncGenerator[str]:
    """The name of a migrated database with 16 partitions, to be copied."""
    async with fresh_database(postgres, "template1") as dsn:
        await migrate(dsn, partitions=16)
        yield dsn.partition("?")[0].rpartition("/")[2]


@pytest.fixture
async def database(postgres: embedded.EmbeddedPostgres, migrated: str) -> AsyncGenerator[str]:
    """The DSN of a fresh, migrated database with 16 partitions."""
    async with fresh_database(postgres, migrated) as dsn:
        yield dsn


@pytest.fixture(scope="module")
async def module_database(postgres: embedded.EmbeddedPostgres, migrated: str) -> AsyncGenerator[str]:
    """As `database`, one for all tests of a file."""
    async with fresh_database(postgres, migrated) as dsn:
        yield dsn


@pytest.fixture(scope="session")
async def iggy(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[iggy_support.Iggy]:
    """An Iggy server for the run: a real one where there is one, else a stub of its protocol."""
    async with iggy_support.serving(tmp_path_factory.mktemp("iggy")) as server:
        yield server


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The collector of garbage need not look again and again at ten thousand tests."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist tells its controller."""
    told = iggy_support.summary()
    output = getattr(session.config, "workeroutput", None)
    if told and output is not None:
        output["iggy"] = told


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("iggy")
    if told:
        _told.add(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which broker the tests of Iggy had: a stub proves less. And whether the sandbox was tested at all."""
    for told in sorted(_told | {iggy_support.summary()} - {""}):
        terminalreporter.section("Iggy", yellow="NO REAL" in told)
        terminalreporter.line(told)
    why = [
        skipped.longrepr[2]
        for skipped in terminalreporter.stats.get("skipped", ())
        if _NO in str(skipped.longrepr)
    ]
    if why:
        terminalreporter.section("Sandbox", yellow=True)
        terminalreporter.line(
            f"{len(why)} tests of the sandbox did not run. {why[0].removeprefix('Skipped: ')}"
        )


@functools.cache
def _not_confined() -> str:
    """Why this host cannot confine processes; empty if it can."""
    looked = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True, check=True)
    return looked.stdout.strip()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What needs a host that confines processes is skipped on another one, with the reason."""
    if item.get_closest_marker("confined") and (why := _not_confined()):
        pytest.skip(f"{_NO}: this host cannot confine processes: {why}")
