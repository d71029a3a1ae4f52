"""The port VectorStore in one file, for a server whose database has no pgvector: exact, and of one machine.

The vectors lie in SQLite; those of a collection that is searched stand in memory as a matrix, and a search is one
product with it. It finds the true nearest, in time that grows with the collection. Several processes of one machine may
share the file.
"""

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import orjson

from kfm_server.memory.arrays import check_k, unit_rows
from kfm_server.ports.vectors import (
    EmbedderIdentity,
    EmbedderMismatch,
    Vector,
    VectorHit,
    VectorItem,
    VectorsUnavailable,
)

T = TypeVar("T")
MAX_CACHED_BYTES: Final = 1 << 30
"""Most bytes of matrices in memory; the collection that was searched longest ago goes first."""
_BUSY_SECONDS = 10.0
_SCHEMA = """
pragma journal_mode = wal;
pragma synchronous = full;
create table if not exists collections (
    tenant_id text not null, collection text not null, embedder_id text not null, dims integer not null,
    primary key (tenant_id, collection)
) without rowid;
create table if not exists vectors (
    tenant_id text not null, collection text not null, id text not null, vector blob not null, metadata text not null,
    primary key (tenant_id, collection, id)
);
"""
_MINE = "tenant_id = ? and collection = ?"


@dataclass(slots=True)
class _Matrix:
    """One collection in memory."""

    ids: list[str]
    rows: Any
    metadata: list[dict[str, str]]
    masks: dict[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])

    def mask(self, where: Mapping[str, str]) -> Any:
        """Which rows have all of it."""
        found = np.ones(len(self.ids), dtype=bool)
        for pair in where.items():
            if pair not in self.masks:
                name, value = pair
                self.masks[pair] = np.array([m.get(name) == value for m in self.metadata], dtype=bool)
            found &= self.masks[pair]
        return found


