"""Knowledge: documents go in, the passages that answer a question come out."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from kfm_server.ids import new_id
from kfm_server.memory.chunking import CHUNK_CHARACTERS, OVERLAP, chunked
from kfm_server.memory.documents import (
    MAX_DOCUMENTS,
    DocumentStore,
    NewDocument,
    Revision,
    StoredDocument,
    embedded_text,
)
from kfm_server.memory.ranking import fused
from kfm_server.memory.readers import MAX_BYTES, media_type_of, read_document
from kfm_server.ports.embedder import Embedder, EmbedderFailed
from kfm_server.ports.memory import (
    MAX_PASSAGES,
    MAX_QUERY,
    CollectionInfo,
    IngestReport,
    MemoryInvalid,
    MemoryNotFound,
    MemoryUnavailable,
    Mode,
    Passage,
    SourceDocument,
    Told,
)
from kfm_server.ports.vectors import VectorItem, VectorStore, VectorsUnavailable

log = structlog.get_logger(__name__)
MAX_SOURCE: Final = 1000
"""Longest name of a document, in characters."""
MAX_METADATA: Final = 32
"""Most metadata of a document; names and values may have 64 and 500 characters."""
MAX_SEARCHED: Final = 32
"""Most collections of one search."""
MAX_FAILURES: Final = 100
"""Most failures that a report names; all are counted."""
_CANDIDATES: Final = 60
"""Of each ranking, or four times what is asked for."""
_EMBEDDED_AT_ONCE: Final = 128
_FORM = f"1:{CHUNK_CHARACTERS}:{OVERLAP}"
"""How documents are read and split: what was done otherwise is done again at the next ingestion."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")


