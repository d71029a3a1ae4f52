"""One suite for the port VectorStore: pgvector and the file keep the same promises."""

import math
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from kfm_server.memory.filestore import FileVectorStore
from kfm_server.memory.pgvector import PgVectorStore
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.vectors import (
    MAX_FOUND,
    EmbedderIdentity,
    EmbedderMismatch,
    VectorItem,
    VectorsInvalid,
    VectorStore,
)

E8 = EmbedderIdentity("test-8", 8)


@pytest.fixture(params=["pgvector", "file"])
def vectors_dsn(request: pytest.FixtureRequest) -> str:
    """The database; empty for a store that needs none."""
    return request.getfixturevalue("database") if request.param == "pgvector" else ""


@pytest.fixture
async def vectors(vectors_dsn: str, tmp_path: Path) -> AsyncGenerator[VectorStore]:
    """An empty store."""
    async with AsyncExitStack() as stack:
        if vectors_dsn:
            yield PgVectorStore(await stack.enter_async_context(TenantPool.open(vectors_dsn)))
        else:
            yield await stack.enter_async_context(FileVectorStore.open(tmp_path / "vectors.sqlite"))


def vector(seed: int, dims: int = 8) -> list[float]:
    """A direction."""
    found = random.Random(seed)
    return [found.gauss(0, 1) for _ in range(dims)]


