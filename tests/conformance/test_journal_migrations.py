"""Migrations: whole or not at all, whoever dies."""

import asyncio
import re

import asyncpg
import pytest
from kfm_server.journal.migrate import Migration, MigrationError, migrate, migrations
from kfm_server.journal.postgres import PostgresJournal

_DIE = "\nselect pg_terminate_backend(pg_backend_pid());\nselect pg_sleep(10);\n"


def _cuts(text: str) -> list[int]:
    """Where statements end: semicolons outside of quoted bodies and comments."""
    plain = re.sub(r"\$\$.*?\$\$|--[^\n]*", lambda m: " " * len(m[0]), text, flags=re.DOTALL)
    return [0, *(match.end() for match in re.finditer(";", plain))]


@pytest.mark.requirement("FT23")
async def test_a_migration_killed_at_any_statement_is_done_whole_at_the_next_start(
    empty_database: str,
) -> None:
    tried = 0
    for number, migration in enumerate(migrations()):
        for cut in _cuts(migration.text):
            text = migration.text[:cut] + _DIE + migration.text[cut:]
            dying = Migration(migration.number, migration.name, text)
            with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
                await migrate(empty_database, files=[*migrations()[:number], dying])
            tried += 1
        await migrate(empty_database, files=migrations()[: number + 1])
    assert tried > 15
    async with PostgresJournal.open(empty_database) as journal:
        assert await journal.heads() == {}


async def test_many_servers_that_start_at_once_migrate_once(empty_database: str) -> None:
    await asyncio.gather(*(migrate(empty_database) for _ in range(6)))
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("select count(*) from kfm.migrations") == len(migrations())
    assert await connection.fetchval("select count(*) from kfm.partitions") == 16
    await connection.close()


async def test_an_edited_file_is_refused(database: str) -> None:
    first, *rest = migrations()
    with pytest.raises(MigrationError, match="not what was applied"):
        await migrate(database, files=[Migration(1, first.name, first.text + "\n"), *rest])


async def test_a_database_newer_than_the_code_is_refused(database: str) -> None:
    with pytest.raises(MigrationError, match="at least as new"):
        await migrate(database, files=migrations()[:-1])


async def test_another_number_of_partitions_is_refused(database: str) -> None:
    with pytest.raises(MigrationError, match="16 partitions"):
        await migrate(database, partitions=32)
    await migrate(database, partitions=16)


async def test_conversations_of_an_older_database_are_in_order(empty_database: str) -> None:
    await migrate(empty_database, files=migrations()[:6])
    db = await asyncpg.connect(empty_database)
    ended = {"turn_1": (3, "finished"), "turn_2": (5, "finished"), "turn_3": (6, "running")}
    for offset, turn in enumerate(("turn_1", "turn_2", "turn_1", "turn_2", "turn_2", "turn_3"), 1):
        await db.execute("insert into kfm.journal values (0, $1, 1, $2, $1, 't', '')", offset, turn)
    for turn, (_, phase) in ended.items():
        await db.execute("insert into kfm.turns values ($1, 'ses_a', 't', 0, $2, null, 1)", turn, phase)
    await migrate(empty_database)
    rows = await db.fetch("select turn_id, ended from kfm.turns order by turn_id")
    await db.close()
    assert [tuple(row) for row in rows] == [("turn_1", 3), ("turn_2", 5), ("turn_3", None)]
