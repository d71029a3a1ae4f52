"""A server beside a broker: what it commits is there, what others publish there counts once, whatever is killed meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm.catalogue.events import TOPICS, fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TURN_VERB_CANCEL, TurnControlEvent, TurnEvent
from kfm.type.v1.type_pb2 import Part
from kfm_server.bus.copies import copied_from
from kfm_server.bus.iggy.broker import IggyBroker
from kfm_server.ids import partition_of
from kfm_server.ports.broker import REQUESTS, Message, Received, message_id
from xenocomm import Client

from tests.support.bus import eventually
from tests.support.iggy import Iggy
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("B1", "R6")
LIMIT = 30.0


class Site:
    """A server, a client of it, its database, and the broker beside it."""

    def __init__(self, server: LiveServer, kfm: Client, db: Any, broker: IggyBroker, partitions: int) -> None:
        self.server, self.kfm, self.db, self.broker, self.partitions = server, kfm, db, broker, partitions

    async def publish(self, event_id: str, body: bytes, session_id: str) -> None:
        """As somebody else would, who knows the partitions."""
        partition = partition_of(session_id, self.partitions)
        await self.broker.publish(REQUESTS, partition, [Message(body, message_id(event_id))])

    async def on_broker(self, topic: str, partition: int) -> list[Received]:
        """All that is there."""
        found: list[Received] = []
        while more := await self.broker.read(topic, partition, found[-1].offset if found else 0, 1000):
            found += more
        return found

    async def relayed(self) -> None:
        """Wait until the broker has a copy of each event of the journal, and see that their order is the journal's."""

        async def all_there() -> bool:
            rows = await self.db.fetch(
                'select partition, topic, "offset", envelope from kfm.journal order by 1, 3'
            )
            for partition, topic in {(row[0], row[1]) for row in rows}:
                mine = {row[2]: row[3] for row in rows if (row[0], row[1]) == (partition, topic)}
                copies = [m for m in await self.on_broker(topic, partition) if copied_from(m)]
                firsts = {copied_from(m): m.payload for m in reversed(copies)}
                if firsts.keys() != mine.keys():
                    return False
                assert firsts == mine
                order = list(dict.fromkeys(copied_from(m) for m in copies))
                assert order == sorted(order)
            return bool(rows)

        await eventually(all_there)

    async def turns(self, session_id: str) -> list[str]:
        """The turns of a session, and how each ended."""
        return [turn.turn_id async for turn in self.kfm.turns.list(session_id=session_id)]


@pytest.fixture
async def site(database: str, tmp_path: Path, iggy: Iggy) -> AsyncIterator[Site]:
    db: Any = await asyncpg.connect(database)
    partitions = int(await db.fetchval("select value from kfm.settings where name = 'partitions'"))
    settings = iggy.settings()
    environment = {
        "KFM_PARTITIONS": str(partitions),
        "KFM_IGGY_ADDRESS": settings.address,
        "KFM_IGGY_USERNAME": settings.username,
        "KFM_IGGY_PASSWORD": settings.password.reveal(),
        "KFM_IGGY_STREAM": settings.stream,
    }
    server = LiveServer(tmp_path / "home", database_url=database, environment=environment)
    await asyncio.to_thread(server.start)
    try:
        async with (
            Client(server.grpc, timeout=LIMIT) as kfm,
            IggyBroker.open(settings, TOPICS, partitions) as broker,
        ):
            yield Site(server, kfm, db, broker, partitions)
    finally:
        await asyncio.to_thread(server.stop)
        await db.close()


def asked(event_id: str, session_id: str, text: str = "2 + 3") -> bytes:
    """What somebody else publishes to have a turn."""
    envelope = Envelope(event_id=event_id, session_id=session_id)
    fill(envelope, TurnEvent(principal="eve", input=[Part(text=text)]))
    return envelope.SerializeToString()


async def test_every_committed_event_is_on_the_broker_in_the_journals_order(site: Site) -> None:
    for _ in range(5):
        handle = await site.kfm.turns.start("2 + 3")
        await handle.result(timeout=LIMIT)
    await site.relayed()
    metrics = await asyncio.to_thread(site.server.metrics)
    assert 'kfm_relay_published_total{topic="agent.turns.requests"} 5.0' in metrics
    assert 'kfm_bus_oldest_seconds{group="relay"}' in metrics
    assert 'kfm_bus_lag{group="intake"}' in metrics