class KnowledgeBase:
    """The port Knowledge, and what fills it."""

    def __init__(self, documents: DocumentStore, vectors: VectorStore, embedder: Embedder) -> None:
        self._documents = documents
        self._vectors = vectors
        self._embedder = embedder

    async def collections(self, tenant_id: str, user_id: str) -> Sequence[CollectionInfo]:
        """As the port says."""
        return await self._documents.collections(tenant_id, ["", user_id])

    async def owned(self, tenant_id: str, user_id: str) -> Sequence[CollectionInfo]:
        """The collections of the user alone."""
        return await self._documents.collections(tenant_id, [user_id]) if user_id else []

    async def search(
        self,
        tenant_id: str,
        user_id: str,
        query: str,
        *,
        collections: Sequence[str] = (),
        k: int = 8,
        mode: Mode = "hybrid",
        where: Mapping[str, str] | None = None,
        also: Sequence[str] = (),
    ) -> list[Passage]:
        """As the port says."""
        if not query.strip() or len(query) > MAX_QUERY:
            raise MemoryInvalid(
                f"a query has 1 to max_query={MAX_QUERY} characters, and this one has {len(query)}"
            )
        if not 1 <= k <= MAX_PASSAGES:
            raise MemoryInvalid(f"k={k} is not 1 to max_passages={MAX_PASSAGES}")
        _check_metadata(where or {})
        searched = await self._searched(tenant_id, (user_id, *also), collections)
        depth = max(_CANDIDATES, 4 * k)
        rankings: list[list[str]] = []
        if mode != "keyword":
            rankings.append(await self._by_vector(tenant_id, searched, query, depth, where))
        if mode != "vector":
            rankings.append(await self._documents.by_words(tenant_id, searched, query, depth, where))
        # Some may be of a document that changed meanwhile: they are not there any more.
        return (await self._documents.passages(tenant_id, searched, fused(*rankings)))[:k]

    async def ingest(
        self,
        tenant_id: str,
        collection: str,
        documents: Iterable[SourceDocument] | AsyncIterable[SourceDocument],
        *,
        owner: str = "",
        remove_missing: bool = False,
        told: Told | None = None,
    ) -> IngestReport:
        """Have these documents in the collection, which is made if there is none.

        Unchanged ones are left as they are, changed ones replaced at once and whole; with `remove_missing`, others
        of the collection are removed. A document that fails is named in the report, and what was known of it stays.
        Raises MemoryInvalid for a wrong name, MemoryNotFound for a collection of another owner, MemoryUnavailable,
        EmbedderMismatch; what was done before stays done, and the next ingestion goes on from there.
        """
        if not _NAME.fullmatch(collection):
            raise MemoryInvalid(f"{collection[:80]!r} is no name of a collection: {_NAME.pattern}")
        await self._documents.ensure(tenant_id, collection, owner)
        await self._sweep(tenant_id, collection)
        known = await self._documents.digests(tenant_id, collection)
        report, seen = IngestReport(), set[str]()
        async for document in _each(documents):
            before = known.get(document.source)
            seen.add(document.source)
            try:
                if before is None and len(known) >= MAX_DOCUMENTS:
                    raise MemoryInvalid(f"the collection has max_documents={MAX_DOCUMENTS} documents")
                digest = _digest(document)
                if digest == before:
                    report = replace(report, unchanged=report.unchanged + 1)
                else:
                    count = await self._put(tenant_id, collection, document, digest)
                    known[document.source] = digest
                    report = replace(
                        report,
                        added=report.added + (before is None),
                        changed=report.changed + (before is not None),
                        chunks=report.chunks + count,
                        bytes=report.bytes + len(document.body),
                    )
            except MemoryInvalid as error:
                failures = (*report.failures, (document.source[:MAX_SOURCE], str(error)))[:MAX_FAILURES]
                report = replace(report, failed=report.failed + 1, failures=failures)
            if told is not None:
                told(report, document.source)
        if remove_missing:
            for source in sorted(known.keys() - seen):
                await self.remove(tenant_id, collection, source)
                report = replace(report, removed=report.removed + 1)
                if told is not None:
                    told(report, source)
        return report

    async def remove(self, tenant_id: str, collection: str, source: str) -> bool:
        """Forget a document; answers whether there was one."""
        old = await self._documents.remove(tenant_id, collection, source)
        if old is not None:
            await self._drop(tenant_id, collection, old)
        return old is not None

    async def drop(self, tenant_id: str, collection: str) -> int:
        """Forget a collection; answers how many documents it had. Raises MemoryUnavailable."""
        try:
            await self._vectors.drop(tenant_id, collection)
        except VectorsUnavailable as error:
            raise MemoryUnavailable(str(error)) from error
        return await self._documents.drop(tenant_id, collection)

    async def documents(
        self, tenant_id: str, collection: str, after: str = "", limit: int = 100
    ) -> Sequence[StoredDocument]:
        """The documents of a collection, by source, from behind `after`."""
        return await self._documents.documents(tenant_id, collection, after, limit)

    async def text_of(self, tenant_id: str, collection: str, source: str) -> Sequence[str]:
        """The chunks of a document, in order."""
        return await self._documents.text_of(tenant_id, collection, source)

    async def embed_again(
        self, tenant_id: str, collection: str, told: Callable[[int], None] | None = None
    ) -> int:
        """Give the collection vectors of the embedder that is set now; answers how many.

        Until it ends, searches by vector find only what is done. Raises MemoryUnavailable.
        """
        after, done = "", 0
        try:
            await self._vectors.drop(tenant_id, collection)
            while chunks := await self._documents.texts(tenant_id, collection, after, _EMBEDDED_AT_ONCE):
                pairs = [(c.chunk_id, c.text, c.metadata) for c in chunks]
                done += await self._embed(tenant_id, collection, pairs)
                after = chunks[-1].chunk_id
                if told is not None:
                    told(done)
        except VectorsUnavailable as error:
            raise MemoryUnavailable(str(error)) from error
        return done

    async def _put(self, tenant_id: str, collection: str, document: SourceDocument, digest: str) -> int:
        source, media_type = document.source, document.media_type or media_type_of(document.source)
        read = await read_document(source, media_type, document.body)
        title = document.title or read.title
        chunks = await asyncio.to_thread(chunked, source, read)
        revision = Revision(new_id("rev"), len(chunks))
        await self._documents.loosen(tenant_id, collection, revision)
        for at in range(0, len(chunks), _EMBEDDED_AT_ONCE):
            part = list(zip(revision.vector_ids, chunks, strict=True))[at : at + _EMBEDDED_AT_ONCE]
            pairs = [(id, embedded_text(title, c.heading, c.text), document.metadata) for id, c in part]
            await self._embed(tenant_id, collection, pairs)
        old = await self._documents.replace(
            tenant_id,
            collection,
            revision,
            NewDocument(source, title, media_type, digest, len(document.body), document.metadata, chunks),
        )
        if old is not None:
            await self._drop(tenant_id, collection, old)
        return len(chunks)

    async def _embed(
        self, tenant_id: str, collection: str, chunks: Sequence[tuple[str, str, Mapping[str, str]]]
    ) -> int:
        try:
            identity = await self._embedder.identity()
            vectors = await self._embedder.embed([text for _, text, _ in chunks])
            items = [
                VectorItem(id, vector, metadata)
                for (id, _, metadata), vector in zip(chunks, vectors, strict=True)
                if any(vector)  # a text without a word has no direction: it is found by nothing
            ]
            await self._vectors.upsert(tenant_id, collection, identity, items)
        except (VectorsUnavailable, EmbedderFailed) as error:
            raise MemoryUnavailable(str(error)) from error
        return len(items)

    async def _by_vector(
        self,
        tenant_id: str,
        collections: Sequence[str],
        query: str,
        depth: int,
        where: Mapping[str, str] | None,
    ) -> list[str]:
        try:
            identity = await self._embedder.identity()
            (vector,) = await self._embedder.embed([query])
            if not any(vector):
                return []
            found = [
                hit
                for collection in collections
                for hit in await self._vectors.search(tenant_id, collection, identity, vector, depth, where)
            ]
        except (VectorsUnavailable, EmbedderFailed) as error:
            raise MemoryUnavailable(str(error)) from error
        return [hit.id for hit in sorted(found, key=lambda hit: -hit.score)][:depth]

    async def _searched(self, tenant_id: str, owners: Sequence[str], collections: Sequence[str]) -> list[str]:
        readable = [c.collection for c in await self._documents.collections(tenant_id, ["", *owners])]
        for name in collections:
            if name not in readable:
                raise MemoryNotFound(f"there is no collection {name[:128]!r}")
        searched = list(dict.fromkeys(collections)) or readable
        if len(searched) > MAX_SEARCHED:
            raise MemoryInvalid(
                f"{len(searched)} collections are over max_searched={MAX_SEARCHED}: name those to search"
            )
        return searched

    async def _drop(self, tenant_id: str, collection: str, revision: Revision) -> None:
        """Forget the vectors of a loose revision. If that fails, a later ingestion does it."""
        try:
            await self._vectors.delete(tenant_id, collection, revision.vector_ids)
        except VectorsUnavailable as error:
            log.warning("vectors_left", collection=collection, revision=revision.revision, error=str(error))
            return
        await self._documents.swept(tenant_id, collection, revision)

    async def _sweep(self, tenant_id: str, collection: str) -> None:
        for revision in await self._documents.loose(tenant_id, collection):
            await self._drop(tenant_id, collection, revision)


