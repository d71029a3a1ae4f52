"""Knowledge from end to end: documents in, passages out, over both stores of vectors."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from kfm_server.memory.documents import DocumentStore
from kfm_server.memory.filestore import FileVectorStore
from kfm_server.memory.hashing import HashingEmbedder
from kfm_server.memory.knowledge import IngestReport, KnowledgeBase, SourceDocument
from kfm_server.memory.pgvector import PgVectorStore
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import MAX_PASSAGES, MAX_QUERY, MemoryInvalid, MemoryNotFound, Mode
from kfm_server.ports.vectors import (
    EmbedderIdentity,
    EmbedderMismatch,
    Vector,
    VectorStore,
    VectorsUnavailable,
)

GARDEN = b"""# The garden

Roses need water every second day.

## Pruning

Cut the roses in early spring, before the buds open.

## Tools

```
# not a heading
spade --sharp
```

Keep the spade dry.
"""
KITCHEN = b"# The kitchen\n\nBread rises for two hours. Knead the dough by hand.\n"


@pytest.fixture(params=["pgvector", "file"])
async def vectors(
    request: pytest.FixtureRequest, pool: TenantPool, tmp_path: Path
) -> AsyncGenerator[VectorStore]:
    """An empty store."""
    async with AsyncExitStack() as stack:
        if request.param == "file":
            yield await stack.enter_async_context(FileVectorStore.open(tmp_path / "vectors.sqlite"))
        else:
            yield PgVectorStore(pool)


@pytest.fixture
async def pool(database: str) -> AsyncGenerator[TenantPool]:
    """Over a fresh database."""
    async with TenantPool.open(database) as made:
        yield made


@pytest.fixture
def base(pool: TenantPool, vectors: VectorStore) -> KnowledgeBase:
    """Empty."""
    return KnowledgeBase(DocumentStore(pool), vectors, HashingEmbedder())


def doc(source: str, body: bytes = KITCHEN, **metadata: str) -> SourceDocument:
    """A document."""
    return SourceDocument(source, body, metadata=metadata)


async def sources(base: KnowledgeBase, query: str, mode: Mode = "hybrid") -> list[str]:
    """Of the passages found."""
    return [p.source for p in await base.search("acme", "ann", query, mode=mode)]


@pytest.mark.requirement("M1", "M2")
@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
async def test_the_passage_that_answers_is_found_with_its_source(base: KnowledgeBase, mode: Mode) -> None:
    report = await base.ingest("acme", "house", [doc("garden.md", GARDEN), doc("kitchen.md")])
    assert (report.added, report.failed) == (2, 0)
    best = (await base.search("acme", "ann", "When do I cut my roses?", mode=mode))[0]
    assert (best.collection, best.source, best.title) == ("house", "garden.md", "The garden")
    assert "early spring" in best.text
    assert (await sources(base, "how long does the dough rise", mode))[0] == "kitchen.md"


@pytest.mark.requirement("M2")
async def test_unchanged_documents_are_skipped_changed_ones_replaced_missing_ones_removed(
    base: KnowledgeBase, vectors: VectorStore
) -> None:
    told: list[tuple[int, str]] = []
    await base.ingest(
        "acme", "house", [doc("garden.md", GARDEN), doc("kitchen.md"), doc("old.md", b"Old roses.")]
    )
    before = await vectors.count("acme", "house")
    report = await base.ingest(
        "acme",
        "house",
        [
            doc("garden.md", GARDEN),
            doc("kitchen.md", b"# The kitchen\n\nSoup simmers slowly."),
            doc("new.md", b"Attic."),
        ],
        remove_missing=True,
        told=lambda report, source: told.append((report.seen, source)),
    )
    assert (report.added, report.changed, report.unchanged, report.removed) == (1, 1, 1, 1)
    assert told == [(1, "garden.md"), (2, "kitchen.md"), (3, "new.md"), (3, "old.md")]
    assert await sources(base, "bread dough knead", "keyword") == []
    assert (await sources(base, "soup simmers"))[0] == "kitchen.md"
    assert await vectors.count("acme", "house") == before
    again = await base.ingest("acme", "house", [doc("garden.md", GARDEN)])
    assert again == IngestReport(unchanged=1)


@pytest.mark.requirement("M2")
async def test_a_document_that_fails_is_named_and_what_was_known_of_it_stays(base: KnowledgeBase) -> None:
    await base.ingest("acme", "house", [doc("kitchen.md")])
    report = await base.ingest(
        "acme",
        "house",
        [
            doc("kitchen.md", b"x" * (20 * 1024 * 1024 + 1)),
            doc("a.exe"),
            doc("b.pdf", b"no pdf"),
            doc("c.md", b"\0\0"),
        ],
        remove_missing=True,
    )
    assert (report.failed, report.removed) == (4, 0)
    reasons = dict(report.failures)
    assert "max_bytes=20971520" in reasons["kitchen.md"]
    assert "pdf" in reasons["a.exe"]
    assert "no PDF" in reasons["b.pdf"]
    assert "no text" in reasons["c.md"]
    assert (await sources(base, "knead the dough"))[0] == "kitchen.md"


@pytest.mark.requirement("M4")
async def test_another_tenant_and_another_user_find_nothing(base: KnowledgeBase) -> None:
    await base.ingest("acme", "house", [doc("kitchen.md")])
    await base.ingest("acme", "diary", [doc("diary.md", b"Dear diary, the bread burnt.")], owner="ann")
    assert await base.search("evil", "ann", "bread") == []
    with pytest.raises(MemoryNotFound):
        await base.search("evil", "ann", "bread", collections=["house"])
    assert {p.source for p in await base.search("acme", "ann", "bread")} == {"kitchen.md", "diary.md"}
    assert {p.source for p in await base.search("acme", "bob", "bread")} == {"kitchen.md"}
    with pytest.raises(MemoryNotFound):
        await base.search("acme", "bob", "bread", collections=["diary"])
    with pytest.raises(MemoryNotFound):
        await base.ingest("acme", "diary", [doc("planted.md")], owner="bob")
    with pytest.raises(MemoryNotFound):
        await base.ingest("acme", "diary", [doc("planted.md")])
    assert [c.collection for c in await base.collections("acme", "bob")] == ["house"]


@pytest.mark.requirement("M2")
async def test_a_filter_holds_for_words_and_vectors_alike(base: KnowledgeBase) -> None:
    many = [doc(f"en{n}.md", b"Bread and butter %d." % n, lang="en") for n in range(30)]
    await base.ingest("acme", "house", [*many, doc("sv.md", b"Bread is called brod.", lang="sv")])
    for mode in ("hybrid", "vector", "keyword"):
        found = await base.search("acme", "ann", "bread", mode=mode, where={"lang": "sv"})
        assert [p.source for p in found] == ["sv.md"]
        assert found[0].metadata == {"lang": "sv"}


class Other(HashingEmbedder):
    """Says that it is somebody else, of other dimensions."""

    async def identity(self) -> EmbedderIdentity:
        """Made up."""
        return EmbedderIdentity("other", 16)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Of 16 numbers."""
        return [[*vector[:15], 1.0] for vector in await super().embed(texts)]


