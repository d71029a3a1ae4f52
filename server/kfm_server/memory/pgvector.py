"""The port VectorStore on Postgres with pgvector: HNSW over half-precision vectors, a table for each embedder.

A table has partitions by tenant and collection, each with an index of its own: in one index of all, a search reads the
vectors of everybody until it has found enough of the tenant's, and misses near ones on the way.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson

from kfm_server.memory.arrays import check_k, unit_rows
from kfm_server.memory.tenants import ROLE, TenantPool
from kfm_server.ports.memory import MemoryUnavailable
from kfm_server.ports.vectors import (
    EmbedderIdentity,
    EmbedderMismatch,
    Vector,
    VectorHit,
    VectorItem,
    VectorsUnavailable,
)

EF_SEARCH: Final = 64
"""Candidates that HNSW keeps at a search: more of them find more of the true nearest, and take longer."""
PARTITIONS: Final = 32
"""Of a table; collections that share one are searched as well, but not as fast."""
_NEEDED = (0, 8)
_AT_ONCE = 500
_EXTENSION = "select extversion from pg_extension where extname = 'vector'"
_SCHEMA = """
select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector'
"""
_SET_UP = """
create table if not exists kfm_memory.{table} (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    id text collate "C" not null,
    embedder_id text collate "C" not null check (embedder_id = {embedder}),
    vector halfvec({dims}) not null,
    metadata jsonb not null,
    primary key (tenant_id, collection, id)
) partition by hash (tenant_id, collection);
create index if not exists {table}_hnsw on kfm_memory.{table}
    using hnsw (vector halfvec_cosine_ops) with (m = 16, ef_construction = 200);
