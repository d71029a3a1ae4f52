"""The tables of knowledge: collections, documents and their chunks, and the search for words in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from kfm_server.memory.chunking import Chunk
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import CollectionInfo, MemoryInvalid, MemoryNotFound, Passage, StoredDocument

MAX_COLLECTIONS: Final = 1000
"""Most collections of a tenant."""
MAX_DOCUMENTS: Final = 100_000
"""Most documents of a collection."""
_LOOSE_SECONDS: Final = 3600
"""Age of a revision that nobody can still be writing."""
_MINE = "tenant_id = $1 and collection = $2"
_COLLECTIONS = """
select c.collection, c.owner, (
    select count(*) from kfm_memory.documents d where d.tenant_id = c.tenant_id and d.collection = c.collection
), c.created_at
from kfm_memory.collections c where c.tenant_id = $1 and c.owner = any ($2::text[]) order by c.collection
"""
_ENSURE = """
insert into kfm_memory.collections (tenant_id, collection, owner)
select $1, $2, $3 where (select count(*) from kfm_memory.collections where tenant_id = $1) < $4
on conflict do nothing
"""
_DOCUMENTS = f"""
select source, title, media_type, digest, bytes, chunks, updated_at, metadata::text from kfm_memory.documents
where {_MINE} and source > $3 order by source limit $4
"""
# Need not wait for the disk: what follows it does, and brings it there.
_LAZILY = "set local synchronous_commit = off"
_LOOSEN = (
    "insert into kfm_memory.loose_revisions (tenant_id, collection, revision, chunks) values ($1, $2, $3, $4)"
)
_BIND = f"delete from kfm_memory.loose_revisions where {_MINE} and revision = $3"
_LOOSE = f"""
select revision, chunks from kfm_memory.loose_revisions
where {_MINE} and at < now() - make_interval(secs => $3) limit 100
"""
_LOCK = "select pg_advisory_xact_lock(hashtextextended($1, 0))"
_REVISION = f"select revision, chunks from kfm_memory.documents where {_MINE} and source = $3"
_DOCUMENT = """
insert into kfm_memory.documents
    (tenant_id, collection, source, revision, digest, title, media_type, metadata, bytes, chunks)
values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10)
on conflict (tenant_id, collection, source) do update set revision = excluded.revision, digest = excluded.digest,
    title = excluded.title, media_type = excluded.media_type, metadata = excluded.metadata, bytes = excluded.bytes,
    chunks = excluded.chunks, updated_at = now()
"""
_FORGET_CHUNKS = f"delete from kfm_memory.chunks where {_MINE} and source = $3"
_CHUNKS = """
insert into kfm_memory.chunks (tenant_id, collection, chunk_id, source, ordinal, heading, text, metadata, words)
select $1, $2, $3 || ':' || (i.n - 1), $4, i.n - 1, i.heading, i.text, $5::text::jsonb,
    setweight(to_tsvector('english', i.told), 'A') || to_tsvector('english', i.words)
from unnest($6::text[], $7::text[], $8::text[], $9::text[]) with ordinality as i (heading, text, told, words, n)
"""
_FORGET = f"delete from kfm_memory.documents where {_MINE} and source = $3 returning revision, chunks"
_WORDS = "select kfm_memory.by_words($1::text[], $2, $3::text::jsonb, $4)"
_PASSAGES = """
select c.chunk_id, c.collection, c.source, d.title, c.heading, c.text, c.ordinal, c.metadata::text
from kfm_memory.chunks c
join kfm_memory.documents d using (tenant_id, collection, source)
where c.tenant_id = $1 and c.collection = any ($2::text[]) and c.chunk_id = any ($3::text[])
"""
_TEXTS = """
select c.chunk_id, d.title, c.heading, c.text, c.metadata::text from kfm_memory.chunks c
join kfm_memory.documents d using (tenant_id, collection, source)
where c.tenant_id = $1 and c.collection = $2 and c.chunk_id > $3 order by c.chunk_id limit $4
"""
_PUNCTUATION = str.maketrans(dict.fromkeys("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~_", " "))


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a document: its vectors have the ids `revision:0` and so on."""

    revision: str
    chunks: int

    @property
    def vector_ids(self) -> list[str]:
        """Of all its chunks."""
        return [f"{self.revision}:{n}" for n in range(self.chunks)]


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document that was read and split."""

    source: str
    title: str
    media_type: str
    digest: str
    bytes: int
    metadata: Mapping[str, str]
    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class ChunkText:
    """What a chunk's vector is made of."""

    chunk_id: str
    text: str
    metadata: Mapping[str, str]


