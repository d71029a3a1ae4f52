"""Dead letters of a running server, as an operator meets them: poison in the journal, the SDK in hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import AuditEvent
from kfm_server.ids import partition_of
from xenocomm import Client, errors
from xenocomm._gen.types import DeadLetter

from tests.support.bus import sealed, unknown
from tests.support.live import LiveServer, a_moment

pytestmark = pytest.mark.requirement("R6", "FT11")
T = TypeVar("T")
LIMIT = 30.0
_POISON = """
insert into kfm.journal (partition, "offset", epoch, turn_id, sequence, topic, envelope)
select $1, coalesce((select max("offset") from kfm.journal where partition = $1), 0) + 1,
    (select epoch from kfm.partitions where partition = $1 for no key update), '', 0, 'agent.turns.requests', $2
"""


class Site:
    """A server, a client of it, and its database."""

    def __init__(self, server: LiveServer, kfm: Client, db: Any, partitions: int) -> None:
        self.server = server
        self.kfm = kfm
        self.db = db
        self.partitions = partitions

    async def turn(self, session_id: str = "") -> tuple[str, str]:
        """Run one turn to its end; answers its id and its session's."""
        handle = await self.kfm.turns.start("2 + 3", session_id=session_id)
        await handle.result(timeout=LIMIT)
        turn = await handle.get()
        return turn.turn_id, turn.session_id

    async def poison(self, session_id: str) -> bytes:
        """Put an event of an unknown type behind what the session's partition holds."""
        body = unknown(sealed("turn_x", 1, session_id)).SerializeToString()
        await self.db.execute(_POISON, partition_of(session_id, self.partitions), body)
        return body

    async def letters(self, group: str = "audit") -> list[DeadLetter]:
        """The open letters of a group."""
        return [letter async for letter in self.kfm.dead_letters.list(group=group)]

    async def audited(self) -> list[str]:
        """The turns whose submission was audited."""
        rows = await self.db.fetch("select envelope from kfm.audit order by at_us")
        events = [AuditEvent.FromString(Envelope.FromString(row[0]).payload.value) for row in rows]
        assert {(event.action, event.allowed) for event in events} <= {("turn.submit", True)}
        return [event.resource for event in events]


async def until(look: Callable[[], Awaitable[T]], test: Callable[[T], bool]) -> T:
    """Look, each time by a call to the server or the database, until the test holds; bounded."""
    async with asyncio.timeout(LIMIT):
        while True:
            found = await look()
            if test(found):
                return found
            await a_moment()


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    db: Any = await asyncpg.connect(database)
    partitions = await db.fetchval("select value from kfm.settings where name = 'partitions'")
    server = LiveServer(
        tmp_path / "home", database_url=database, environment={"KFM_PARTITIONS": str(partitions)}
    )
    await asyncio.to_thread(server.start)
    try:
        async with Client(server.grpc, timeout=LIMIT) as kfm:
            yield Site(server, kfm, db, int(partitions))
    finally:
        await asyncio.to_thread(server.stop)
        await db.close()


async def test_poison_holds_its_session_until_it_is_dropped(site: Site) -> None:
    first, session = await site.turn()
    await until(site.audited, lambda turns: turns == [first])
    body = await site.poison(session)
    (listed,) = await until(site.letters, bool)
    letter = await site.kfm.dead_letters.get(listed.dead_letter_id)
    assert letter.original == body
    assert letter.session_id == session
    assert letter.error is not None
    assert letter.error.reason == "REASON_EVENT_TYPE_UNKNOWN"

    held, _ = await site.turn(session)
    other, _ = await site.turn()
    await until(site.audited, lambda turns: other in turns)
    assert held not in await site.audited()

    await site.kfm.dead_letters.drop(letter.dead_letter_id, idempotency_key="once")
    await site.kfm.dead_letters.drop(letter.dead_letter_id, idempotency_key="once")
    await until(site.audited, lambda turns: held in turns)
    assert await site.letters() == []
    with pytest.raises(errors.DeadLetterNotFound):
        await site.kfm.dead_letters.get(letter.dead_letter_id)


async def test_a_replay_delivers_once_the_fault_is_gone(site: Site) -> None:
    first, session = await site.turn()
    await site.poison(session)
    (letter,) = await until(site.letters, bool)
    await site.kfm.dead_letters.replay(letter.dead_letter_id)
    again = await until(site.letters, lambda found: bool(found) and found[0] != letter)
    assert [x.dead_letter_id for x in again] == [letter.dead_letter_id]

    good = sealed("turn_x", 1, session).SerializeToString()
    await site.db.execute("update kfm.journal set envelope = $1 where turn_id = ''", good)
    await site.kfm.dead_letters.replay(letter.dead_letter_id)
    await until(site.audited, lambda turns: turns == [first, "turn_x"])
    assert await site.letters() == []


async def test_a_key_that_served_another_letter_conflicts(site: Site) -> None:
    _, one = await site.turn()
    _, two = await site.turn()
    await site.poison(one)
    await site.poison(two)
    first, second = await until(site.letters, lambda found: len(found) == 2)
    await site.kfm.dead_letters.drop(first.dead_letter_id, idempotency_key="k")
    with pytest.raises(errors.IdempotencyConflict):
        await site.kfm.dead_letters.drop(second.dead_letter_id, idempotency_key="k")
    with pytest.raises(errors.DeadLetterNotFound):
        await site.kfm.dead_letters.drop("evt_none", idempotency_key="k2")
    assert [x.dead_letter_id for x in await site.letters()] == [second.dead_letter_id]


async def test_holds_and_positions_survive_a_kill(site: Site) -> None:
    first, session = await site.turn()
    await site.poison(session)
    (letter,) = await until(site.letters, bool)
    await asyncio.to_thread(site.server.kill)
    await asyncio.to_thread(site.server.start)
    held, _ = await site.turn(session)
    other, _ = await site.turn()
    await until(site.audited, lambda turns: other in turns)
    assert await site.audited() == [first, other]
    assert await site.letters() == [letter]
    await site.kfm.dead_letters.drop(letter.dead_letter_id)
    assert await until(site.audited, lambda turns: held in turns) == [first, held, other]
