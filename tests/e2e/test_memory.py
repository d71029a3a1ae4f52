"""Memory over the real channel: facts, knowledge, one user's data shown and erased, and the audit of it."""

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from kfm.catalogue.events import EVENT_TYPES
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import AuditEvent
from xenocomm import Client
from xenocomm._gen.errors import InvalidArgument, MemoryNotFound
from xenocomm._gen.types import DocumentChange, FactKind, Outcome, RankingMode
from xenocomm.testing import ServerInProcess, server

from tests.support.live import a_moment
from tests.support.plans import call, given

pytestmark = [pytest.mark.requirement("M1", "M4"), pytest.mark.timeout(120)]
TRAVEL = b"""# Travel

## Hotels
A night in a hotel may cost 180 euros at most.

## Trains
Take the train for journeys under four hours.
"""


@pytest.fixture
async def running(database: str) -> AsyncIterator[tuple[Client, str]]:
    with server(database_url=database) as found:
        assert isinstance(found, ServerInProcess)
        async with found.client(timeout=20) as kfm:
            yield kfm, database


async def test_what_is_known_of_a_user_is_kept_listed_and_forgotten(running: tuple[Client, str]) -> None:
    memory = running[0].memory
    await memory.remember("units", "imperial", kind=FactKind.PREFERENCE, user="ada")
    kept = await memory.remember("units", "metric", kind=FactKind.PREFERENCE, user="ada", source="user")
    assert (kept.value, kept.source) == ("metric", "user")
    for n in range(3):
        await memory.remember(f"fact{n}", str(n), user="ada")
    assert [f.key for f in await memory.facts(user="ada")] == ["fact0", "fact1", "fact2", "units"]
    assert [f.value for f in await memory.facts(user="ada", kind=FactKind.PREFERENCE)] == ["metric"]
    assert not await memory.facts(user="grace"), "another user"
    assert not await memory.facts(), "the caller"
    assert await memory.forget("fact0", user="ada") and not await memory.forget("fact0", user="ada")
    with pytest.raises(InvalidArgument, match="value"):
        await memory.remember("k", "", user="ada")


async def test_documents_are_found_by_what_they_say(running: tuple[Client, str]) -> None:
    memory = running[0].memory
    put = await memory.put_document("handbook", "travel.md", TRAVEL)
    assert put == DocumentChange.ADDED
    assert await memory.put_document("handbook", "travel.md", TRAVEL) == DocumentChange.UNCHANGED
    assert await memory.put_document("handbook", "cats.txt", b"Cats sleep a lot.") == DocumentChange.ADDED
    for mode in (RankingMode.HYBRID, RankingMode.VECTOR, RankingMode.KEYWORD):
        found = await memory.search("what may a hotel cost", limit=1, mode=mode)
        assert [p.source for p in found] == ["travel.md"], mode
    assert [d.source for d in await memory.documents("handbook")] == ["cats.txt", "travel.md"]
    assert await memory.remove_document("handbook", "cats.txt")
    with pytest.raises(MemoryNotFound):
        await memory.search("cats", collections=["elsewhere"])
    with pytest.raises(InvalidArgument):
        await memory.put_document("handbook", "broken.pdf", b"%PDF-1.7 but no more")
    assert await memory.drop_collection("handbook") == 1
    assert not await memory.collections()


async def test_the_todos_of_a_user_are_shown_and_erased_with_the_rest(running: tuple[Client, str]) -> None:
    kfm, _ = running
    adding = call("a", "todo_store", action="add", title="Walk Bruno")
    assert (await (await kfm.turns.start(given(adding))).result(timeout=30)).outcome == Outcome.SUCCEEDED
    (shown,) = [one async for one in kfm.memory.export_user("anonymous")]
    assert (shown.kind, json.loads(shown.value_json)["title"]) == ("todos", "Walk Bruno")
    assert (await kfm.memory.erase_user("anonymous"))["todos"] == 1
    assert [one async for one in kfm.memory.export_user("anonymous")] == []


async def test_one_users_data_is_shown_whole_and_erased_with_proof(running: tuple[Client, str]) -> None:
    kfm, dsn = running
    memory = kfm.memory
    await memory.remember("dog", "Bruno", user="ada")
    await memory.put_document("notes-of-ada", "a.txt", b"My diary.", owner="ada")
    await memory.put_document("public", "b.txt", b"For all.")
    await memory.remember("cat", "Tom", user="grace")
    assert [c.collection for c in await memory.collections(user="grace")] == ["public"]
    shown = [one.kind async for one in memory.export_user("ada")]
    assert shown == ["facts", "documents"]
    assert await memory.erase_user("ada") == {"facts": 1, "documents": 1, "todos": 0}
    assert [one async for one in memory.export_user("ada")] == []
    assert await memory.erase_user("ada") == {"facts": 0, "documents": 0, "todos": 0}
    assert [f.key for f in await memory.facts(user="grace")] == ["cat"]
    connection = await asyncpg.connect(dsn)
    try:
        reasons: list[str] = []
        while not any(
            "facts=1" in reason for reason in reasons
        ):  # the group follows; bounded by the test's time
            await a_moment()
            rows = await connection.fetch("select envelope from kfm.audit")
            found = [Envelope.FromString(row["envelope"]) for row in rows]
            assert all(EVENT_TYPES[e.type] for e in found)
            events = [AuditEvent.FromString(e.payload.value) for e in found]
            reasons = [e.reason for e in events if (e.action, e.resource) == ("memory.erase", "ada")]
        assert "documents=1 facts=1 todos=0" in reasons
    finally:
        await connection.close()