def embedded_text(title: str, heading: str, text: str) -> str:
    """What is embedded of a chunk: it is found by what stands above it, too."""
    return f"{title}\n{heading}\n{text}"


def plain_words(text: str) -> str:
    """The text with its ASCII punctuation as spaces: `asyncio.Lock` is two words, and so is a path."""
    return text.translate(_PUNCTUATION)


class DocumentStore:
    """Collections of documents, by tenant, and their chunks. Every method may raise MemoryUnavailable."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def collections(self, tenant_id: str, owners: Sequence[str]) -> list[CollectionInfo]:
        """Those of these owners."""
        async with self._pool.tenant(tenant_id) as connection:
            return [CollectionInfo(*r) for r in await connection.fetch(_COLLECTIONS, tenant_id, list(owners))]

    async def ensure(self, tenant_id: str, collection: str, owner: str) -> None:
        """Make the collection if there is none. Raises MemoryNotFound if it is somebody else's; MemoryInvalid over the limit."""
        async with self._pool.tenant(tenant_id) as connection:
            await connection.execute(_ENSURE, tenant_id, collection, owner, MAX_COLLECTIONS)
            found = await connection.fetchrow(
                f"select owner from kfm_memory.collections where {_MINE}", tenant_id, collection
            )
        if found is None:
            raise MemoryInvalid(f"the tenant has max_collections={MAX_COLLECTIONS} collections")
        if found[0] != owner:
            raise MemoryNotFound(f"there is no collection {collection!r} of this owner")

    async def drop(self, tenant_id: str, collection: str) -> int:
        """Forget the collection; answers how many documents it had. Its vectors are not of this store."""
        async with self._pool.tenant(tenant_id) as connection:
            count = await connection.fetchval(
                f"select count(*) from kfm_memory.documents where {_MINE}", tenant_id, collection
            )
            for table in ("collections", "loose_revisions"):
                await connection.execute(
                    f"delete from kfm_memory.{table} where {_MINE}", tenant_id, collection
                )
        return count

    async def documents(
        self, tenant_id: str, collection: str, after: str, limit: int
    ) -> list[StoredDocument]:
        """By source, from behind `after`."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(_DOCUMENTS, tenant_id, collection, after, limit)
        return [_stored(row) for row in rows]

    async def digests(self, tenant_id: str, collection: str) -> dict[str, str]:
        """The digest of every document, by its source."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(
                f"select source, digest from kfm_memory.documents where {_MINE}", tenant_id, collection
            )
        return {row[0]: row[1] for row in rows}

    async def loosen(self, tenant_id: str, collection: str, revision: Revision) -> None:
        """Say, before the first vector of a revision is written, that nothing has it yet."""
        async with self._pool.tenant(tenant_id) as connection:
            await connection.execute(_LAZILY)
            await connection.execute(_LOOSEN, tenant_id, collection, revision.revision, revision.chunks)

    async def loose(self, tenant_id: str, collection: str) -> list[Revision]:
        """Revisions whose vectors somebody left behind, a hundred at most."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(_LOOSE, tenant_id, collection, _LOOSE_SECONDS)
        return [Revision(*row) for row in rows]

    async def swept(self, tenant_id: str, collection: str, revision: Revision) -> None:
        """The vectors of a loose revision are gone."""
        async with self._pool.tenant(tenant_id) as connection:
            await connection.execute(_LAZILY)
            await connection.execute(_BIND, tenant_id, collection, revision.revision)

    async def replace(
        self, tenant_id: str, collection: str, revision: Revision, document: NewDocument
    ) -> Revision | None:
        """Have the document as it is now, at once and whole; answers the revision that it was, now loose."""
        metadata = orjson.dumps(dict(document.metadata)).decode()
        mine = (tenant_id, collection)
        chunks = document.chunks
        async with self._pool.tenant(tenant_id) as connection:
            await connection.execute(_LOCK, "\x1f".join((*mine, document.source)))
            old = await connection.fetchrow(_REVISION, *mine, document.source)
            await connection.execute(_FORGET_CHUNKS, *mine, document.source)
            await connection.execute(
                _DOCUMENT,
                *mine,
                document.source,
                revision.revision,
                document.digest,
                document.title,
                document.media_type,
                metadata,
                document.bytes,
                len(chunks),
            )
            await connection.execute(
                _CHUNKS,
                *mine,
                revision.revision,
                document.source,
                metadata,
                [chunk.heading for chunk in chunks],
                [chunk.text for chunk in chunks],
                [plain_words(f"{document.title} {chunk.heading}") for chunk in chunks],
                [plain_words(chunk.text) for chunk in chunks],
            )
            await connection.execute(_BIND, *mine, revision.revision)
            if old is not None:
                await connection.execute(_LOOSEN, *mine, *old)
        return Revision(*old) if old is not None else None

    async def remove(self, tenant_id: str, collection: str, source: str) -> Revision | None:
        """Forget the document; answers the revision that it was, now loose, None if there was none."""
        async with self._pool.tenant(tenant_id) as connection:
            old = await connection.fetchrow(_FORGET, tenant_id, collection, source)
            if old is not None:
                await connection.execute(_LOOSEN, tenant_id, collection, *old)
        return Revision(*old) if old is not None else None

    async def by_words(
        self,
        tenant_id: str,
        collections: Sequence[str],
        query: str,
        limit: int,
        where: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Chunks that have words of the query, best first."""
        told = orjson.dumps(dict(where or {})).decode()
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(_WORDS, list(collections), plain_words(query), told, limit)
        return [row[0] for row in rows]

    async def passages(
        self, tenant_id: str, collections: Sequence[str], scores: Mapping[str, float]
    ) -> list[Passage]:
        """The chunks of these ids, those that there are, best first."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(_PASSAGES, tenant_id, list(collections), list(scores))
        rows.sort(key=lambda row: -scores[row[0]])
        return [_passage(row, scores[row[0]]) for row in rows]

    async def text_of(self, tenant_id: str, collection: str, source: str) -> list[str]:
        """The chunks of a document, in order."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(
                f"select text from kfm_memory.chunks where {_MINE} and source = $3 order by ordinal",
                tenant_id,
                collection,
                source,
            )
        return [row[0] for row in rows]

    async def texts(self, tenant_id: str, collection: str, after: str, limit: int) -> list[ChunkText]:
        """Chunks by id, from behind `after`, as they are embedded."""
        async with self._pool.tenant(tenant_id) as connection:
            rows = await connection.fetch(_TEXTS, tenant_id, collection, after, limit)
        return [ChunkText(r[0], embedded_text(*r[1:4]), orjson.loads(r[4])) for r in rows]


def _stored(row: Any) -> StoredDocument:
    source, title, media_type, digest, size, chunks, updated_at, metadata = row
    return StoredDocument(source, title, media_type, digest, size, chunks, updated_at, orjson.loads(metadata))


def _passage(row: Any, score: float) -> Passage:
    _, collection, source, title, heading, text, ordinal, metadata = row
    return Passage(collection, source, title, heading, text, ordinal, score, orjson.loads(metadata))
