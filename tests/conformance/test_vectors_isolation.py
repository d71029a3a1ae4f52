"""Tenants are kept apart by the database itself: what the code above forgets or forges is hidden all the same."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm_server.memory.documents import DocumentStore
from kfm_server.memory.filestore import FileVectorStore
from kfm_server.memory.hashing import HashingEmbedder
from kfm_server.memory.knowledge import KnowledgeBase, SourceDocument
from kfm_server.memory.pgvector import PARTITIONS, PgVectorStore
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import MemoryInvalid, MemoryUnavailable
from kfm_server.ports.vectors import EmbedderIdentity, VectorItem, VectorsUnavailable

E2 = EmbedderIdentity("test-2", 2)
FACT = (
    "insert into kfm_memory.facts (fact_id, tenant_id, user_id, kind, key, value, source)"
    " values ($1, $2, 'u', 'fact', $1, 'secret', 'test')"
)


@pytest.fixture
async def pool(database: str) -> AsyncGenerator[TenantPool]:
    """With rows of two tenants in a table of each kind."""
    async with TenantPool.open(database) as made:
        store = PgVectorStore(made)
        for tenant in ("acme", "evil"):
            await store.upsert(tenant, "docs", E2, [VectorItem("a", [1.0, 0.0])])
            async with made.tenant(tenant) as connection:
                await connection.execute(FACT, f"f-{tenant}", tenant)
        yield made


async def tables(connection: Any) -> list[str]:
    """All tables of memory that hold rows of tenants, parts of tables left out."""
    rows = await connection.fetch(
        "select relname from pg_class where relnamespace = 'kfm_memory'::regnamespace and relkind in ('r', 'p')"
        " and not relispartition"
    )
    found = sorted(row[0] for row in rows)
    assert any(name.startswith("vectors_2_") for name in found)
    return found


@pytest.mark.requirement("M4")
async def test_every_table_of_memory_has_the_policy_and_it_binds_those_who_work_with_it(
    pool: TenantPool,
) -> None:
    async with pool.tenant("evil") as connection:
        for table in await tables(connection):
            name = f"kfm_memory.{table}"
            assert await connection.fetchval("select row_security_active($1::text)", name), table
            forced, mine = await connection.fetchrow(
                "select relforcerowsecurity, pg_has_role(relowner, 'member') from pg_class"
                " where oid = $1::text::regclass",
                name,
            )
            # The search for words reads these two as their owner, and asks for the tenant itself.
            assert (forced, mine) == (table not in ("chunks", "documents"), False), table
            policies = await connection.fetch("select qual from pg_policies where tablename = $1", table)
            assert [p[0] for p in policies] == ["(tenant_id = current_setting('kfm.tenant'::text, true))"]


@pytest.mark.requirement("M4")
async def test_nobody_reads_a_part_of_a_table_by_its_own_name(pool: TenantPool) -> None:
    parts = "select relname from pg_class where relname like 'vectors\\_2\\_%' and relispartition and relkind = 'r'"
    async with pool.tenant("evil") as connection:
        names = [row[0] for row in await connection.fetch(parts)]
    assert len(names) == PARTITIONS
    for name in names:
        async with pool.tenant("evil") as connection:
            assert await connection.fetchval(
                "select relforcerowsecurity and relrowsecurity from pg_class where relname = $1", name
            )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with pool.tenant("evil") as connection:
                await connection.fetch(f"select * from kfm_memory.{name}")


@pytest.mark.requirement("M4")
@pytest.mark.parametrize("setting", [None, "", "evil", "acme' or 'a'='a"])
async def test_the_search_for_words_is_bound_to_the_tenant_by_itself(
    pool: TenantPool, setting: str | None
) -> None:
    base = KnowledgeBase(DocumentStore(pool), PgVectorStore(pool), HashingEmbedder())
    await base.ingest("acme", "house", [SourceDocument("a.md", b"Bread rises.")])
    search = "select count(*) from kfm_memory.by_words(array['house'], 'bread', '{}', 10)"
    async with pool.tenant("acme") as connection:
        assert await connection.fetchval(search) == 1
    async with pool.tenant("evil") as connection:
        if setting is None:
            await connection.execute("reset kfm.tenant")
        else:
            await connection.execute("select set_config('kfm.tenant', $1, true)", setting)
        assert await connection.fetchval(search) == 0


@pytest.mark.requirement("M4")
@pytest.mark.parametrize("setting", [None, "", "nobody", "acme' or 'a'='a", "%", "*"])
async def test_without_the_tenants_name_there_are_no_rows(pool: TenantPool, setting: str | None) -> None:
    async with pool.tenant("nobody") as connection:
        if setting is None:
            await connection.execute("reset kfm.tenant")
        else:
            await connection.execute("select set_config('kfm.tenant', $1, true)", setting)
        for table in await tables(connection):
            assert await connection.fetchval(f"select count(*) from kfm_memory.{table}") == 0, table


@pytest.mark.requirement("M4")
async def test_a_forged_filter_finds_nothing_of_another_tenant(pool: TenantPool) -> None:
    async with pool.tenant("evil") as connection:
        for table in await tables(connection):
            for filter in ("tenant_id = 'acme'", "tenant_id = 'acme' or true", "tenant_id <> 'evil'"):
                rows = await connection.fetch(f"select * from kfm_memory.{table} where {filter}")
                assert {row["tenant_id"] for row in rows} <= {"evil"}
        assert await connection.execute("delete from kfm_memory.facts where tenant_id = 'acme'") == "DELETE 0"
        assert await connection.execute("update kfm_memory.facts set value = 'mine'") == "UPDATE 1"
    async with pool.tenant("acme") as connection:
        assert await connection.fetchval("select value from kfm_memory.facts") == "secret"


@pytest.mark.requirement("M4")
@pytest.mark.parametrize(
    "attack",
    [
        "insert into kfm_memory.facts values ('x', 'acme', 'u', 'fact', 'k', 'planted', 'test')",
        "update kfm_memory.facts set tenant_id = 'acme'",
        "set local row_security = off; select * from kfm_memory.facts",
        "alter table kfm_memory.facts disable row level security",
        "alter table kfm_memory.facts no force row level security",
        "drop policy of_tenant on kfm_memory.facts",
        "create policy all_of_it on kfm_memory.facts using (true)",
        "alter role kfm_memory bypassrls",
        "truncate kfm_memory.facts",
        "create table kfm_memory.mine (n int)",
        "select * from kfm.journal",
        "copy kfm_memory.facts to program 'cat'",
        "alter function kfm_memory.by_words(text[], text, jsonb, int) owner to kfm_memory",
        "create or replace function kfm_memory.by_words(text[], text, jsonb, int) returns setof text"
        " language sql as 'select source from kfm_memory.chunks'",
    ],
)
async def test_what_goes_around_the_policy_is_refused(pool: TenantPool, attack: str) -> None:
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)):
        async with pool.tenant("evil") as connection:
            await connection.execute(attack)


@pytest.mark.requirement("M4")
async def test_the_tenant_of_one_use_is_forgotten_before_the_next(database: str) -> None:
    async with TenantPool.open(database, most=1) as pool:
        async with pool.tenant("acme") as connection:
            await connection.execute(FACT, "f", "acme")
            first = await connection.fetchval("select pg_backend_pid()")
        with pytest.raises(ZeroDivisionError):
            async with pool.tenant("acme") as connection:
                raise ZeroDivisionError
        async with pool.tenant("evil") as connection:
            assert await connection.fetchval("select pg_backend_pid()") == first
            assert await connection.fetchval("select count(*) from kfm_memory.facts") == 0


@pytest.mark.requirement("M4")
async def test_an_owner_who_is_no_superuser_is_bound_without_the_role(database: str, postgres: Any) -> None:
    name = database.rpartition("/")[2].partition("?")[0]
    async with TenantPool.open(database) as pool, pool.owner() as connection:
        await connection.execute(f"create role plain_{name} nologin")
        await connection.execute(f"grant usage on schema kfm_memory to plain_{name}")
        await connection.execute(f"alter table kfm_memory.facts owner to plain_{name}")
        await connection.execute(f"set local role plain_{name}")
        assert await connection.fetchval("select row_security_active('kfm_memory.facts')")
        await connection.execute("select set_config('kfm.tenant', 'acme', true)")
        await connection.execute(FACT, "f", "acme")
        await connection.execute("select set_config('kfm.tenant', 'evil', true)")
        assert await connection.fetchval("select count(*) from kfm_memory.facts") == 0
        await connection.execute("reset role")
        await connection.execute(f"drop owned by plain_{name}")
        await connection.execute(f"drop role plain_{name}")


@pytest.mark.requirement("M4")
async def test_a_user_who_sees_past_the_policies_and_cannot_give_that_up_is_refused(database: str) -> None:
    name = database.rpartition("/")[2].partition("?")[0]
    async with TenantPool.open(database) as pool:
        async with pool.tenant("acme") as connection:
            await connection.execute("select 1")
    admin: Any = await asyncpg.connect(database)
    try:
        await admin.execute(f"create role past_{name} nologin bypassrls")
        await admin.execute(f"grant usage on schema kfm_memory to past_{name}")
        # What the pool would be on a server where that user logs in.
        await admin.execute(f"set role past_{name}")
        with pytest.raises(MemoryUnavailable, match="past row-level security"):
            await TenantPool(database, 1)._bind(admin)
        await admin.execute("reset role")
        await admin.execute(f"drop owned by past_{name}; drop role past_{name}")
    finally:
        await admin.close()


async def test_no_tenant_at_all_is_refused(pool: TenantPool) -> None:
    with pytest.raises(MemoryInvalid, match="tenant"):
        async with pool.tenant(""):
            pass


async def test_a_database_that_is_away_is_told_so(tmp_path: Path) -> None:
    async with TenantPool.open(f"postgresql://kfm@/kfm?host={tmp_path}") as pool:
        with pytest.raises(VectorsUnavailable):
            await PgVectorStore(pool).upsert("acme", "docs", E2, [VectorItem("a", [1.0, 0.0])])
    with pytest.raises(VectorsUnavailable):
        async with FileVectorStore.open(tmp_path / "none" / "vectors.sqlite"):
            pass


@pytest.mark.requirement("M2")
async def test_vectors_in_a_file_outlive_the_process_and_are_seen_by_others(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    async with FileVectorStore.open(path) as one, FileVectorStore.open(path) as other:
        await one.upsert("acme", "docs", E2, [VectorItem("a", [1.0, 0.0])])
        assert [h.id for h in await other.search("acme", "docs", E2, [1.0, 0.0], 5)] == ["a"]
        await one.upsert("acme", "docs", E2, [VectorItem("b", [0.0, 1.0])])
        assert [h.id for h in await other.search("acme", "docs", E2, [1.0, 0.0], 5)] == ["a", "b"]
        await other.delete("acme", "docs", ["a"])
        assert [h.id for h in await one.search("acme", "docs", E2, [1.0, 0.0], 5)] == ["b"]
    assert path.stat().st_mode & 0o077 == 0
    async with FileVectorStore.open(path) as again:
        assert await again.embedder("acme", "docs") == E2
        assert await again.count("acme", "docs") == 1
