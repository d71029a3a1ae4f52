"""What the relay promises over every broker: all that is committed, in order, at least once, also after the broker was wiped."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from kfm.catalogue.events import TOPICS, fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import StepEvent
from kfm_server import metrics
from kfm_server.bus.copies import SESSION, TYPE, copied_from, copy_of
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.bus.memory import MemoryBroker
from kfm_server.bus.relay import RELAY, Relay
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.broker import (
    PAYLOAD_LIMIT,
    POOL,
    STEPS,
    Broker,
    BrokerUnavailable,
    Message,
    Received,
    message_id,
)
from kfm_server.ports.bus import CursorStore, LetterStore
from kfm_server.ports.journal import Entry, Record, Stored

from tests.support.bus import (
    LIMIT,
    PARTITIONS,
    TOPIC,
    BrokerCarrier,
    JournalCarrier,
    Seen,
    Told,
    at_once,
    consuming,
    eventually,
    group,
    running,
    sealed,
)

pytestmark = pytest.mark.requirement("R6", "B1")
ME = ExecutionContext()


@pytest.fixture(params=["broker-memory", "broker-iggy"])
def engine(request: pytest.FixtureRequest) -> str:
    """What the relay publishes to; cursors are in memory, or in Postgres."""
    return request.param


@asynccontextmanager
async def relaying(
    journal: JournalCarrier, broker: Broker, store: Told, *, epoch: int = 1, partitions: int = 1
) -> AsyncGenerator[Relay]:
    """A relay runs on the first partitions while the context lasts."""
    owned = dict.fromkeys(range(partitions), epoch)
    relay = Relay(
        journal=journal.journal,
        broker=broker,
        store=cast(CursorStore, store),
        assigned=lambda: owned,
        clock=SystemClock(),
        poll=0.05,
        pause=at_once,
    )
    with journal.hints(relay.consumer):
        async with running(relay.consumer):
            yield relay


async def published(broker: Broker, count: int, *, topic: str = TOPIC, partition: int = 0) -> list[Received]:
    """What the partition holds once it is so many messages; waits for them, for a bounded time."""

    async def grown() -> bool:
        try:
            return (await broker.heads(topic)).get(partition, 0) >= count
        except BrokerUnavailable:
            return False

    await eventually(grown)
    found: list[Received] = []
    while more := await broker.read(topic, partition, found[-1].offset if found else 0, 1000):
        found += more
    return found


async def committed(store: Told, offset: int, *channel: str) -> None:
    """Wait until the relay has committed so much."""

    async def so_much() -> bool:
        return (await store.open(RELAY, 0, 1, *channel)).offset >= offset

    await eventually(so_much)


async def test_what_is_committed_is_published_in_order_with_the_journals_bytes(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    events = {p: [sealed(f"turn_{p}", n, f"ses_{p}") for n in range(1, 301)] for p in range(PARTITIONS)}
    for p in range(PARTITIONS):
        await journal.put(*events[p][:100], partition=p)
    async with relaying(journal, carrier.broker, store, partitions=PARTITIONS):
        for n in range(100, 300):
            for p in range(PARTITIONS):
                await journal.put(events[p][n], partition=p)
        for p in range(PARTITIONS):
            found = await published(carrier.broker, 300, partition=p)
            assert [m.payload for m in found] == [e.SerializeToString() for e in events[p]]
            assert [copied_from(m) for m in found] == list(range(1, 301))
            assert {(m.headers[TYPE], m.headers[SESSION]) for m in found} == {("TurnEvent.v1", f"ses_{p}")}
            assert [m.id for m in found] == [message_id(f"turn_{p}.{n}") for n in range(1, 301)]


async def test_a_group_of_the_broker_gets_what_the_journal_commits(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal, seen = JournalCarrier(MemoryJournal(PARTITIONS)), Seen()
    async with (
        relaying(journal, carrier.broker, store),
        consuming(group(seen), carrier, store),
    ):
        for n in range(1, 51):
            await journal.put(sealed("turn_1", n))
        await seen.until(lambda: len(seen.ids) == 50)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 51)]


async def test_after_a_crash_before_the_commit_the_same_is_published_again_under_the_same_ids(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    await journal.put(*(sealed("turn_1", n) for n in range(1, 11)))
    await store.open(RELAY, 0, 1)
    copies = [copy_of(stored) for stored in await journal.journal.read_partition(0, 0, 100)]
    await carrier.broker.publish(TOPIC, 0, copies)
    seen = Seen()
    async with relaying(journal, carrier.broker, store, epoch=2), consuming(group(seen), carrier, store):
        found = await published(carrier.broker, 20)
        assert [m.id for m in found[:10]] == [m.id for m in found[10:]]
        await journal.put(sealed("turn_1", 11))
        await seen.until(lambda: "turn_1.11" in seen.ids)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 12)]


@pytest.mark.requirement("R10")
async def test_an_owner_of_an_earlier_epoch_ends_and_the_next_goes_on_behind_it(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    await journal.put(*(sealed("turn_1", n) for n in range(1, 11)))
    async with relaying(journal, carrier.broker, store, epoch=1):
        await published(carrier.broker, 10)
        await committed(store, 10)
        async with relaying(journal, carrier.broker, store, epoch=2):
            await journal.put(*(sealed("turn_1", n) for n in range(11, 21)))
            await published(carrier.broker, 20)
    found = {copied_from(m) for m in await carrier.broker.read(TOPIC, 0, 0, 1000)}
    assert found == set(range(1, 21))


async def test_events_outside_turns_and_bytes_that_are_no_envelope_are_copied_too(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    await journal.put(b"\xff\x00no", sealed("turn_1", 1))
    async with relaying(journal, carrier.broker, store):
        broken, _ = await published(carrier.broker, 2)
    assert (broken.payload, copied_from(broken), TYPE in broken.headers) == (b"\xff\x00no", 1, False)


async def test_a_steps_pool_is_told_in_a_header(carrier: BrokerCarrier, store: Told) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    envelope = Envelope(event_id="turn_1.1", session_id="ses_a", turn_id="turn_1", sequence=1)
    fill(envelope, StepEvent(step_key="a", pool="gpu"))
    record = Record("turn_1", 1, STEPS, envelope.SerializeToString())
    await journal.journal.append(Entry(0, 0, (record,)))
    async with relaying(journal, carrier.broker, store):
        (found,) = await published(carrier.broker, 1, topic=STEPS)
    assert found.headers[POOL] == "gpu"


async def test_a_broker_that_lost_everything_gets_again_what_the_journal_has(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal, broker, seen = JournalCarrier(MemoryJournal(PARTITIONS)), carrier.broker, Seen()
    refills = metrics.RELAY_REFILLS.labels(TOPIC)._value
    before = refills.get()
    async with relaying(journal, broker, store), consuming(group(seen), carrier, store):
        await journal.put(*(sealed("turn_1", n) for n in range(1, 301)))
        await seen.until(lambda: len(seen.ids) == 300)
        await published(broker, 300)
        await carrier.wipe()
        assert [copied_from(m) for m in await published(broker, 300)] == list(range(1, 301))
        await journal.put(sealed("turn_1", 301))
        await seen.until(lambda: "turn_1.301" in seen.ids)
    assert list(dict.fromkeys(seen.ids)) == [f"turn_1.{n}" for n in range(1, 302)]
    assert refills.get() == before + 1


@pytest.mark.requirement("FT9")
async def test_a_broker_that_was_wiped_while_no_relay_ran_is_refilled_by_the_next(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal, broker = JournalCarrier(MemoryJournal(PARTITIONS)), carrier.broker
    await journal.put(*(sealed("turn_1", n) for n in range(1, 11)))
    async with relaying(journal, broker, store):
        await published(broker, 10)
        await committed(store, 1, TOPIC)
    await carrier.wipe()
    async with relaying(journal, broker, store, epoch=2):
        assert [copied_from(m) for m in await published(broker, 10)] == list(range(1, 11))


@pytest.mark.requirement("FT9")
async def test_a_lost_tail_is_published_again(store: Told) -> None:
    journal, broker = JournalCarrier(MemoryJournal(PARTITIONS)), MemoryBroker(PARTITIONS)
    await journal.put(*(sealed("turn_1", n) for n in range(1, 11)))
    async with relaying(journal, broker, store):
        await published(broker, 10)
        await committed(store, 10)
        broker.lose(TOPIC, 0, 7)
        found = await published(broker, 17)
    assert {copied_from(m) for m in found} == set(range(1, 11))


@pytest.mark.requirement("FT9")
async def test_a_crash_during_a_refill_begins_it_again(store: Told) -> None:
    journal, broker = JournalCarrier(MemoryJournal(PARTITIONS)), Breaking(PARTITIONS)
    await journal.put(*(sealed("turn_1", n) for n in range(1, 601)))
    async with relaying(journal, broker, store):
        await published(broker, 600)
        broker.break_after = 2
        broker.wipe()
        async with asyncio.timeout(LIMIT):
            await broker.broke.wait()
    broker.break_after = -1

    async def whole() -> bool:
        return {copied_from(m) for m in await broker.read(TOPIC, 0, 0, 10_000)} == set(range(1, 601))

    async with relaying(journal, broker, store, epoch=2):
        await eventually(whole)


async def test_what_the_broker_never_takes_becomes_a_dead_letter_and_the_rest_is_published(
    carrier: BrokerCarrier, store: Told
) -> None:
    journal = JournalCarrier(MemoryJournal(PARTITIONS))
    await journal.put(sealed("turn_1", 1), bytes(PAYLOAD_LIMIT + 1), sealed("turn_1", 2))
    async with relaying(journal, carrier.broker, store):
        found = await published(carrier.broker, 2)
        assert [copied_from(m) for m in found] == [1, 3]
    (letter,), _ = await DeadLetterDesk(cast(LetterStore, store)).list(ME, RELAY, 10, "")
    assert (letter.offset, letter.topic) == (2, TOPIC)
    assert str(PAYLOAD_LIMIT) in letter.error.message


async def test_it_waits_for_a_broker_that_is_away_and_then_publishes_all(store: Told) -> None:
    journal, broker = JournalCarrier(MemoryJournal(PARTITIONS)), MemoryBroker(PARTITIONS)
    broker.away = True
    async with relaying(journal, broker, store):
        await journal.put(*(sealed("turn_1", n) for n in range(1, 11)))
        async with asyncio.timeout(LIMIT):
            await broker.refused.wait()
        broker.away = False
        assert len(await published(broker, 10)) == 10


def test_headers_that_no_broker_takes_are_left_out() -> None:
    envelope = sealed("turn_1", 1, "s" * 256)
    stored = Stored(0, 7, 3, "turn_1", 1, TOPIC, envelope.SerializeToString())
    assert set(copy_of(stored).headers) == {"kfm-offset", "kfm-epoch", "kfm-type"}


@pytest.mark.parametrize("text", ["", "x", "-1", "1.0", "٣", "9" * 20])
def test_a_header_that_is_no_offset_makes_no_copy(text: str) -> None:
    assert copied_from(Received(0, 1, b"x", 1, {"kfm-offset": text}, 0)) == 0


def test_every_topic_of_an_event_is_one_that_brokers_have() -> None:
    assert {TOPIC, STEPS} <= set(TOPICS)


class Breaking(MemoryBroker):
    """Goes away, for as long as it is told to, after so many publications."""

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.break_after = -1
        self.broke = asyncio.Event()

    async def publish(self, topic: str, partition: int, messages: Sequence[Message]) -> None:
        """Fails after the last publication that it may take."""
        if self.break_after == 0:
            self.away = True
            self.broke.set()
        self.break_after -= 1
        try:
            await super().publish(topic, partition, messages)
        finally:
            self.away = False