@pytest.mark.requirement("FT10")
async def test_an_event_of_somebody_else_starts_one_turn_however_often_it_comes(site: Site) -> None:
    body = asked("order-17", "ses_eve")
    for _ in range(3):
        await site.publish("order-17", body, "ses_eve")
    await site.publish("order-18", asked("order-18", "ses_eve", "7 * 6"), "ses_eve")

    async def both_ended() -> bool:
        turns = [turn async for turn in site.kfm.turns.list(session_id="ses_eve")]
        return len(turns) == 2 and all(turn.state.name == "FINISHED" for turn in turns)

    await eventually(both_ended)
    await site.publish("order-17", body, "ses_eve")
    await site.relayed()
    assert len(await site.turns("ses_eve")) == 2
    who = await site.db.fetch("select principal, rpc, key from kfm.requests order by key")
    assert [tuple(row) for row in who] == [
        ("eve", "SubmitTurn", "order-17"),
        ("eve", "SubmitTurn", "order-18"),
    ]


@pytest.mark.requirement("FT11")
async def test_what_is_no_request_becomes_a_dead_letter_with_its_bytes_and_holds_nothing(site: Site) -> None:
    control = Envelope(event_id="stop-1", session_id="ses_eve", turn_id="turn_nobody")
    fill(control, TurnControlEvent(verb=TURN_VERB_CANCEL))
    bad = [
        b"\xffno envelope",
        asked("", "ses_eve"),
        asked("blank", "ses_eve", "  "),
        control.SerializeToString(),
    ]
    for n, body in enumerate(bad):
        await site.publish(f"bad {n}", body, "ses_eve")
    await site.publish("good", asked("good", "ses_eve"), "ses_eve")

    async def all_seen() -> bool:
        letters = [letter async for letter in site.kfm.dead_letters.list(group="intake")]
        return len(letters) == len(bad) and len(await site.turns("ses_eve")) == 1

    await eventually(all_seen)
    letters = [letter async for letter in site.kfm.dead_letters.list(group="intake")]
    originals = {(await site.kfm.dead_letters.get(letter.dead_letter_id)).original for letter in letters}
    assert originals == set(bad)
    reasons = sorted(letter.error.reason for letter in letters if letter.error)
    assert reasons == [
        "REASON_EVENT_UNDECODABLE",
        "REASON_INVALID_ARGUMENT",
        "REASON_INVALID_ARGUMENT",
        "REASON_TURN_NOT_FOUND",
    ]


@pytest.mark.requirement("R8")
@pytest.mark.parametrize(
    "failpoint", ["relay.publish.before", "relay.commit.before", "relay.commit.after", "bus.commit.before"]
)
async def test_a_kill_between_publishing_and_committing_loses_nothing(site: Site, failpoint: str) -> None:
    await asyncio.to_thread(site.server.kill)
    await asyncio.to_thread(site.server.start, failpoint=f"{failpoint}:3", wait=False)
    for n in range(4):
        await site.publish(f"order-{n}", asked(f"order-{n}", f"ses_{n}"), f"ses_{n}")
    assert await asyncio.to_thread(site.server.await_death, 20)
    await asyncio.to_thread(site.server.start)

    async def all_ended() -> bool:
        rows = await site.db.fetch("select phase from kfm.turns")
        return [row[0] for row in rows] == ["finished"] * 4

    await eventually(all_ended)
    await site.relayed()


@pytest.mark.requirement("FT8")
async def test_a_broker_that_was_killed_and_came_back_gets_what_was_committed_meanwhile(
    site: Site, iggy: Iggy
) -> None:
    if not iggy.own:
        pytest.skip("the server that was given is not ours to kill")
    await iggy.kill()
    try:
        handle = await site.kfm.turns.start("2 + 3")
        await handle.result(timeout=LIMIT)
    finally:
        await iggy.start()
    await site.relayed()