class FileVectorStore:
    """The port VectorStore. Made by `open`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._turn = asyncio.Lock()
        self._matrices: OrderedDict[tuple[str, str], _Matrix] = OrderedDict()
        self._version = -1

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncGenerator["FileVectorStore"]:
        """Open the file, made if there is none, readable by this user only. Raises VectorsUnavailable."""

        def connect() -> sqlite3.Connection:
            path.touch(mode=0o600)
            database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            database.executescript(_SCHEMA)
            return database

        try:
            database = await asyncio.to_thread(connect)
        except (sqlite3.Error, OSError) as error:
            raise VectorsUnavailable(f"{path}: {error}") from error
        store = cls(database)
        try:
            yield store
        finally:
            async with store._turn:
                await asyncio.to_thread(database.close)

    async def upsert(
        self, tenant_id: str, collection: str, embedder: EmbedderIdentity, items: Sequence[VectorItem]
    ) -> None:
        """As the port says."""
        rows = unit_rows(embedder, [item.vector for item in items])
        values = [
            (tenant_id, collection, item.id, row.tobytes(), orjson.dumps(dict(item.metadata)).decode())
            for item, row in zip(items, rows, strict=True)
        ]

        def write() -> None:
            claim = (tenant_id, collection, embedder.id, embedder.dims)
            self._database.execute("insert or ignore into collections values (?, ?, ?, ?)", claim)
            self._check(tenant_id, collection, embedder)
            self._database.executemany("insert or replace into vectors values (?, ?, ?, ?, ?)", values)

        await self._write(tenant_id, collection, write)

    async def delete(self, tenant_id: str, collection: str, ids: Sequence[str]) -> int:
        """As the port says."""
        statement = f"delete from vectors where {_MINE} and id = ?"
        keys = [(tenant_id, collection, id) for id in set(ids)]
        return await self._write(
            tenant_id, collection, lambda: max(0, self._database.executemany(statement, keys).rowcount)
        )

    async def drop(self, tenant_id: str, collection: str) -> int:
        """As the port says."""

        def write() -> int:
            mine = (tenant_id, collection)
            self._database.execute(f"delete from collections where {_MINE}", mine)
            return self._database.execute(f"delete from vectors where {_MINE}", mine).rowcount

        return await self._write(tenant_id, collection, write)

    async def count(self, tenant_id: str, collection: str) -> int:
        """As the port says."""
        statement = f"select count(*) from vectors where {_MINE}"
        return await self._do(
            lambda: self._database.execute(statement, (tenant_id, collection)).fetchone()[0]
        )

    async def embedder(self, tenant_id: str, collection: str) -> EmbedderIdentity | None:
        """As the port says."""
        return await self._do(lambda: self._embedder(tenant_id, collection))

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
        query = unit_rows(embedder, [vector])[0]

        def find() -> list[VectorHit]:
            if not self._check(tenant_id, collection, embedder):
                return []
            matrix = self._matrix(tenant_id, collection, embedder.dims)
            return _nearest(matrix, query, k, where or {})

        return await self._do(find)

    async def _do(self, work: Callable[[], T]) -> T:
        """Off the event loop, one at a time; whoever is cancelled waits for its end, so that the next finds it done."""
        async with self._turn:
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise
            except sqlite3.Error as error:
                raise VectorsUnavailable(f"the file of vectors: {error}") from error

    async def _write(self, tenant_id: str, collection: str, work: Callable[[], T]) -> T:
        def whole() -> T:
            with self._database:  # commits, or rolls back whatever goes wrong
                self._database.execute("begin immediate")
                answer = work()
            self._matrices.pop((tenant_id, collection), None)
            return answer

        return await self._do(whole)

    def _embedder(self, tenant_id: str, collection: str) -> EmbedderIdentity | None:
        row = self._database.execute(
            f"select embedder_id, dims from collections where {_MINE}", (tenant_id, collection)
        ).fetchone()
        return EmbedderIdentity(*row) if row else None

    def _check(self, tenant_id: str, collection: str, embedder: EmbedderIdentity) -> bool:
        """Whether the collection has an embedder, which then is this one. Raises EmbedderMismatch."""
        stored = self._embedder(tenant_id, collection)
        if stored is not None and stored != embedder:
            raise EmbedderMismatch(collection, stored, embedder)
        return stored is not None

    def _matrix(self, tenant_id: str, collection: str, dims: int) -> _Matrix:
        (version,) = self._database.execute("pragma data_version").fetchone()
        if version != self._version:  # another process has written
            self._matrices.clear()
            self._version = version
        key = (tenant_id, collection)
        matrix = self._matrices.get(key)
        if matrix is None:
            matrix = _loaded(
                self._database.execute(f"select id, vector, metadata from vectors where {_MINE}", key), dims
            )
            self._matrices[key] = matrix
        self._matrices.move_to_end(key)
        while (
            len(self._matrices) > 1 and sum(m.rows.nbytes for m in self._matrices.values()) > MAX_CACHED_BYTES
        ):
            self._matrices.popitem(last=False)
        return matrix


def _loaded(stored: Iterable[tuple[str, bytes, str]], dims: int) -> _Matrix:
    ids: list[str] = []
    vectors: list[bytes] = []
    metadata: list[dict[str, str]] = []
    for id, vector, told in stored:
        ids.append(id)
        vectors.append(vector)
        metadata.append(orjson.loads(told))
    rows = np.frombuffer(b"".join(vectors), dtype=np.float32).reshape(len(ids), dims)
    return _Matrix(ids, rows, metadata)


def _nearest(matrix: _Matrix, query: Any, k: int, where: Mapping[str, str]) -> list[VectorHit]:
    places = np.flatnonzero(matrix.mask(where)) if where else None
    scores = (matrix.rows if places is None else matrix.rows[places]) @ query
    count = min(k, len(scores))
    if count == 0:
        return []
    best = np.argpartition(scores, -count)[-count:]
    best = best[np.argsort(-scores[best], kind="stable")]
    found = best if places is None else places[best]
    return [
        VectorHit(matrix.ids[place], float(score), matrix.metadata[place])
        for place, score in zip(found.tolist(), scores[best], strict=True)
    ]
