"""What groups of a broker promise when it has lost events, has them twice, or carries what others publish."""

import asyncio
from dataclasses import replace

import pytest
from kfm_server import metrics
from kfm_server.bus.copies import OFFSET, SESSION, message_id
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.context import ExecutionContext
from kfm_server.ports.broker import Message

from tests.support.bus import (
    TOPIC,
    BrokerCarrier,
    Seen,
    Told,
    caught_up,
    consuming,
    eventually,
    group,
    sealed,
)

pytestmark = pytest.mark.requirement("R6", "B1")
ME = ExecutionContext()


@pytest.fixture(params=["broker-memory", "broker-iggy"])
def engine(request: pytest.FixtureRequest) -> str:
    """The broker; its groups' cursors are in memory, or in Postgres."""
    return request.param


async def test_a_group_whose_broker_was_wiped_reads_all_that_is_there_and_says_so(
    carrier: BrokerCarrier, store: Told
) -> None:
    seen, resets = Seen(), metrics.BUS_RESETS.labels("g", TOPIC)._value
    before = resets.get()
    async with consuming(group(seen), carrier, store):
        await carrier.put(*(sealed("turn_1", n) for n in range(1, 11)))
        await seen.until(lambda: len(seen.ids) == 10)
        await caught_up(store, carrier)
    await carrier.wipe()
    await carrier.put(sealed("turn_1", 11), sealed("turn_1", 12))
    async with consuming(group(seen), carrier, store, epoch=2):
        await seen.until(lambda: "turn_1.12" in seen.ids)
        await carrier.put(sealed("turn_1", 13))
        await seen.until(lambda: "turn_1.13" in seen.ids)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 14)]
    assert resets.get() == before + 1


async def test_a_running_group_notices_that_its_broker_was_wiped(carrier: BrokerCarrier, store: Told) -> None:
    seen = Seen()
    async with consuming(group(seen), carrier, store):
        await carrier.put(*(sealed("turn_1", n) for n in range(1, 11)))
        await seen.until(lambda: len(seen.ids) == 10)
        await caught_up(store, carrier)
        await carrier.wipe()

        async def noticed() -> bool:
            return (await store.open("g", 0, 1, TOPIC)).offset == 0

        await eventually(noticed)
        await carrier.put(sealed("turn_1", 10), sealed("turn_1", 11))
        await seen.until(lambda: "turn_1.11" in seen.ids)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 12)]


async def test_holds_end_with_what_was_lost_and_letters_stay(carrier: BrokerCarrier, store: Told) -> None:
    seen = Seen()
    seen.broken.add("turn_1.1")
    await carrier.put(sealed("turn_1", 1), sealed("turn_1", 2), sealed("turn_2", 1, "ses_b"))
    async with consuming(group(seen), carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_2.1"]
    await carrier.wipe()
    await carrier.put(sealed("turn_1", 3))
    async with consuming(group(seen), carrier, store, epoch=2):
        await seen.until(lambda: "turn_1.3" in seen.ids)
    desk = DeadLetterDesk(store)
    (letter,), _ = await desk.list(ME, "g", 10, "")
    await desk.drop(ME, letter.dead_letter_id, "k", b"d", "DropDeadLetter")
    assert (await desk.list(ME, "g", 10, ""))[0] == []


async def test_another_message_at_the_offset_of_one_that_was_lost_gets_a_letter_of_its_own(
    carrier: BrokerCarrier, store: Told
) -> None:
    for n in (1, 2):
        await carrier.put(b"\xff" * n)
        await carrier.put(sealed("turn_1", n))
        seen = Seen()
        async with consuming(group(seen), carrier, store, epoch=n):
            await caught_up(store, carrier, epoch=n)
        await carrier.wipe()
        async with consuming(group(seen), carrier, store, epoch=n):

            async def noticed(epoch: int = n) -> bool:
                return (await store.open("g", 0, epoch, TOPIC)).offset == 0

            await eventually(noticed)
    letters, _ = await DeadLetterDesk(store).list(ME, "g", 10, "")
    assert [letter.offset for letter in letters] == [1, 1]
    assert len({letter.dead_letter_id for letter in letters}) == 2


async def test_a_copy_that_stands_there_twice_is_delivered_once(carrier: BrokerCarrier, store: Told) -> None:
    seen = Seen()
    async with consuming(group(seen), carrier, store):
        for n in (1, 2, 1, 2, 3, 2, 4):
            await carrier.put(sealed("turn_1", n))
        await seen.until(lambda: "turn_1.4" in seen.ids)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 5)]


async def test_a_group_that_takes_no_copies_passes_them_over_unopened(
    carrier: BrokerCarrier, store: Told
) -> None:
    seen = Seen()
    outsiders = replace(group(seen), copies=False)
    await carrier.broker.publish(TOPIC, 0, [Message(b"\xff no envelope", 7, {OFFSET: "12"})])
    forged = sealed("turn_1", 1)
    body = forged.SerializeToString()
    await carrier.broker.publish(TOPIC, 0, [Message(body, message_id("a"), {OFFSET: "no offset"})])
    await carrier.put(sealed("turn_1", 2))
    async with consuming(outsiders, carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.1", "turn_1.2"]
    assert (await DeadLetterDesk(store).list(ME, "", 10, ""))[0] == []


async def test_a_group_that_holds_nothing_buries_what_it_cannot_take_and_goes_on_in_the_session(
    carrier: BrokerCarrier, store: Told
) -> None:
    seen = Seen()
    seen.broken.add("turn_1.2")
    await carrier.put(*(sealed("turn_1", n) for n in range(1, 4)))
    await carrier.broker.publish(TOPIC, 0, [Message(b"\xff", 9, {SESSION: "ses_a"})])
    await carrier.put(sealed("turn_1", 4))
    async with consuming(replace(group(seen), holds=False), carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.1", "turn_1.3", "turn_1.4"]
    letters, _ = await DeadLetterDesk(store).list(ME, "g", 10, "")
    assert [(x.offset, x.topic, x.session_id) for x in letters] == [(2, TOPIC, "ses_a"), (4, TOPIC, "ses_a")]
    assert await store.holds("g", 0) == []


async def test_what_is_not_settled_is_read_again_by_whoever_takes_the_partition_over(
    carrier: BrokerCarrier, store: Told
) -> None:
    first, second = Seen(), Seen()
    await carrier.put(*(sealed("turn_1", n) for n in range(1, 6)))
    async with consuming(replace(group(first), settle=3600.0), carrier, store, epoch=1):
        await first.until(lambda: len(first.ids) == 5)
    async with consuming(replace(group(second), settle=0.0), carrier, store, epoch=2):
        await second.until(lambda: len(second.ids) == 5)
        await caught_up(store, carrier, epoch=2)
    assert first.ids == second.ids


async def test_lag_and_the_oldest_age_say_how_far_behind_a_group_is(
    carrier: BrokerCarrier, store: Told
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: object) -> None:
        arrived.set()
        await go_on.wait()

    old = sealed("turn_1", 1)
    old.timestamp.seconds -= 100
    await carrier.put(old, *(sealed("turn_1", n) for n in range(2, 6)))
    lag, oldest = metrics.BUS_LAG.labels("behind")._value, metrics.BUS_OLDEST.labels("behind")._value

    async def behind() -> bool:
        return lag.get() == 5 and 100 <= oldest.get() < 200

    async def caught() -> bool:
        return lag.get() == 0 and oldest.get() == 0

    async with consuming(group(slow, name="behind"), carrier, store):
        await eventually(behind)
        go_on.set()
        await eventually(caught)