def cosine(a: list[float], b: list[float]) -> float:
    """Of two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def items(count: int, **metadata: str) -> list[VectorItem]:
    """`v0`, `v1` and so on."""
    return [VectorItem(f"v{n}", vector(n), metadata) for n in range(count)]


@pytest.mark.requirement("M2")
async def test_the_nearest_come_first_with_their_cosines(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, items(50))
    query = vector(1000)
    hits = await vectors.search("acme", "docs", E8, query, 10)
    true = sorted(range(50), key=lambda n: -cosine(vector(n), query))[:10]
    assert [hit.id for hit in hits] == [f"v{n}" for n in true]
    for hit, n in zip(hits, true, strict=True):
        assert hit.score == pytest.approx(cosine(vector(n), query), abs=2e-3)


@pytest.mark.requirement("M2")
async def test_a_filtered_search_answers_k_whenever_so_many_match(vectors: VectorStore) -> None:
    query = vector(7)
    common = [VectorItem(f"c{n}", [x + 0.01 * n for x in query], {"lang": "en"}) for n in range(300)]
    rare = [VectorItem(f"r{n}", [-x + 0.01 * n for x in query], {"lang": "sv"}) for n in range(12)]
    await vectors.upsert("acme", "docs", E8, [*common, *rare])
    hits = await vectors.search("acme", "docs", E8, query, 10, {"lang": "sv"})
    assert len(hits) == 10
    assert all(hit.metadata == {"lang": "sv"} for hit in hits)
    assert len(await vectors.search("acme", "docs", E8, query, 20, {"lang": "sv"})) == 12
    assert await vectors.search("acme", "docs", E8, query, 5, {"lang": "sv", "year": "1999"}) == []


@pytest.mark.requirement("M2")
async def test_a_collection_small_beside_its_neighbours_still_answers_k(vectors: VectorStore) -> None:
    query = vector(7)
    near = [VectorItem(f"n{n}", [x + 0.001 * n for x in query]) for n in range(400)]
    await vectors.upsert("giant", "docs", E8, near)
    await vectors.upsert("acme", "other", E8, near)
    await vectors.upsert("acme", "docs", E8, [VectorItem(f"f{n}", vector(n)) for n in range(10)])
    assert len(await vectors.search("acme", "docs", E8, query, 10)) == 10


async def test_a_second_upsert_takes_the_place_of_the_first(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, [VectorItem("a", vector(1), {"is": "old"})])
    await vectors.upsert("acme", "docs", E8, [VectorItem("a", vector(2), {"is": "new"})])
    (hit,) = await vectors.search("acme", "docs", E8, vector(2), 5)
    assert (hit.id, hit.metadata) == ("a", {"is": "new"})
    assert hit.score == pytest.approx(1.0, abs=2e-3)
    assert await vectors.count("acme", "docs") == 1


async def test_of_one_upsert_the_last_of_an_id_counts(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, [VectorItem("a", vector(1)), VectorItem("a", vector(2))])
    (hit,) = await vectors.search("acme", "docs", E8, vector(2), 5)
    assert hit.score == pytest.approx(1.0, abs=2e-3)


async def test_what_was_deleted_is_not_found_and_not_counted(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, items(5))
    assert await vectors.delete("acme", "docs", ["v0", "v3", "v3", "never"]) == 2
    assert await vectors.delete("acme", "docs", []) == 0
    assert {hit.id for hit in await vectors.search("acme", "docs", E8, vector(0), 10)} == {"v1", "v2", "v4"}
    assert await vectors.count("acme", "docs") == 3


@pytest.mark.requirement("M2")
async def test_vectors_of_two_embedders_are_never_mixed(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, items(3))
    other = EmbedderIdentity("test-other", 8)
    with pytest.raises(EmbedderMismatch, match="test-8"):
        await vectors.upsert("acme", "docs", other, items(1))
    with pytest.raises(EmbedderMismatch, match="embed it again"):
        await vectors.search("acme", "docs", other, vector(1), 3)
    larger = EmbedderIdentity("test-8", 16)
    with pytest.raises(EmbedderMismatch):
        await vectors.search("acme", "docs", larger, vector(1, 16), 3)
    assert await vectors.embedder("acme", "docs") == E8
    await vectors.upsert("acme", "elsewhere", larger, [VectorItem("a", vector(1, 16))])


async def test_a_dropped_collection_may_have_another_embedder(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, items(3))
    assert await vectors.drop("acme", "docs") == 3
    assert await vectors.drop("acme", "docs") == 0
    assert await vectors.embedder("acme", "docs") is None
    other = EmbedderIdentity("test-other", 8)
    await vectors.upsert("acme", "docs", other, items(1))
    assert [hit.id for hit in await vectors.search("acme", "docs", other, vector(0), 3)] == ["v0"]


@pytest.mark.requirement("M2", "M4")
async def test_a_tenant_is_not_seen_by_another(vectors: VectorStore) -> None:
    await vectors.upsert("acme", "docs", E8, items(5))
    await vectors.upsert("evil", "docs", EmbedderIdentity("test-evil", 8), [VectorItem("v0", vector(9))])
    await vectors.upsert("third", "docs", E8, [VectorItem("v1", vector(1), {"of": "third"})])
    assert await vectors.count("nobody", "docs") == 0
    assert await vectors.search("nobody", "docs", E8, vector(1), 5) == []
    assert await vectors.embedder("nobody", "docs") is None
    assert await vectors.delete("third", "docs", ["v0", "v2", "v3"]) == 0
    assert await vectors.drop("evil", "docs") == 1
    assert await vectors.count("acme", "docs") == 5
    hits = await vectors.search("acme", "docs", E8, vector(1), 10)
    assert len(hits) == 5
    assert hits[0].metadata == {}
    assert await vectors.search("acme", "docs", E8, vector(1), 5, {"tenant_id": "third"}) == []
    assert await vectors.search("acme' or 'a' = 'a", "docs", E8, vector(1), 5) == []


@pytest.mark.parametrize("wrong", [[1.0] * 7, [0.0] * 8, [math.nan] * 8, [1.0] * 7 + [math.inf], [1e308] * 8])
async def test_what_is_no_vector_is_refused_whole(vectors: VectorStore, wrong: list[float]) -> None:
    with pytest.raises(VectorsInvalid):
        await vectors.upsert("acme", "docs", E8, [VectorItem("good", vector(1)), VectorItem("bad", wrong)])
    assert await vectors.count("acme", "docs") == 0
    with pytest.raises(VectorsInvalid):
        await vectors.search("acme", "docs", E8, wrong, 3)


@pytest.mark.parametrize("k", [0, -1, MAX_FOUND + 1])
async def test_a_k_over_the_limit_is_refused_by_its_name(vectors: VectorStore, k: int) -> None:
    with pytest.raises(VectorsInvalid, match="max_found=1000"):
        await vectors.search("acme", "docs", E8, vector(1), k)


@pytest.mark.parametrize("awkward", ["", "a b", "'; drop table x; --", "ü/☃", "x" * 500])
async def test_awkward_names_are_names(vectors: VectorStore, awkward: str) -> None:
    await vectors.upsert("acme", awkward, E8, [VectorItem(awkward, vector(1), {awkward: awkward})])
    (hit,) = await vectors.search("acme", awkward, E8, vector(1), 3, {awkward: awkward})
    assert (hit.id, hit.metadata) == (awkward, {awkward: awkward})
