"""What every engine of the bus promises to its consumers: over the journal, and over a broker."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence

import pytest
from kfm.catalogue.events import unpack
from kfm_server.bus.audit import AuditLog, audit_group
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.bus.memory import MemoryAuditLog
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.context import ExecutionContext
from kfm_server.ports.bus import CursorFenced, Delivery, TryLater

from tests.support.bus import LIMIT, Carrier, Seen, Told, caught_up, consuming, group, sealed, unknown

ME = ExecutionContext()
REPLAY = "ReplayDeadLetter"


@pytest.fixture
async def audit(dsn: str) -> AsyncGenerator[AuditLog]:
    if not dsn:
        yield MemoryAuditLog()
        return
    async with PostgresBusStore.open_pool(dsn) as made:
        yield made


@pytest.mark.requirement("R6")
async def test_events_of_a_partition_arrive_in_order(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    events = [sealed(f"turn_{n % 3}", n // 3 + 1, f"ses_{n % 3}") for n in range(600)]
    await carrier.put(*events[:300])
    async with consuming(group(seen, batch=16), carrier, store):
        await carrier.put(*events[300:])
        await seen.until(lambda: len(seen.ids) >= 600)
    assert seen.ids == [event.event_id for event in events]


async def test_a_group_reads_its_topics_only(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    await carrier.put(sealed("turn_1", 1))
    other = group(seen)
    object.__setattr__(other, "topics", frozenset({"agent.plans"}))
    async with consuming(other, carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == []


async def test_a_partition_that_is_taken_over_is_read_without_waiting_for_the_poll(
    store: Told, carrier: Carrier
) -> None:
    seen, mine = Seen(), dict[int, int]()
    async with consuming(group(seen), carrier, store, assigned=mine, hints=False, poll=10 * LIMIT):
        await carrier.put(sealed("turn_1", 1))
        mine[0] = 1
        await seen.until(lambda: seen.ids == ["turn_1.1"])


async def test_a_partition_goes_on_without_hints(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    async with consuming(group(seen), carrier, store, hints=False):
        await caught_up(store, carrier)
        await carrier.put(sealed("turn_1", 1))
        await seen.until(lambda: seen.ids == ["turn_1.1"])


@pytest.mark.requirement("R6")
async def test_a_crash_before_the_commit_delivers_again(store: Told, carrier: Carrier) -> None:
    await carrier.put(*(sealed("turn_1", n) for n in range(1, 6)))
    arrived = asyncio.Event()
    ids: list[str] = []

    async def stuck(deliveries: Sequence[Delivery]) -> None:
        ids.append(deliveries[0].envelope.event_id)
        if len(ids) == 3:
            arrived.set()
            await asyncio.Event().wait()

    async with consuming(group(stuck), carrier, store, epoch=1):
        async with asyncio.timeout(30):
            await arrived.wait()
    seen = Seen()
    async with consuming(group(seen), carrier, store, epoch=2):
        await seen.until(lambda: len(seen.ids) >= 5)
        await caught_up(store, carrier, epoch=2)
    assert seen.ids == [f"turn_1.{n}" for n in range(1, 6)]
    again = Seen()
    async with consuming(group(again), carrier, store, epoch=3):
        await carrier.put(sealed("turn_1", 6))
        await again.until(lambda: bool(again.ids))
    assert again.ids == ["turn_1.6"]


@pytest.mark.requirement("R10")
async def test_an_earlier_epoch_cannot_commit(store: Told, carrier: Carrier) -> None:
    (channel,) = carrier.source.channels
    await store.open("g", 0, 1, channel)
    await store.commit("g", 0, 1, 7, channel)
    assert (await store.open("g", 0, 2, channel)).offset == 7
    for refused in (
        store.commit("g", 0, 1, 9, channel),
        store.open("g", 0, 1, channel),
        store.reset("g", 0, 1, 0, channel),
        store.advance("g", 0, 1, "ses_a", 3, channel),
        store.lift("g", 0, 1, "ses_a", channel),
    ):
        with pytest.raises(CursorFenced):
            await refused
    await store.commit("g", 0, 2, 3, channel)
    assert (await store.open("g", 0, 2, channel)).offset == 7
    assert (await store.open("g", 0, 1, "another channel")).offset == 0


@pytest.mark.requirement("R6", "FT11")
async def test_a_message_that_always_fails_is_buried_with_its_bytes(store: Told, carrier: Carrier) -> None:
    bad = sealed("turn_1", 2)
    await carrier.put(sealed("turn_1", 1), bad, sealed("turn_2", 1, "ses_b"), sealed("turn_1", 3))
    seen = Seen()
    seen.broken.add("turn_1.2")
    desk = DeadLetterDesk(store)
    async with consuming(group(seen), carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.1", "turn_2.1"]
    assert seen.tries.count("turn_1.2") == 3
    (listed,), token = await desk.list(ME, "g", 10, "")
    assert (token, listed.original) == ("", b"")
    letter = await desk.get(ME, listed.dead_letter_id)
    assert letter.original == bad.SerializeToString()
    assert (letter.group, letter.partition, letter.offset, letter.session_id) == ("g", 0, 2, "ses_a")
    assert letter.error.metadata["class"] == "ValueError"
    assert "cannot take turn_1.2" in letter.error.message


@pytest.mark.requirement("R6")
async def test_a_failing_batch_costs_only_the_message_at_fault(store: Told, carrier: Carrier) -> None:
    await carrier.put(*(sealed(f"turn_{n}", 1, f"ses_{n}") for n in range(10)))
    seen = Seen()
    seen.broken.add("turn_4.1")
    async with consuming(group(seen, batch=8), carrier, store):
        await caught_up(store, carrier)
    assert set(seen.ids) == {f"turn_{n}.1" for n in range(10)} - {"turn_4.1"}
    assert len((await DeadLetterDesk(store).list(ME, "", 50, ""))[0]) == 1


@pytest.mark.requirement("R6", "S3", "FT11")
async def test_an_unknown_type_is_buried_at_once_and_one_that_may_be_ignored_is_not(
    store: Told, carrier: Carrier
) -> None:
    await carrier.put(
        unknown(sealed("turn_1", 1, "ses_a"), may_ignore=True),
        sealed("turn_1", 2, "ses_a"),
        unknown(sealed("turn_2", 1, "ses_b")),
        sealed("turn_2", 2, "ses_b"),
    )
    seen = Seen()
    async with consuming(group(seen), carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.2"]
    (letter,), _ = await DeadLetterDesk(store).list(ME, "", 10, "")
    assert (letter.error.reason, letter.offset) == ("REASON_EVENT_TYPE_UNKNOWN", 3)


@pytest.mark.requirement("R6", "FT11")
async def test_bytes_that_are_no_envelope_hold_the_session_that_they_are_known_to_be_of(
    store: Told, carrier: Carrier
) -> None:
    await carrier.put(b"\xff\xff", sealed("turn_1", 1, "ses_a"))
    await carrier.put(b"\xff\x00no", session="ses_z")
    await carrier.put(sealed("turn_8", 1, "ses_z"))
    seen = Seen()
    async with consuming(group(seen), carrier, store):
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.1"]
    letters, _ = await DeadLetterDesk(store).list(ME, "", 10, "")
    assert [(x.offset, x.session_id, x.error.reason) for x in letters] == [
        (1, "", "REASON_EVENT_UNDECODABLE"),
        (3, "ses_z", "REASON_EVENT_UNDECODABLE"),
    ]


@pytest.mark.requirement("R6", "FT11")
async def test_a_replay_delivers_the_message_and_then_what_was_parked_in_order(
    store: Told, carrier: Carrier
) -> None:
    seen = Seen()
    seen.broken.add("turn_1.1")
    async with consuming(group(seen), carrier, store) as consumer:
        desk = DeadLetterDesk(store, consumer.poke)
        for n in range(1, 4):
            await carrier.put(sealed("turn_1", n), sealed("turn_2", n, "ses_b"))
        await caught_up(store, carrier)
        assert seen.ids == ["turn_2.1", "turn_2.2", "turn_2.3"]
        (letter,), _ = await desk.list(ME, "", 10, "")
        seen.broken.clear()
        await desk.replay(ME, letter.dead_letter_id, "k", b"d", REPLAY)
        await carrier.put(sealed("turn_1", 4))
        await seen.until(lambda: "turn_1.4" in seen.ids)
        await caught_up(store, carrier)
        assert seen.ids[3:] == [f"turn_1.{n}" for n in range(1, 5)]
        assert (await store.holds("g", 0)) == []
    assert (await desk.list(ME, "", 10, "")) == ([], "")


@pytest.mark.requirement("R6")
async def test_a_replay_that_fails_opens_the_same_letter_again(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    seen.broken |= {"turn_1.1", "turn_1.3"}
    await carrier.put(*(sealed("turn_1", n) for n in range(1, 5)))
    async with consuming(group(seen), carrier, store) as consumer:
        desk = DeadLetterDesk(store, consumer.poke)
        await caught_up(store, carrier)
        (first,), _ = await desk.list(ME, "", 10, "")
        await desk.replay(ME, first.dead_letter_id, "k1", b"d", REPLAY)
        await caught_up(store, carrier)
        (again,), _ = await desk.list(ME, "", 10, "")
        assert again.dead_letter_id == first.dead_letter_id
        seen.broken.discard("turn_1.1")
        await desk.replay(ME, first.dead_letter_id, "k2", b"d", REPLAY)
        await caught_up(store, carrier)
        (second,), _ = await desk.list(ME, "", 10, "")
        assert second.offset == 3
        await desk.drop(ME, second.dead_letter_id, "k3", b"d", "DropDeadLetter")
        await caught_up(store, carrier)
    assert seen.ids == ["turn_1.1", "turn_1.2", "turn_1.4"]


@pytest.mark.requirement("R6")
async def test_a_drop_passes_over_a_message_outside_any_session(store: Told, carrier: Carrier) -> None:
    seen = Seen()
    await carrier.put(b"\xff", sealed("turn_1", 1))
    async with consuming(group(seen), carrier, store) as consumer:
        desk = DeadLetterDesk(store, consumer.poke)
        await caught_up(store, carrier)
        (letter,), _ = await desk.list(ME, "", 10, "")
        await desk.drop(ME, letter.dead_letter_id, "k", b"d", "DropDeadLetter")
        await caught_up(store, carrier)
        assert (await store.holds("g", 0)) == []
    assert seen.ids == ["turn_1.1"]


async def test_a_hold_survives_a_takeover(store: Told, carrier: Carrier) -> None:
    await carrier.put(unknown(sealed("turn_1", 1)), sealed("turn_1", 2))
    async with consuming(group(Seen()), carrier, store, epoch=1):
        await caught_up(store, carrier, epoch=1)
    seen = Seen()
    async with consuming(group(seen), carrier, store, epoch=2):
        await carrier.put(sealed("turn_1", 3), sealed("turn_2", 1, "ses_b"))
        await caught_up(store, carrier, epoch=2)
        (letter,), _ = await DeadLetterDesk(store).list(ME, "", 10, "")
        await DeadLetterDesk(store).drop(ME, letter.dead_letter_id, "k", b"d", "DropDeadLetter")
        await seen.until(lambda: "turn_1.3" in seen.ids)
    assert seen.ids == ["turn_2.1", "turn_1.2", "turn_1.3"]


async def test_what_is_away_is_waited_for_and_buries_nothing(store: Told, carrier: Carrier) -> None:
    await carrier.put(sealed("turn_1", 1))
    seen, tries = Seen(), 0

    async def flaky(deliveries: Sequence[Delivery]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise TryLater
        await seen(deliveries)

    async with consuming(group(flaky, attempts=1), carrier, store):
        await seen.until(lambda: bool(seen.ids))
    assert (await DeadLetterDesk(store).list(ME, "", 10, ""))[0] == []


@pytest.mark.requirement("R6")
async def test_groups_are_held_one_by_one(store: Told, carrier: Carrier) -> None:
    good, bad = Seen(), Seen()
    bad.broken.add("turn_1.1")
    await carrier.put(sealed("turn_1", 1), sealed("turn_1", 2))
    async with (
        consuming(group(good, name="good"), carrier, store),
        consuming(group(bad, name="bad"), carrier, store),
    ):
        await caught_up(store, carrier, name="good")
        await caught_up(store, carrier, name="bad")
    assert (good.ids, bad.ids) == (["turn_1.1", "turn_1.2"], [])


@pytest.mark.requirement("R6", "FT10")
@pytest.mark.parametrize("seed", range(3))
async def test_duplicates_and_reordering_leave_the_same_audit_log(audit: AuditLog, seed: int) -> None:
    clean = MemoryAuditLog()
    deliveries = [_delivery(n) for n in range(128)]
    await audit_group(clean).handler(deliveries)
    pick = random.Random(seed)
    late = sorted(
        ((n + pick.uniform(0, 64), n // 3) for n in range(3 * len(deliveries))), key=lambda pair: pair[0]
    )
    for at in range(0, len(late), 16):
        await audit_group(audit).handler([deliveries[n] for _, n in late[at : at + 16]])
    found = await audit.audited("default")
    assert found == await clean.audited("default")
    assert len(found) == 128


def _delivery(n: int) -> Delivery:
    envelope = sealed(f"turn_{n:03}", 1, f"ses_{n % 7}")
    event = unpack(envelope)
    assert event is not None
    return Delivery(0, n + 1, "agent.turns.requests", envelope.session_id, envelope, event)
