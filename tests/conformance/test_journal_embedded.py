"""The embedded Postgres: ours alone, up again whatever died, gone when stopped."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import asyncpg
import pytest
from kfm_server.journal import embedded


@pytest.fixture
def home() -> Generator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="kfm-home-test-"))
    parent.chmod(0o755)
    yield parent / "a home with spaces"
    shutil.rmtree(parent, ignore_errors=True)


async def _count(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("create table if not exists public.starts (n int)")
        await connection.execute("insert into public.starts values (1)")
        return await connection.fetchval("select count(*) from public.starts")
    finally:
        await connection.close()


async def test_it_starts_stops_and_keeps_what_was_written(home: Path) -> None:
    for n in (1, 2):
        server = await embedded.start(home)
        assert await _count(server.dsn) == n
        await server.stop()
        await server.stop()
        assert server.process.poll() is not None
        assert not server.sockets.exists()


async def test_a_second_server_on_the_same_home_is_refused(home: Path) -> None:
    server = await embedded.start(home)
    try:
        with pytest.raises(embedded.EmbeddedError, match="another server"):
            await embedded.start(home)
    finally:
        await server.stop()


async def test_a_postmaster_left_behind_is_stopped_and_a_killed_one_recovers(home: Path) -> None:
    first = await embedded.start(home)
    await _count(first.dsn)
    os.close(first.lock)  # as the death of its process would
    second = await embedded.start(home)
    assert first.process.poll() is not None
    assert await _count(second.dsn) == 2
    os.close(second.lock)
    os.kill(second.pid, signal.SIGKILL)
    second.process.wait()
    third = await embedded.start(home)
    assert await _count(third.dsn) == 3
    await third.stop()


async def test_the_sockets_of_a_killed_server_whose_postgres_ended_well_are_removed(home: Path) -> None:
    first = await embedded.start(home)
    os.close(first.lock)  # as the death of its process would
    first.process.send_signal(signal.SIGINT)
    await first.wait()
    assert first.sockets.exists()
    second = await embedded.start(home)
    try:
        assert not first.sockets.exists() and second.sockets.exists()
    finally:
        await second.stop()


async def test_a_stale_pid_file_that_names_a_living_stranger_is_no_obstacle(home: Path) -> None:
    server = await embedded.start(home)
    await server.stop()
    (home / "postgres" / "cluster" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    server = await embedded.start(home)
    assert await _count(server.dsn) == 1
    await server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends an account")
async def test_parents_keep_their_modes_when_the_data_has_to_live_elsewhere(private_home: Path) -> None:
    for n in (1, 2):
        server = await embedded.start(private_home)
        assert await _count(server.dsn) == n
        await server.stop()


@pytest.fixture
def private_home(home: Path) -> Generator[Path]:
    home.mkdir()
    home.chmod(0o700)
    yield home
    assert home.stat().st_mode & 0o777 == 0o700
    data = Path((home / "postgres.path").read_text().strip())
    shutil.rmtree(data.parent)