alter table kfm_memory.{table} enable row level security;
alter table kfm_memory.{table} force row level security;
drop policy if exists of_tenant on kfm_memory.{table};
create policy of_tenant on kfm_memory.{table} using (tenant_id = current_setting('kfm.tenant', true));
"""
# The policy of the table holds for what is read through it; nobody reads a partition by its own name.
_SET_UP_PARTITION = """
create table kfm_memory.{table}_{part} partition of kfm_memory.{table} for values with (modulus {parts}, remainder {part});
alter table kfm_memory.{table}_{part} enable row level security;
alter table kfm_memory.{table}_{part} force row level security;
"""
_CLAIM = """
insert into kfm_memory.vector_collections (tenant_id, collection, embedder_id, dims) values ($1, $2, $3, $4)
on conflict do nothing
"""
_EMBEDDER = """
select embedder_id, dims from kfm_memory.vector_collections where tenant_id = $1 and collection = $2
"""
_UPSERT = """
insert into kfm_memory.{table} (tenant_id, collection, id, embedder_id, vector, metadata)
select $1, $2, i.id, $3, i.vector, i.metadata::jsonb
from unnest($4::text[], $5::halfvec[], $6::text[]) as i (id, vector, metadata)
on conflict (tenant_id, collection, id) do update set vector = excluded.vector, metadata = excluded.metadata
"""
_MINE = "tenant_id = $1 and collection = $2"
# Behind a filter the index goes on in rounds, and the first to match are not always the nearest: hence more than are asked
# for, and the second sort. `+ 0`: Postgres takes what such an index answers for sorted, and would not sort it again.
_SEARCH = """
with nearest as materialized (
    select id, vector <=> $3 as distance, metadata from kfm_memory.{table}
    where tenant_id = $1 and collection = $2 {where} order by vector <=> $3 limit {times} * $4
)
select id, distance, metadata::text from nearest order by distance + 0, id limit $4
"""
_EXACTLY = "set local enable_indexscan = off"


class PgVectorStore:
    """The port VectorStore. Loads and makes what it needs at its first use."""

    def __init__(self, pool: TenantPool) -> None:
        """`pool`: of a migrated database."""
        self._pool = pool
        self._tables: dict[EmbedderIdentity, str] = {}
        self._bound = False

    async def upsert(
        self, tenant_id: str, collection: str, embedder: EmbedderIdentity, items: Sequence[VectorItem]
    ) -> None:
        """As the port says."""
        latest = {item.id: item for item in items}
        rows = unit_rows(embedder, [item.vector for item in latest.values()]).astype(">f2")
        table = await self._table(embedder)
        ids = list(latest)
        metadata = [orjson.dumps(dict(item.metadata)).decode() for item in latest.values()]
        async with self._tenant(tenant_id) as connection:
            await connection.execute(_CLAIM, tenant_id, collection, embedder.id, embedder.dims)
            await _check(connection, tenant_id, collection, embedder)
            for at in range(0, len(ids), _AT_ONCE):
                part = slice(at, at + _AT_ONCE)
                await connection.execute(
                    _UPSERT.format(table=table),
                    tenant_id,
                    collection,
                    embedder.id,
                    ids[part],
                    [_wire(row) for row in rows[part]],
                    metadata[part],
                )

    async def delete(self, tenant_id: str, collection: str, ids: Sequence[str]) -> int:
        """As the port says."""
        table = await self._table_of(tenant_id, collection)
        if table is None:
            return 0
        async with self._tenant(tenant_id) as connection:
            done = await connection.execute(
                f"delete from kfm_memory.{table} where {_MINE} and id = any ($3::text[])",
                tenant_id,
                collection,
                list(ids),
            )
        return int(done.split()[-1])

    async def drop(self, tenant_id: str, collection: str) -> int:
        """As the port says."""
        table = await self._table_of(tenant_id, collection)
        if table is None:
            return 0
        async with self._tenant(tenant_id) as connection:
            done = await connection.execute(
                f"delete from kfm_memory.{table} where {_MINE}", tenant_id, collection
            )
            await connection.execute(
                f"delete from kfm_memory.vector_collections where {_MINE}", tenant_id, collection
            )
        return int(done.split()[-1])

    async def count(self, tenant_id: str, collection: str) -> int:
        """As the port says."""
        table = await self._table_of(tenant_id, collection)
        if table is None:
            return 0
        async with self._tenant(tenant_id) as connection:
            return await connection.fetchval(
                f"select count(*) from kfm_memory.{table} where {_MINE}", tenant_id, collection
            )

    async def embedder(self, tenant_id: str, collection: str) -> EmbedderIdentity | None:
        """As the port says."""
        async with self._tenant(tenant_id) as connection:
            row = await connection.fetchrow(_EMBEDDER, tenant_id, collection)
        return EmbedderIdentity(*row) if row else None

    async def search(
        self,
        tenant_id: str,
        collection: str,
        embedder: EmbedderIdentity,
        vector: Vector,
        k: int,
        where: Mapping[str, str] | None = None,
    ) -> list[VectorHit]:
        """As the port says."""
        check_k(k)
        query = _wire(unit_rows(embedder, [vector]).astype(">f2")[0])
        table = await self._table(embedder)
        condition = "and metadata @> $5::text::jsonb" if where else ""
        statement = _SEARCH.format(table=table, where=condition, times=4 if where else 2)
        arguments = [tenant_id, collection, query, k]
        if where:
            arguments.append(orjson.dumps(dict(where)).decode())
        async with self._tenant(tenant_id) as connection:
            found = await connection.fetch(statement, *arguments)
            if len(found) < k:
                # This table has rows of the collection only if it is this embedder's: what was found needs no check.
                if not await _check(connection, tenant_id, collection, embedder):
                    return []
                # The index gives up after so many vectors that do not match; what is left is few, or far away.
                await connection.execute(_EXACTLY)
                found = await connection.fetch(statement, *arguments)
        return [VectorHit(row[0], 1.0 - row[1], orjson.loads(row[2])) for row in found]

    def _tenant(self, tenant_id: str) -> AbstractAsyncContextManager[Any]:
        return _told(self._pool.tenant(tenant_id))

    async def _table_of(self, tenant_id: str, collection: str) -> str | None:
        embedder = await self.embedder(tenant_id, collection)
        return await self._table(embedder) if embedder else None

    async def _table(self, embedder: EmbedderIdentity) -> str:
        """The table of this embedder's vectors; made, with its index and policy, if there is none."""
        table = self._tables.get(embedder)
        if table is None:
            name = hashlib.sha256(f"{embedder.dims}:{embedder.id}".encode()).hexdigest()[:16]
            table = f"vectors_{embedder.dims}_{name}"
            async with _told(self._pool.owner()) as connection:
                await _make(connection, table, embedder)
            if not self._bound:
                await self._pool.prepare(_bind)
                self._bound = True
            self._tables[embedder] = table
        return table