@pytest.mark.requirement("M2")
async def test_another_embedder_is_refused_until_the_collection_is_embedded_again(
    base: KnowledgeBase, pool: TenantPool, vectors: VectorStore
) -> None:
    await base.ingest("acme", "house", [doc("garden.md", GARDEN), doc("kitchen.md")])
    other = KnowledgeBase(DocumentStore(pool), vectors, Other())
    with pytest.raises(EmbedderMismatch):
        await other.search("acme", "ann", "bread")
    with pytest.raises(EmbedderMismatch):
        await other.ingest("acme", "house", [doc("new.md", b"Attic.")])
    done: list[int] = []
    count = await other.embed_again("acme", "house", done.append)
    assert count == done[-1] == await vectors.count("acme", "house")
    assert set(await sources(other, "knead the dough", "vector")) == {"garden.md", "kitchen.md"}
    with pytest.raises(EmbedderMismatch):
        await base.search("acme", "ann", "bread")


async def test_vectors_that_were_left_behind_are_never_found_and_are_swept(
    base: KnowledgeBase, vectors: VectorStore, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: object) -> int:
        raise VectorsUnavailable("away for deletes")

    monkeypatch.setattr(vectors, "delete", away)
    await base.ingest("acme", "house", [doc("kitchen.md")])
    await base.ingest("acme", "house", [doc("kitchen.md", b"Bread is out.")])
    assert await vectors.count("acme", "house") == 2
    assert [p.text for p in await base.search("acme", "ann", "bread dough")] == ["Bread is out."]
    connection = await asyncpg.connect(database)
    await connection.execute("update kfm_memory.loose_revisions set at = now() - interval '2 hours'")
    monkeypatch.undo()
    await base.ingest("acme", "house", [])
    assert await vectors.count("acme", "house") == 1
    assert await connection.fetchval("select count(*) from kfm_memory.loose_revisions") == 0
    await connection.close()


async def test_a_dropped_collection_leaves_nothing(base: KnowledgeBase, database: str) -> None:
    await base.ingest("acme", "house", [doc("garden.md", GARDEN), doc("kitchen.md")])
    assert await base.drop("acme", "house") == 2
    assert await base.drop("acme", "house") == 0
    connection = await asyncpg.connect(database)
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'kfm_memory'::regnamespace and relkind = 'r'"
    )
    for (table,) in tables:
        assert await connection.fetchval(f"select count(*) from kfm_memory.{table}") == 0, table
    await connection.close()


@pytest.mark.parametrize(
    ("query", "k", "named"),
    [
        ("", 3, "max_query"),
        ("x" * (MAX_QUERY + 1), 3, "max_query"),
        ("x", 0, "max_passages"),
        ("x", MAX_PASSAGES + 1, "max_passages"),
    ],
)
async def test_a_search_over_a_limit_names_it(base: KnowledgeBase, query: str, k: int, named: str) -> None:
    with pytest.raises(MemoryInvalid, match=named):
        await base.search("acme", "ann", query, k=k)


@pytest.mark.parametrize(
    "query",
    [
        "!!!",
        "'; drop table kfm_memory.chunks; --",
        "a & | ! <-> ()",
        "\\",
        "the of and",
        "ü☃ 漢字",
        "x" * MAX_QUERY,
    ],
)
async def test_any_query_is_only_words(base: KnowledgeBase, query: str) -> None:
    await base.ingest("acme", "house", [doc("kitchen.md")])
    await base.search("acme", "ann", query)
    assert (await sources(base, "dough"))[0] == "kitchen.md"
