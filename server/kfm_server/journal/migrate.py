"""Brings a database to the shape that this code needs: numbered files, each in one transaction, none twice."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

_LOCK = 0x6B666D  # "kfm": any two servers that start together take turns
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


class MigrationError(Exception):
    """The database and this code do not belong together; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. Numbers run from 1 without gaps; a file that was released never changes."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, as hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """The files of this code, in order. Raises MigrationError when their numbers have gaps."""
    found: list[Migration] = []
    for file in files("kfm_server.journal").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError("the numbers of the migration files have gaps or repeats")
    return tuple(found)


async def migrate(dsn: str, *, partitions: int = 16, files: Sequence[Migration] | None = None) -> None:
    """Apply what is missing; safe to kill at any statement and to run from many processes at once.

    Raises MigrationError for a database that is newer than this code, was made by an edited file, or
    has another number of partitions (their number decides where a session lives, for ever); OSError or
    asyncpg.PostgresError when the database cannot be used.
    """
    wanted = migrations() if files is None else tuple(files)
    connection: Any = await asyncpg.connect(dsn, server_settings={"application_name": "kfm-migrate"})
    try:
        # Let go by the server when the connection ends, however it ends.
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await _apply(connection, wanted)
        await _set_partitions(connection, partitions)
    finally:
        await connection.close()


async def _apply(connection: Any, wanted: Sequence[Migration]) -> None:
    async with connection.transaction():
        await connection.execute("create schema if not exists kfm")
        await connection.execute(
            "create table if not exists kfm.migrations (number int primary key, name text not null,"
            " checksum text not null, applied_at timestamptz not null default clock_timestamp())"
        )
    rows = await connection.fetch("select number, name, checksum from kfm.migrations order by number")
    known = {migration.number: migration for migration in wanted}
    for row in rows:
        mine = known.get(row["number"])
        if mine is None:
            raise MigrationError(
                f"the database is at migration {rows[-1]['number']} and this code knows {len(wanted)}:"
                " run a server that is at least as new as the one before"
            )
        if mine.checksum != row["checksum"]:
            raise MigrationError(
                f"migration {mine.number} ({mine.name}) is not what was applied to this database:"
                " put the released file back and add a new one for the change"
            )
    done = {row["number"] for row in rows}
    for migration in wanted:
        if migration.number in done:
            continue
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                "insert into kfm.migrations (number, name, checksum) values ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )


async def _set_partitions(connection: Any, partitions: int) -> None:
    async with connection.transaction():
        await connection.execute(
            "insert into kfm.settings (name, value) values ('partitions', $1) on conflict do nothing",
            str(partitions),
        )
        stored = await connection.fetchval("select value from kfm.settings where name = 'partitions'")
        if stored != str(partitions):
            raise MigrationError(f"the database has {stored} partitions and KFM_PARTITIONS says {partitions}")
        for statement in (
            "insert into kfm.partitions (partition, epoch) select n, 0 from generate_series(0, $1 - 1) n"
            " on conflict do nothing",
            "insert into kfm.leases (partition) select n from generate_series(0, $1 - 1) n"
            " on conflict do nothing",
        ):
            await connection.execute(statement, partitions)