@asynccontextmanager
async def _told(context: AbstractAsyncContextManager[Any]) -> AsyncGenerator[Any]:
    """The context; that the database is away is told in this port's words."""
    try:
        async with context as connection:
            yield connection
    except MemoryUnavailable as error:
        raise VectorsUnavailable(str(error)) from error


async def _make(connection: Any, table: str, embedder: EmbedderIdentity) -> None:
    try:
        # Looking first: who may not make an extension may use one that is there.
        if not await connection.fetchval(_EXTENSION):
            await connection.execute("create extension vector with schema public")
    except (asyncpg.FeatureNotSupportedError, asyncpg.UndefinedFileError) as error:
        raise VectorsUnavailable("pgvector is not installed on the database's server") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise VectorsUnavailable(
            "the database has no extension vector, and this user may not add it"
        ) from error
    version = str(await connection.fetchval(_EXTENSION))
    if tuple(int(part) for part in version.split(".")[:2]) < _NEEDED:
        raise VectorsUnavailable(f"pgvector {version} is too old: 0.8 or newer is needed")
    if await connection.fetchval("select to_regclass($1) is not null", f"kfm_memory.{table}"):
        return
    await _find_types(connection)
    quoted = await connection.fetchval("select quote_literal($1::text)", embedder.id)
    await connection.execute(_SET_UP.format(table=table, embedder=quoted, dims=embedder.dims))
    await connection.execute(
        "".join(_SET_UP_PARTITION.format(table=table, parts=PARTITIONS, part=n) for n in range(PARTITIONS))
    )
    if await connection.fetchval("select exists (select from pg_roles where rolname = $1)", ROLE):
        await connection.execute(f"grant select, insert, update, delete on kfm_memory.{table} to {ROLE}")


async def _find_types(connection: Any) -> str:
    """Look for types and operators where the extension is, and nowhere else; answers that schema."""
    schema = await connection.fetchval(_SCHEMA)
    await connection.execute(
        "select set_config('search_path', quote_ident($1) || ', pg_temp', false)", schema
    )
    return schema


async def _bind(connection: Any) -> None:
    """How this connection speaks of vectors, and how it searches them."""
    schema = await _find_types(connection)
    await connection.set_type_codec("halfvec", schema=schema, encoder=bytes, decoder=bytes, format="binary")
    await connection.fetchval(
        "select '[1]'::halfvec"
    )  # loads the library: before that its settings are not checked
    await connection.execute(f"set hnsw.iterative_scan = relaxed_order; set hnsw.ef_search = {EF_SEARCH}")


def _wire(row: Any) -> bytes:
    """A vector as Postgres takes it: two bytes of count, two unused, then halves of two bytes, all big-endian."""
    return len(row).to_bytes(2, "big") + b"\0\0" + row.tobytes()


async def _check(connection: Any, tenant_id: str, collection: str, embedder: EmbedderIdentity) -> bool:
    """Whether the collection has an embedder, which then is this one. Raises EmbedderMismatch."""
    row = await connection.fetchrow(_EMBEDDER, tenant_id, collection)
    if row is None:
        return False
    stored = EmbedderIdentity(*row)
    if stored != embedder:
        raise EmbedderMismatch(collection, stored, embedder)
    return True