async def _each(
    documents: Iterable[SourceDocument] | AsyncIterable[SourceDocument],
) -> AsyncIterable[SourceDocument]:
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            yield document
    else:
        for document in documents:
            yield document


def _digest(document: SourceDocument) -> str:
    """Of all that its chunks depend on. Raises MemoryInvalid for a document that cannot be taken."""
    if not document.source.strip() or len(document.source) > MAX_SOURCE or "\0" in document.source:
        raise MemoryInvalid(f"a document's name has 1 to max_source={MAX_SOURCE} characters")
    if len(document.body) > MAX_BYTES:
        raise MemoryInvalid(f"{len(document.body)} bytes are over max_bytes={MAX_BYTES}")
    _check_metadata(document.metadata)
    told = (
        _FORM,
        document.media_type,
        document.title,
        *(f"{k}\0{v}" for k, v in sorted(document.metadata.items())),
    )
    found = hashlib.sha256("\0\0".join(told).encode("utf-8", "surrogatepass"))
    found.update(document.body)
    return found.hexdigest()


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > MAX_METADATA or any(
        not 0 < len(name) <= 64 or len(value) > 500 or "\0" in name + value
        for name, value in metadata.items()
    ):
        raise MemoryInvalid(
            f"metadata has at most max_metadata={MAX_METADATA} entries, their names 64 characters, their values 500"
        )
