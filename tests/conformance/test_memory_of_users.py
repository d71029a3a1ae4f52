"""Facts and preferences, and all that is kept of one user: shown and erased, counted, and of nobody else."""

import time
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest
from kfm_server.cache.in_process import InProcessCache
from kfm_server.journal.history import MemorySessionRows
from kfm_server.journal.memory import MemoryJournal
from kfm_server.memory import facts as limits
from kfm_server.memory.documents import DocumentStore
from kfm_server.memory.facts import Facts
from kfm_server.memory.hashing import HashingEmbedder
from kfm_server.memory.knowledge import KnowledgeBase, SourceDocument
from kfm_server.memory.pgvector import PgVectorStore
from kfm_server.memory.preferences import CachedFacts
from kfm_server.memory.service import Exported, MemoryService
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import MemoryInvalid
from kfm_server.runtime.conversation import Conversation

pytestmark = pytest.mark.requirement("M1", "M4")


@pytest.fixture
async def memory(database: str) -> AsyncGenerator[MemoryService]:
    """Over a fresh database."""
    journal = MemoryJournal()
    async with TenantPool.open(database) as pool:
        knowledge = KnowledgeBase(DocumentStore(pool), PgVectorStore(pool), HashingEmbedder())
        facts = CachedFacts(Facts(pool), InProcessCache(time.monotonic))
        yield MemoryService(Conversation(journal, MemorySessionRows(journal)), facts, knowledge)


async def test_a_preference_is_kept_once_and_knows_where_it_came_from(memory: MemoryService) -> None:
    first = await memory.facts.remember("acme", "ann", "preference", "colour", "blue", "turn_1")
    second = await memory.facts.remember("acme", "ann", "preference", "colour", "green", "turn_2")
    assert (second.fact_id, second.created_at) == (first.fact_id, first.created_at)
    assert second.updated_at > first.updated_at
    (known,) = await memory.facts.known("acme", "ann")
    assert (known.value, known.source) == ("green", "turn_2")


async def test_facts_without_a_key_stand_side_by_side_and_pages_have_an_order(memory: MemoryService) -> None:
    for n in range(5):
        await memory.facts.remember("acme", "ann", "fact", "", f"fact {n}", "user")
    await memory.facts.remember("acme", "ann", "preference", "tone", "brief", "user")
    first = await memory.facts.known("acme", "ann", limit=4)
    rest = await memory.facts.known("acme", "ann", after=(first[-1].kind, first[-1].key), limit=4)
    assert [f.value for f in (*first, *rest)] == [*(f"fact {n}" for n in range(5)), "brief"]
    assert [f.value for f in await memory.facts.known("acme", "ann", "preference")] == ["brief"]
    assert await memory.facts.forget("acme", "ann", "preference", "tone")
    assert not await memory.facts.forget("acme", "ann", "preference", "tone")


async def test_another_user_and_another_tenant_know_nothing_of_it(memory: MemoryService) -> None:
    await memory.facts.remember("acme", "ann", "fact", "k", "v", "user")
    for tenant, user in (("acme", "bob"), ("evil", "ann")):
        assert await memory.facts.known(tenant, user) == []
        assert not await memory.facts.forget(tenant, user, "fact", "k")
        assert (await memory.erase_user(tenant, user)).counts == {"facts": 0, "documents": 0}
    assert len(await memory.facts.known("acme", "ann")) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": "x" * 201}, "max_key=200"),
        ({"value": ""}, "max_value=4000"),
        ({"value": " "}, "max_value=4000"),
        ({"value": "x" * 4001}, "max_value=4000"),
        ({"value": "a\0b"}, "max_value=4000"),
        ({"source": "x" * 501}, "max_source=500"),
        ({"kind": "secret"}, "fact, preference"),
        ({"kind": "preference", "key": ""}, "max_key=200"),
        ({"user_id": ""}, "max_user=255"),
        ({"tenant_id": ""}, "tenant"),
    ],
)
async def test_what_is_over_a_limit_is_refused_by_its_name(
    memory: MemoryService, change: dict[str, Any], named: str
) -> None:
    given = {"tenant_id": "acme", "user_id": "ann", "kind": "fact", "key": "k", "value": "v", "source": "s"}
    with pytest.raises(MemoryInvalid, match=named):
        await memory.facts.remember(**(given | change))


async def test_a_user_has_no_more_facts_than_the_limit(
    memory: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_FACTS", 2)
    for n in range(2):
        await memory.facts.remember("acme", "ann", "fact", f"k{n}", "v", "user")
    with pytest.raises(MemoryInvalid, match="max_facts=2"):
        await memory.facts.remember("acme", "ann", "fact", "k2", "v", "user")
    await memory.facts.remember("acme", "ann", "fact", "k1", "other", "user")
    assert len(await memory.facts.known("acme", "ann")) == 2


async def exported(memory: MemoryService, user: str) -> list[Exported]:
    """All of it."""
    return [one async for one in memory.export_user("acme", user)]


async def test_all_that_is_kept_of_a_user_is_shown_then_erased_and_counted(
    memory: MemoryService, database: str
) -> None:
    for user in ("ann", "bob"):
        await memory.facts.remember("acme", user, "fact", "pet", f"{user} has a cat", "turn_1")
        await memory.facts.remember("acme", user, "preference", "tone", "brief", "user")
        notes = [SourceDocument(f"{n}.md", f"# Note {n}\n\n{user} wrote {n}".encode()) for n in range(3)]
        await memory.knowledge.ingest("acme", f"notes-{user}", notes, owner=user)
    await memory.knowledge.ingest("acme", "shared", [SourceDocument("a.md", b"For all.")])

    found = await exported(memory, "ann")
    assert [one.kind for one in found] == ["facts", "facts", "documents", "documents", "documents"]
    assert found[0].value["value"] == "ann has a cat"
    assert found[2].value["chunks"] == ["# Note 0\n\nann wrote 0"]

    erased = await memory.erase_user("acme", "ann")
    assert (erased.tenant_id, erased.user_id, erased.counts) == ("acme", "ann", {"facts": 2, "documents": 3})
    assert await exported(memory, "ann") == []
    assert (await memory.erase_user("acme", "ann")).counts == {"facts": 0, "documents": 0}
    assert len(await exported(memory, "bob")) == 5
    assert {p.collection for p in await memory.knowledge.search("acme", "ann", "all wrote cat")} == {"shared"}

    connection = await asyncpg.connect(database)
    tables = await connection.fetch(
        "select relname from pg_class where relnamespace = 'kfm_memory'::regnamespace and relkind = 'r'"
    )
    for (table,) in tables:
        left = await connection.fetchval(
            f"select count(*) from kfm_memory.{table} t where position('ann' in t::text) > 0"
        )
        assert left == 0, table
    await connection.close()


async def test_no_user_is_nobodys_data(memory: MemoryService) -> None:
    await memory.knowledge.ingest("acme", "shared", [SourceDocument("a.md", b"For all.")])
    with pytest.raises(MemoryInvalid):
        await memory.erase_user("acme", "")
    with pytest.raises(MemoryInvalid):
        await exported(memory, "")
    assert len(await memory.knowledge.search("acme", "ann", "all")) == 1
